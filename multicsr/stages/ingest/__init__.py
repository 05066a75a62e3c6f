"""Ingest stage: read raw text, normalise, filter and identify sentences, drop duplicates.

files.py            search for input files, and their names
formats.py          format and compression, from a file's name
digests.py          identity of a file: a digest of its bytes
streams.py          bytes of a file: decompressed, as UTF-8, split into lines
record.py           one record of a file
readers.py          a file as a stream of records, for every format
separated.py        a CSV or TSV file as a stream of records
json_records.py     a JSON file as a stream of records
wikipedia.py        a MediaWiki export as a stream of articles
wikitext.py         an article as plain paragraphs
parser_errors.py    any exception of a parser as a reject of one record
filters.py          the text of a record, or the reason to reject it
reading.py          pass 1: each file to candidates, in chunks sorted by id
near_duplicates.py  optional step between the passes
duplicates.py       ranges of ids: equal sentences fall into one range
sharding.py         pass 2: ranges of ids to files, each sentence once
triplet_files.py    labelled triplets in files, which other stages read
triplet_columns.py  their columns
run.py              the passes in order
"""

from multicsr.stages.ingest.run import ingest

__all__ = ["ingest"]
