"""Make the demo's data from held-out SNLI: sentences to learn from, and triplets to measure with.

    python -m scripts.tinylm.demo_data --data DIR --out multicsr/assets/demo

The small LM was trained on none of these premises. Sentences come from SNLI test; the triplets that pick
the checkpoint and those that measure it come from two disjoint halves of SNLI dev.
"""

import argparse
import csv
import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

_SPACED = re.compile(r" (?=[.,;:!?%)\]]|n't\b|'(?:s|re|ve|ll|d|m)\b)|(?<=[(\[]) ")


class DemoPair(NamedTuple):
    """One labelled SNLI record."""

    premise: str
    hypothesis: str
    label: str


class Triplet(NamedTuple):
    """A premise with a human entailment and a human contradiction."""

    anchor: str
    positive: str
    negative: str


def read_pairs(path: Path) -> Iterator[DemoPair]:
    """Yield the SNLI records of a gzipped TSV file, without the spaces before punctuation."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for record in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield DemoPair(_untokenise(record["premise"]), _untokenise(record["hypothesis"]), record["label"])


def _untokenise(text: str) -> str:
    quoted = text.replace("`` ", '"').replace(" ''", '"')
    return " ".join(_SPACED.sub("", quoted).split())


def triplets(pairs: Iterable[DemoPair]) -> Iterator[Triplet]:
    """Yield the first entailment of each premise with its first contradiction.

    A premise that lacks one of them is left out.
    """
    hypotheses: dict[str, dict[str, str]] = {}
    for pair in pairs:
        hypotheses.setdefault(pair.premise, {}).setdefault(pair.label, pair.hypothesis)
    for premise, by_label in hypotheses.items():
        if "entailment" in by_label and "contradiction" in by_label:
            yield Triplet(premise, by_label["entailment"], by_label["contradiction"])


def _write(path: Path, rows: Iterable[tuple[str, ...]], header: tuple[str, ...]) -> None:
    path.write_text("\n".join("\t".join(row) for row in chain([header], rows)) + "\n", encoding="utf-8")


def main() -> None:
    """Write sentences.tsv, dev_triplets.tsv and test_triplets.tsv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds nli/snli_test.tsv.gz")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    premises = dict.fromkeys(pair.premise for pair in read_pairs(arguments.data / "nli/snli_test.tsv.gz"))
    _write(arguments.out / "sentences.tsv", ((premise,) for premise in premises), ("sentence",))

    human = [
        triplet
        for triplet in triplets(read_pairs(arguments.data / "nli/snli_dev_tokenised.tsv.gz"))
        if triplet.anchor not in premises
    ]
    human.sort(key=lambda triplet: hashlib.blake2b(triplet.anchor.encode()).digest())
    half = len(human) // 2
    _write(arguments.out / "dev_triplets.tsv", human[:half], Triplet._fields)
    _write(arguments.out / "test_triplets.tsv", human[half:], Triplet._fields)


if __name__ == "__main__":
    main()
