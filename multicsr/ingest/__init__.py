"""Raw text to sentences: read, normalise, filter, identify, drop duplicates.

files.py     which files, of which format
readers.py   a file as a stream of records
filters.py   a record's text, or why it is refused
reading.py   pass 1: each file to candidates, cut into chunks and sorted by id
duplicates.py      pass 2: candidates by range of ids to shards, each sentence once
near_duplicates.py between the two, when it is asked for
run.py       the passes in order
"""

from multicsr.ingest.run import ingest

__all__ = ["ingest"]
