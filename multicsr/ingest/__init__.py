"""Raw text to sentences: read, normalise, filter, identify, drop duplicates.

files.py            which files, of which format
readers.py          a file as a stream of records
wikipedia.py        a MediaWiki export as a stream of articles
wikitext.py         an article as plain paragraphs
filters.py          a record's text, or why it is refused
reading.py          pass 1: each file to candidates, in chunks sorted by id
near_duplicates.py  between the passes, when it is asked for
duplicates.py       ranges of ids: equal sentences meet in one
sharding.py         pass 2: ranges of ids to files, each sentence once
run.py              the passes in order
"""

from multicsr.ingest.run import ingest

__all__ = ["ingest"]
