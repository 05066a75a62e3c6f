"""Texts of the cells of `prompt_sets.py` to be read blind, and what the rules make of them.

    .venv/bin/python benchmarks/read_blind.py texts FOLDER --llm smollm2 --half 0 > TEXTS.tsv
    .venv/bin/python benchmarks/read_blind.py rules FOLDER TEXTS.tsv
    .venv/bin/python benchmarks/read_blind.py rows FOLDER > ROWS.tsv
    .venv/bin/python benchmarks/read_blind.py sides FOLDER ROWS.tsv

`texts` prints raw texts of one LLM in random order, as many of each cell, from one half of the sentences, so
that rules which were made on one half are measured on the other. Each is to be labelled `good` (a sentence
of its own once its wrapping is removed, right or wrong) or `junk` (the premise, a demonstration, talk about
the task, an answer, declining, cut off, a list, another language) before any rule sees it; `rules` then
prints how many of both the present rules reject. `rows` prints rows that pass, cells mixed and not named; the
three columns to be filled with `y` or `n` are: the contradiction contradicts, the entailment follows, one of
the two is junk.
"""

import argparse
import csv
import hashlib
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from prompt_sets import CELLS, LLMS, SEED, Written, read_written, share

from multicsr.llm.base import Completion
from multicsr.prompts import load_prompts
from multicsr.stages.generate.hypothesis_rules import HypothesisRules
from multicsr.stages.generate.triplet_rows import DIRECTIONS, TripletInProgress

GOOD = Completion("It is something else altogether.", 6, finished=True)
"""Text beside the one that is judged: no rule rejects it."""
QUESTIONS = ("contradicts", "follows", "junk")


def key(row: Written, direction: str = "") -> str:
    """Name of a row or a text that does not show its cell."""
    name = f"{row.cell}/{row.sentence['row_id']}/{direction}"
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def print_texts(rows: Iterable[Written], llm: str, half: int, number: int) -> None:
    """Print texts of one LLM to be labelled, a text of one premise once."""
    rng = random.Random(SEED)
    chosen = {}
    for cell in (cell for cell in CELLS if cell.llm == llm):
        found = [(row, side) for row in rows if row.cell == cell for side in DIRECTIONS if _half(row) == half]
        rng.shuffle(found)
        new = {(row.triplet.premise, row.raw(side)): (row, side) for row, side in found}
        new = [each for text, each in new.items() if text not in chosen]
        quota = number // sum(cell.llm == llm for cell in CELLS)
        chosen |= {(row.triplet.premise, row.raw(side)): (row, side) for row, side in new[:quota]}
    texts = list(chosen.values())
    rng.shuffle(texts)
    out = csv.writer(sys.stdout, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
    out.writerow(["key", "label", "side", "finished", "premise", "raw"])
    for row, side in texts:
        raw = json.dumps(row.raw(side), ensure_ascii=False)
        out.writerow([key(row, side), "", side, row.is_finished(side), row.triplet.premise, raw])


def _half(row: Written) -> int:
    return int(row.sentence["row_id"], 16) % 2


def print_rules(rows: Iterable[Written], labelled: Path) -> None:
    """Print how much of the junk the present rules reject, how many good texts, and which are wrong."""
    by_key = {key(row, side): (row, side) for row in rows for side in DIRECTIONS}
    rejected = defaultdict(list)
    for line in _read(labelled):
        row, side = by_key[line["key"]]
        reason = rejection(row, side)
        rejected[line["label"]].append(reason is not None)
        if (reason is not None) != (line["label"] == "junk"):
            print(
                line["label"], line["key"], row.cell, side, reason or "passes", line["premise"], line["raw"]
            )
    for label, verdicts in rejected.items():
        print(f"{label}: {sum(verdicts)} of {len(verdicts)} rejected, {share(sum(verdicts), len(verdicts))}")


def rejection(row: Written, side: str) -> str | None:
    """Return the reason for which the present rules reject one text, beside a good one."""
    text = Completion(row.raw(side), 40, row.is_finished(side))
    pair = (text, GOOD) if side == DIRECTIONS[0] else (GOOD, text)
    triplet = TripletInProgress(row.triplet.premise, "id", "en", row.cell.omega, row.cell.prompts, "")
    triplet.take_completions(*pair, HypothesisRules(load_prompts(row.cell.prompts)))
    return triplet.rejection.reason if triplet.rejection else None


def print_rows(rows: Iterable[Written], number: int) -> None:
    """Print rows that pass, at most `number` of a cell, in random order."""
    rng = random.Random(SEED)
    chosen = []
    for cell in CELLS:
        passing = [row for row in rows if row.cell == cell and row.passes]
        chosen += rng.sample(passing, min(number, len(passing)))
    rng.shuffle(chosen)
    print("key", *QUESTIONS, "premise", *DIRECTIONS, sep="\t")
    for row in chosen:
        texts = [row.triplet.premise, *(str(each.text) for each in row.triplet.hypotheses)]
        print(key(row), *[""] * len(QUESTIONS), *texts, sep="\t")


def print_sides(rows: Iterable[Written], read: Path) -> None:
    """Print the answers to the questions for each cell, for the rows that the present rules let pass."""
    cell_of = {key(row): row.cell for row in rows if row.passes}
    answers, num_rejected = defaultdict(list), 0
    for line in _read(read):
        if line["key"] in cell_of:
            answers[cell_of[line["key"]]].append(line)
        else:
            num_rejected += 1
    print(f"{num_rejected} rows that were read are rejected by the present rules")
    for cell in (cell for cell in CELLS if cell in answers):
        lines = answers[cell]
        yes = {question: sum(line[question] == "y" for line in lines) for question in QUESTIONS}
        shares = [f"{name} {n} of {len(lines)}, {share(n, len(lines))}" for name, n in yes.items()]
        print(cell, *shares, sep="  ")


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    names = {name: steps.add_parser(name) for name in ("texts", "rules", "rows", "sides")}
    for step in names.values():
        step.add_argument("folder", type=Path, help="that of prompt_sets.py")
    names["texts"].add_argument("--llm", choices=LLMS, required=True)
    names["texts"].add_argument("--half", type=int, choices=(0, 1), required=True)
    names["texts"].add_argument("--number", type=int, default=300)
    names["rules"].add_argument("labelled", type=Path)
    names["rows"].add_argument("--number", type=int, default=100, help="of a cell")
    names["sides"].add_argument("read", type=Path)
    given = parser.parse_args()
    rows = read_written(given.folder)
    if given.step == "texts":
        print_texts(rows, given.llm, given.half, given.number)
    elif given.step == "rules":
        print_rules(rows, given.labelled)
    elif given.step == "rows":
        print_rows(rows, given.number)
    else:
        print_sides(rows, given.read)


if __name__ == "__main__":
    main()
