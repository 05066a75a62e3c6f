"""The training text of the tiny LM and the judge, and what is held out from both.

Sources: SNLI train sample, counterfactual SNLI (train split), Wikipedia negation pairs, Wikipedia sentences.
Held out: every premise of SNLI dev and test, because the demo generates from those.
"""

import gzip
import re
from pathlib import Path
from typing import Literal, NamedTuple

Label = Literal["entailment", "neutral", "contradiction"]
LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")
_NOT_WORD = re.compile(r"[^a-z0-9]+")


class Pair(NamedTuple):
    """A premise, a hypothesis, and the label that annotators gave the pair."""

    premise: str
    hypothesis: str
    label: Label


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a gzip TSV file with a header line and no quoting, each by column."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        header = next(lines).rstrip("\n").split("\t")
        return [dict(zip(header, line.rstrip("\n").split("\t"), strict=True)) for line in lines]


def squash(sentence: str) -> str:
    """Return a sentence without case, spaces and punctuation, to compare sentences of different files.

    SNLI dev is tokenised, the other files are not.
    """
    return _NOT_WORD.sub("", sentence.lower())


def nli_test(data: Path) -> list[Pair]:
    """Return the pairs of SNLI test, on which nothing here is trained."""
    pairs = _pairs(data / "nli/snli_test.tsv.gz")
    return [Pair(tidy(p.premise), tidy(p.hypothesis), p.label) for p in pairs]


def nli_train(data: Path) -> list[Pair]:
    """Return the pairs of the SNLI train sample and of counterfactual SNLI train, less what is held out."""
    names = ("snli_dev_tokenised", "snli_test")
    held_out = {squash(pair.premise) for name in names for pair in _pairs(data / f"nli/{name}.tsv.gz")}
    pairs = _pairs(data / "nli/snli_train_sample.tsv.gz")
    pairs += _pairs(data / "nli/snli_counterfactual.tsv.gz", split="/train")
    kept = [pair for pair in pairs if squash(pair.premise) not in held_out]
    return [Pair(tidy(p.premise), tidy(p.hypothesis), p.label) for p in dict.fromkeys(kept)]


def negations(data: Path) -> list[tuple[str, str]]:
    """Return Wikipedia claims with their refuted forms, of a length that the LM can copy: 3 to 22 words."""
    rows = read_tsv(data / "nli/negation_pairs_wikifactcheck.tsv.gz")
    pairs = ((tidy(row["sentence"]), tidy(row["negated"])) for row in rows)
    return [pair for pair in pairs if all(3 <= len(text.split()) <= 22 for text in pair)]


def wiki_sentences(data: Path) -> list[str]:
    """Return Wikipedia sentences of four to twenty words."""
    rows = read_tsv(data / "mono/wiki_sentences_en.tsv.gz")
    texts = dict.fromkeys(tidy(row["sentence"]) for row in rows)
    return [text for text in texts if 4 <= len(text.split()) <= 20]


def tidy(sentence: str) -> str:
    """Return a sentence in the form the LM should write: single spaces, a capital letter, a full stop."""
    text = " ".join(sentence.split())
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?\"'" else text + "."


def _pairs(path: Path, split: str = "") -> list[Pair]:
    rows = read_tsv(path)
    return [
        Pair(row["premise"], row["hypothesis"], row["label"])
        for row in rows
        if row["source"].endswith(split) and row["label"] in LABELS
    ]
