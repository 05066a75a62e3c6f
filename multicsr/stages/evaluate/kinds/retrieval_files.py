"""Retrieval tasks in files: a corpus, queries, and judgements of one or several splits.

    NAME_corpus    doc_id, title, text        or  corpus     _id, title, text               (BEIR)
    NAME_queries   query_id, text             or  queries    _id, text
    NAME_qrels     query_id, doc_id, score    or  qrels/test query-id, corpus-id, score
    NAME_qrels_test, NAME_qrels_dev, ...

Each file is TSV or JSON lines, plain or gzip. Titles may be missing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from multicsr.errors import ConfigError
from multicsr.labelled_files import file_stem, read_number, read_rows
from multicsr.messages.extras import require_extra
from multicsr.stages.evaluate.kinds.reader import DataFile, FoundTask, Kind, UnusableFiles, attempt
from multicsr.stages.evaluate.kinds.retrieval import RetrievalTask

_CORPUS = re.compile(r"(?:^|(?<=[/_.-]))corpus$")
_DOCUMENT_IDS = ("_id", "doc_id", "corpus-id", "id")
_QUERY_IDS = ("_id", "query_id", "query-id", "id")
_JUDGED_QUERIES = ("query-id", "query_id")
_JUDGED_DOCUMENTS = ("corpus-id", "doc_id")
_SPLITS = ("test", "", "dev", "val", "validation", "train")
"""Names of splits; the first one that is there is measured, and one with another name comes last."""

_HIGHEST = 1000
"""Highest relevance in judgements. pytrec_eval allocates memory for every level up to the highest one."""


@dataclass(frozen=True)
class _Set:
    """The files of one set."""

    name: str
    corpus: DataFile
    queries: DataFile
    judgements: Mapping[str, DataFile]
    """Files of judgements by split, the one to measure first."""

    def files(self) -> list[DataFile]:
        """Return all files."""
        return [self.corpus, self.queries, *self.judgements.values()]


def flat_name(path: Path) -> str:
    """Return a name for a file that is to lie in one folder with files of other sets.

    Files of a directory in the format of BEIR get its name: SET_corpus, SET_queries, SET_qrels_test. Other
    files keep their name.
    """
    folder = path.absolute().parent
    if folder.name == "qrels":
        return f"{folder.parent.name}_qrels_{path.name}"
    return f"{folder.name}_{path.name}" if file_stem(path) in ("corpus", "queries") else path.name


def is_part(file: DataFile) -> bool:
    """Return True if a file is a corpus, queries or judgements by its name and columns."""
    ids = {"corpus": _DOCUMENT_IDS, "queries": _QUERY_IDS}.get(re.split("[/_.-]", file.place)[-1])
    if ids is not None:
        return _has(file, ids, ["text"])
    return "qrels" in file.place and _has(file, _JUDGED_QUERIES, _JUDGED_DOCUMENTS, ["score"])


def _find(files: Sequence[DataFile]) -> Iterator[FoundTask | UnusableFiles]:
    for each in _sets(files):
        yield from attempt(each.files(), partial(_found, each))


def _found(each: _Set) -> FoundTask:
    split, *others = each.judgements
    unused = {
        each.judgements[other].name: f"judgements of {_name(other)}; {_name(split)} is measured"
        for other in others
    }
    return FoundTask(_read(each, split), each.files(), unused)


def _sets(files: Sequence[DataFile]) -> Iterator[_Set]:
    by_place = {file.place: file for file in files}
    for corpus in files:
        if not _CORPUS.search(corpus.place) or not _has(corpus, _DOCUMENT_IDS, ["text"]):
            continue
        prefix = _CORPUS.sub("", corpus.place)
        queries = by_place.get(f"{prefix}queries")
        judgements = _judgements(files, prefix)
        if queries is not None and _has(queries, _QUERY_IDS, ["text"]) and judgements:
            name = _CORPUS.sub("", corpus.name).rstrip("/_.-") or PurePosixPath(corpus.place).parent.name
            yield _Set(name, corpus, queries, judgements)


def _judgements(files: Sequence[DataFile], prefix: str) -> dict[str, DataFile]:
    """Return the files of judgements of a set by split, the one to measure first."""
    pattern = re.compile(rf"{re.escape(prefix)}qrels(?:[/_.-](?P<split>[^/]+))?")
    found = {
        match["split"] or "": file
        for file in files
        if (match := pattern.fullmatch(file.place))
        and _has(file, _JUDGED_QUERIES, _JUDGED_DOCUMENTS, ["score"])
    }
    rank = {split: number for number, split in enumerate(_SPLITS)}
    return dict(sorted(found.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0])))


def _has(file: DataFile, *columns: Sequence[str]) -> bool:
    """Return True if the file has one of each of these columns."""
    return all(not file.columns.isdisjoint(names) for names in columns)


def _column(file: DataFile, names: Sequence[str]) -> str:
    return next(name for name in names if name in file.columns)


def _name(split: str) -> str:
    return f"split {split}" if split else "the file without a split"


def _read(files: _Set, split: str) -> RetrievalTask:
    require_extra("eval", f"the retrieval task {files.name}")
    documents = _documents(files.corpus)
    queries = _texts(files.queries, _QUERY_IDS)
    judged = _relevance(files.judgements[split])
    measured = {query: of for query, of in judged.items() if query in queries and max(of.values()) > 0}
    if not measured:
        raise ConfigError(f"{files.judgements[split].path}: no query has a relevant document")
    absent = sum(document not in documents for of in measured.values() for document in of)
    left_out = len(judged) - len(measured)
    notes = (
        *([_name(split)] if split else []),
        *([f"{left_out:,} judged queries without text or relevant document left out"] if left_out else []),
        *([f"{absent:,} judged documents are not in the corpus"] if absent else []),
    )
    return RetrievalTask(
        files.name, {query: queries[query] for query in measured}, documents, measured, notes
    )


def _documents(file: DataFile) -> dict[str, str]:
    """Read a corpus: title, blank, text of each document; the ids descend."""
    texts = _texts(file, _DOCUMENT_IDS, ["title"])
    return {key: texts[key] for key in sorted(texts, key=str.encode, reverse=True)}


def _texts(file: DataFile, ids: Sequence[str], before: Sequence[str] = ()) -> dict[str, str]:
    """Read texts by id."""
    texts: dict[str, str] = {}
    for number, (key, text, *parts) in read_rows(file.path, [_column(file, ids), "text"], before):
        if key in texts:
            raise ConfigError(f"{file.path}, line {number}: the id {key!r} occurs twice")
        texts[key] = " ".join([*parts, text]).strip()
    return texts


def _relevance(file: DataFile) -> dict[str, dict[str, int]]:
    """Read judgements."""
    columns = [_column(file, _JUDGED_QUERIES), _column(file, _JUDGED_DOCUMENTS), "score"]
    judged: dict[str, dict[str, int]] = {}
    for number, (query, document, score) in read_rows(file.path, columns):
        value = _integer(score, file.path, number)
        if judged.setdefault(query, {}).setdefault(document, value) != value:
            raise ConfigError(
                f"{file.path}, line {number}: {query!r} and {document!r} have another score above"
            )
    return judged


def _integer(text: str, path: Path, number: int) -> int:
    value = read_number("score", text, path, number)
    if value != int(value):
        raise ConfigError(f"{path}, line {number}: score {text!r} is not an integer")
    if value > _HIGHEST:
        raise ConfigError(f"{path}, line {number}: score {text} is above {_HIGHEST:,}, the highest relevance")
    return int(value)


KIND = Kind(
    "retrieval",
    "NAME_corpus (doc_id, title, text) with NAME_queries (query_id, text) and NAME_qrels (query_id, doc_id, "
    "score), or a directory in the format of BEIR",
    _find,
)
