"""Columns of the paper's tables, and which task of an evaluation belongs to which column."""

import re
from collections.abc import Mapping, Sequence

from multicsr.tools.reproduce.paper import PaperColumn

_SPLITS = ("test", "dev", "validation")
"""Names of files that a split has in a folder of its set."""


def _of_test(*names: str) -> tuple[str, ...]:
    """Return names of a set, with and without the name of its test split."""
    return tuple(name + split for name in names for split in ("", "test"))


_STS_B = ("stsb", "stsbenchmark", "stsbenchmarksts")
STS_DEV = PaperColumn("STS-B dev", tuple(name + split for name in _STS_B for split in ("dev", "validation")))
_STS_TASKS = (
    *(PaperColumn(f"STS{year}", _of_test(f"sts{year}", f"sts{year}sts")) for year in range(12, 17)),
    PaperColumn("STS-B", _of_test(*_STS_B)),
    PaperColumn("SICK-R", (*_of_test("sick", "sickr", "sickrsts"), "sicktestannotated")),
)
STS = (*_STS_TASKS, PaperColumn("Avg.", mean=True))
"""The seven tasks of Table 1, 2, 6 and 11."""
_TRANSFER_TASKS = {
    "MR": ("mr",),
    "CR": ("cr",),
    "SUBJ": ("subj",),
    "MPQA": ("mpqa",),
    "SST": ("sst", "sst2", "sst2test"),
    "TREC": ("trec", "trectest"),
    "MRPC": ("mrpc", "mrpctest"),
}
TRANSFER = (
    *(PaperColumn(name, tasks) for name, tasks in _TRANSFER_TASKS.items()),
    PaperColumn("Avg.", mean=True),
)
"""The seven tasks of Table 9."""
_BEIR_TASKS = {
    "MS MARCO": ("msmarco",),
    "TREC-COVID": ("treccovid",),
    "NFCorpus": ("nfcorpus",),
    "NQ": ("nq",),
    "HotpotQA": ("hotpotqa",),
    "FiQA": ("fiqa", "fiqa2018"),
    "ArguAna": ("arguana",),
    "Touché-2020": ("touche2020", "webistouche2020"),
    "Quora": ("quora", "quoraretrieval"),
    "DBPedia": ("dbpedia", "dbpediaentity"),
    "SCIDOCS": ("scidocs",),
    "FEVER": ("fever",),
    "Climate-FEVER": ("climatefever",),
    "SciFact": ("scifact",),
}
BEIR = (
    *(PaperColumn(name, tasks) for name, tasks in _BEIR_TASKS.items()),
    PaperColumn("CQADupStack", ("cqadupstack",), parts=True),
    PaperColumn("Avg.", mean=True),
)
"""The 15 public sets of BEIR (Table 8); CQADupStack is the mean over its subforums."""
TATOEBA = (PaperColumn("Tatoeba tl-en", ("tatoebatgleng", "tatoebatlen", "tgleng", "tatoeba")),)


def plain(name: str) -> str:
    """Return the last part of a task's path in small letters, without punctuation.

    A file that is called as a split has the name of its folder before it: `STS12/test` is `sts12test`.
    """
    *folders, last = _parts(name)
    return folders[-1] + last if folders and last in _SPLITS else last


def _parts(name: str) -> list[str]:
    return [re.sub(r"[^a-z0-9]", "", part) for part in name.lower().split("/")]


def assign(columns: Sequence[PaperColumn], values: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
    """Assign the values of tasks to columns.

    Args:
        columns: columns of a table.
        values: value of each task by its name.

    Returns:
        Value of each column that was measured, and the names of the tasks that belong to no column.
    """
    found: dict[str, float] = {}
    others = dict.fromkeys(values)
    for column in columns:
        if column.mean:
            parts = [found.get(each.name) for each in columns if not each.mean]
            known = [part for part in parts if part is not None]
            if known and len(known) == len(parts):
                found[column.name] = sum(known) / len(known)
            continue
        mine = [name for name in values if _belongs(name, column)]
        for name in mine:
            others.pop(name, None)
        if mine:
            chosen = mine if column.parts else mine[:1]
            found[column.name] = sum(values[name] for name in chosen) / len(chosen)
    return found, [*others]


def column_of(columns: Sequence[PaperColumn], task: str) -> PaperColumn | None:
    """Return the first column that a task belongs to; None if it belongs to none."""
    return next((column for column in columns if not column.mean and _belongs(task, column)), None)


def _belongs(task: str, column: PaperColumn) -> bool:
    """Return True if a task belongs to a column; of one with parts a folder may have the column's name."""
    if column.parts:
        return any(part.startswith(column.tasks) for part in _parts(task))
    return plain(task) in column.tasks
