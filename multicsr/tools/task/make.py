"""Make a folder with a task of a table of clicks or duplicates: `multicsr task make`.

    clicks       query, document [, count]    retrieval: every clicked document is relevant
    duplicates   text, text2                  retrieval: the first text of each set finds the others
                 text, group
                 text, text2, label           pair classification, if there are pairs with label 0

With a share for the test, the rest of the rows is written beside the folder, as pairs to train on. No query
or set of duplicates is on both sides, and a pair is left out that has, exactly or with one word changed, a
query of the test or, of duplicates, any text that is judged in the test.
"""

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multicsr.errors import ConfigError
from multicsr.hashing import hash_64
from multicsr.stages.ingest.leaks import find_leaks
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.tools.task.table import Part, TableRow, TextTable, is_duplicate, read_table

_Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class MadeTask:
    """The files of a task, as lines with their header first, and a summary of them."""

    files: Mapping[str, list[tuple[str, ...]]]
    summary: str
    test_texts: Sequence[str]
    """Texts that must not be trained on: queries, and the judged texts of duplicates."""
    train_pairs: _Pairs
    """Pairs of the other side, before those that have one of `test_texts` are left out."""
    test_unit: str = "text"
    """Name of what `test_texts` are, for the message."""


def make_task(path: Path, out: Path, given: Mapping[Part, str], test_share: float = 1.0) -> str:
    """Write a task, and return one line on what it is.

    Args:
        path: CSV or TSV file with clicks or duplicates.
        out: folder to make; its name is the name of the task.
        given: names of columns that the user gave, by what is in them.
        test_share: share of the queries or sets of duplicates that is measured, above 0 and at most 1.

    Raises:
        ConfigError: the table cannot be used, or the folder exists.
    """
    if out.exists():
        raise ConfigError(f"--out: {out} exists; delete it, or name another folder")
    _require_place(out)
    pairs_file = out.with_name(f"{out.name}.train.tsv")
    if pairs_file.exists():
        raise ConfigError(f"--out: {pairs_file} exists; delete it, or name another folder")
    table = read_table(path, given)
    task = (
        _clicks(table, out.name, test_share)
        if "query" in table.columns
        else _of_texts(table, out.name, test_share)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        made = Path(folder) / out.name
        made.mkdir()
        for name, lines in task.files.items():
            _write(made / name, lines)
        trained, num_leaked = _without_leaks(task)
        if trained:
            _write(Path(folder) / pairs_file.name, [("anchor", "positive"), *trained])
            shutil.move(Path(folder) / pairs_file.name, pairs_file)
        shutil.move(made, out)
    skipped = f"; {table.num_unreadable:,} records skipped" if table.num_unreadable else ""
    rest = f"; {len(trained):,} pairs to train on in {pairs_file}" if trained else ""
    leaks = f", without {num_leaked:,} that have a {task.test_unit} of the test" if num_leaked else ""
    columns = ", ".join(table.columns.values())
    return f"{out}: {task.summary}, from the columns {columns}{skipped}{rest}{leaks}"


def _require_place(out: Path) -> None:
    """Raise if no folder of this name can be made."""
    if out.name in ("", "..") or not out.name.isprintable():
        raise ConfigError(f"--out: {str(out)!r} is no name of a folder; name one that is to be made")
    above = next(each for each in out.absolute().parents if each.exists())
    if not above.is_dir():
        raise ConfigError(f"--out: {above} is no directory; name a folder elsewhere")
    if not os.access(above, os.W_OK):
        raise ConfigError(f"--out: {above} cannot be written by this user; name a folder elsewhere")


def _without_leaks(task: MadeTask) -> tuple[_Pairs, int]:
    """Return the pairs to train on that have none of its test texts, and the number of the others."""
    if not task.train_pairs:
        return [], 0
    _, details = find_leaks(KnownTexts({"test": task.test_texts}), *zip(*task.train_pairs, strict=True))
    kept = [pair for pair, detail in zip(task.train_pairs, details, strict=True) if detail is None]
    return kept, len(task.train_pairs) - len(kept)


def _clicks(table: TextTable, name: str, test_share: float) -> MadeTask:
    """Return the retrieval task of clicks. All documents are searched, those of the other side too."""
    clicked: dict[str, dict[str, str]] = defaultdict(dict)
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    for row in table.rows:
        query, document = row.values["query"], row.values["document"]
        documents.setdefault(document.casefold(), document)
        if _num_clicks(row) > 0:
            queries.setdefault(query.casefold(), query)
            clicked[query.casefold()][document.casefold()] = document
    if not clicked:
        raise ConfigError("no query has a click; see --count")
    test = _test_side(queries, test_share)
    number = {document: f"d{place}" for place, document in enumerate(documents, 1)}
    judged = {query: [number[document] for document in clicked[query]] for query in test}
    pairs = [
        (queries[query], document)
        for query in queries
        if query not in test
        for document in clicked[query].values()
    ]
    return _retrieval(
        name,
        {query: queries[query] for query in test},
        {number[key]: text for key, text in documents.items()},
        judged,
        [],
        pairs,
    )


def _of_texts(table: TextTable, name: str, test_share: float) -> MadeTask:
    """Return the task of duplicates: of labelled pairs if some are none, else retrieval."""
    if "label" in table.columns and {is_duplicate(row) for row in table.rows} == {False, True}:
        return _labelled_pairs(table, name, test_share)
    sets = _sets(table)
    repeated = {key: texts for key, texts in sets.items() if len(texts) > 1}
    if not repeated:
        raise ConfigError("no text has a duplicate; see --text2, --label or --group")
    test = _test_side(repeated, test_share)
    queries = {key: sets[key][0] for key in test}
    searched = [text for key, texts in sets.items() for text in (texts[1:] if key in test else texts)]
    documents = {f"d{place}": text for place, text in enumerate(searched, 1)}
    number = {text: place for place, text in documents.items()}
    judged = {key: [number[text] for text in sets[key][1:]] for key in test}
    pairs = [(texts[0], other) for key, texts in repeated.items() if key not in test for other in texts[1:]]
    duplicates = [text for key in test for text in sets[key][1:]]
    return _retrieval(name, queries, documents, judged, duplicates, pairs)


def _labelled_pairs(table: TextTable, name: str, test_share: float) -> MadeTask:
    """Return the task of pairs with labels 1 and 0; pairs that share a text are on the same side."""
    side_of = _components((row.values["text"], row.values["text2"]) for row in table.rows)
    test = _test_side(dict.fromkeys(side_of.values()), test_share)
    lines: list[tuple[str, ...]] = [("label", "sentence1", "sentence2")]
    pairs: list[tuple[str, str]] = []
    for row in table.rows:
        pair = row.values["text"], row.values["text2"]
        if side_of[pair[0].casefold()] in test:
            lines.append((str(int(is_duplicate(row))), *pair))
        elif is_duplicate(row):
            pairs.append(pair)
    positives = sum(line[0] == "1" for line in lines[1:])
    if positives in (0, len(lines) - 1):
        raise ConfigError("--test: the pairs of the test have one label only; set it higher")
    summary = f"pair classification, {len(lines) - 1:,} pairs, {positives:,} of them duplicates"
    return MadeTask({f"{name}.tsv": lines}, summary, [text for line in lines[1:] for text in line[1:]], pairs)


def _retrieval(
    name: str,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    judged: Mapping[str, Iterable[str]],
    duplicates: Sequence[str],
    pairs: _Pairs,
) -> MadeTask:
    """Return the files of a retrieval task.

    Args:
        name: name of the task.
        queries: text of each query by its key.
        documents: text of each document by its id.
        judged: ids of the relevant documents by the key of the query.
        duplicates: texts that must not be trained on, besides the queries.
        pairs: pairs to train on.
    """
    ids = {query: f"q{place}" for place, query in enumerate(queries, 1)}
    lines = [(ids[query], document, "1") for query, relevant in judged.items() for document in relevant]
    files: dict[str, list[tuple[str, ...]]] = {
        f"{name}_corpus.tsv": [("doc_id", "text"), *documents.items()],
        f"{name}_queries.tsv": [
            ("query_id", "text"),
            *((ids[query], text) for query, text in queries.items()),
        ],
        f"{name}_qrels_test.tsv": [("query_id", "doc_id", "score"), *lines],
    }
    summary = (
        f"retrieval, {len(queries):,} queries, {len(documents):,} documents, {len(lines):,} of them relevant"
    )
    test_texts = [*queries.values(), *duplicates]
    return MadeTask(files, summary, test_texts, pairs, "text" if duplicates else "query")


def _sets(table: TextTable) -> dict[str, list[str]]:
    """Return the sets of duplicates: distinct texts by the key of their set, in order."""
    if "group" in table.columns:
        key_of = {row.values["text"].casefold(): row.values["group"] for row in reversed(table.rows)}
        texts = [row.values["text"] for row in table.rows]
    else:
        rows = [row for row in table.rows if "label" not in table.columns or is_duplicate(row)]
        key_of = _components((row.values["text"], row.values["text2"]) for row in rows)
        texts = [text for row in rows for text in (row.values["text"], row.values["text2"])]
    sets: dict[str, dict[str, str]] = defaultdict(dict)
    for text in texts:
        sets[key_of[text.casefold()]].setdefault(text.casefold(), text)
    return {key: list(found.values()) for key, found in sets.items()}


def _components(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return for each text, without case, the first text that a chain of pairs connects it with."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for one, other in pairs:
        first, second = root(one.casefold()), root(other.casefold())
        parent[second] = first
    return {text: root(text) for text in parent}


def _test_side(keys: Iterable[str], share: float) -> dict[str, None]:
    """Return the keys that are measured, in order, chosen by their hash; at least one."""
    chosen = {key: None for key in keys if hash_64(key) < share * 2**64}
    return chosen or {min(keys, key=hash_64): None}


def _num_clicks(row: TableRow) -> float:
    text = row.values.get("count", "1")
    try:
        return float(text or 0)
    except ValueError:
        raise ConfigError(f"{row.place}: count {text!r} is not a number") from None


def _write(path: Path, lines: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join(line) + "\n" for line in lines)
