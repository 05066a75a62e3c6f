"""Build a task "changed meaning" for `multicsr evaluate` from labelled files as people have them.

    python scripts/build_changed_meaning.py --out changed_meaning.tsv FILE...

Files are TSV without quoting, plain or gzip, known by their columns:

    input, paraphrase_index, candidate0, candidate1, ...   SemAntoNeg: one candidate keeps the meaning
    sentence, negated                                      sentences and their refuted or negated form
    premise, hypothesis, label                             natural language inference: its contradictions
    score, sentence1, sentence2 [, entailment_label]       STS or SICK: paraphrases from 4.5 of 5; with the
    label of
                                                           SICK, its contradictions and its exchanged roles
                                                           too
    label, sentence1, sentence2                            paraphrases (1) or not (0), such as MRPC: the
    paraphrases

Of all pairs but SemAntoNeg's, those are taken whose sentences share at least half of their words. The file
has the columns anchor, paraphrase, changed, kind; a row without one of the two sentences has an empty field.
Kinds are

    antonym    SemAntoNeg: a word against its opposite, under a negation or without
    negation   a negation word more or less, and at most two words changed beside it
    number     other numbers, and at most one word changed beside them, such as dogs for dog
    role       the same words in another order
    word       one word or two put in the place of as many others
    other      more than that

To the anchors of paraphrases the script adds changed sentences of its own: 1912 becomes 1913, "two" becomes
"three" (number), and "A dog is chasing a cat" becomes "A cat is chasing a dog" (role).
"""

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from multicsr.errors import ConfigError
from multicsr.labelled_files import read_columns, read_rows
from multicsr.stages.curate.words import words_of
from multicsr.stages.evaluate.kinds.changed_meaning import COLUMNS, word_overlap

MIN_OVERLAP = 0.5
"""Word overlap (Jaccard) of pairs that count as near-identical."""
MIN_SCORE = 4.5
"""Human similarity, of 5, of pairs that count as paraphrases."""
MAX_WORDS = 2
"""Words that are changed in a pair of the kinds `negation` and `word`."""


def _words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


NEGATIONS = _words(
    "no not never none nobody nothing nowhere neither nor without cannot can't don't doesn't didn't isn't"
    " aren't wasn't weren't won't wouldn't shouldn't couldn't hasn't haven't hadn't"
)
AUXILIARIES = _words("do does did is are was were be been has have had will would can could should a an any")
"""Words that come and go with a negation."""
COUNTS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
"""Numbers that may take each other's place, because a plural follows all of them."""
NUMBER_WORDS = frozenset(COUNTS) | _words(
    "zero one thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty"
    " seventy eighty ninety hundred thousand million billion first second third fourth fifth sixth seventh"
    " eighth ninth tenth"
)
_WHO_DOES_WHAT = re.compile(
    r"(?P<first>A|The) (?P<who>\w+) (?P<verb>is \w+ing) (?P<article>a|the) "
    r"(?P<whom>[^aeiou\W]\w+)(?P<end>\.?)"
)


@dataclass
class Pairs:
    """Pairs of changed meaning with their kinds, and paraphrases by anchor."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Rows that a file gave as a whole: anchor, paraphrase, changed, kind."""
    changed: dict[tuple[str, str], str] = field(default_factory=dict)
    """Kind by (anchor, sentence of changed meaning)."""
    paraphrases: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add_changed(self, anchor: str, text: str) -> None:
        """Add a pair of changed meaning if its sentences are near-identical."""
        if anchor != text and word_overlap(anchor, text) >= MIN_OVERLAP:
            self.changed.setdefault((anchor, text), kind_of_change(anchor, text))

    def add_paraphrase(self, first: str, second: str) -> None:
        """Add a paraphrase, for either sentence as anchor, if its sentences are near-identical."""
        if first != second and word_overlap(first, second) >= MIN_OVERLAP:
            self.paraphrases[first].append(second)
            self.paraphrases[second].append(first)
            if other := with_other_number(first):
                self.changed.setdefault((first, other), "number")
            if other := with_exchanged_roles(first):
                self.changed.setdefault((first, other), "role")

    def joined(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield the rows: changed pairs, with a paraphrase of their anchor if there is one, then the rest."""
        yield from self.rows
        choices = {anchor: cycle(texts) for anchor, texts in self.paraphrases.items()}
        used = set()
        for (anchor, text), kind in self.changed.items():
            paraphrase = next(choices[anchor]) if anchor in choices else ""
            used.add(frozenset((anchor, paraphrase)))
            yield anchor, paraphrase, text, kind
        for anchor, texts in self.paraphrases.items():
            for text in texts:
                if (pair := frozenset((anchor, text))) not in used:
                    used.add(pair)
                    yield anchor, text, "", ""


def kind_of_change(anchor: str, changed: str) -> str:
    """Return what was changed between two sentences with many common words; see the kinds above."""
    first, second = words_of(anchor), words_of(changed)
    if is_reordered(anchor, changed):
        return "role"
    gone, new = first - second, second - first
    numbers = [set(filter(is_number, words)) for words in (gone, new)]
    if all(numbers) and len(gone - numbers[0]) <= 1 and len(new - numbers[1]) <= 1:
        return "number"
    changed_negation = (gone | new) & NEGATIONS
    others = [words - NEGATIONS - AUXILIARIES for words in (gone, new)]
    if changed_negation and max(map(len, others)) <= MAX_WORDS:
        return "negation"
    return "word" if 0 < len(gone) == len(new) <= MAX_WORDS else "other"


def is_reordered(first: str, second: str) -> bool:
    """Return True if two sentences have the same words, each as often, in another order."""
    words, others = (text.lower().rstrip(" .!?").split() for text in (first, second))
    return words != others and sorted(words) == sorted(others)


def with_other_number(text: str) -> str | None:
    """Return a sentence with its first number above one replaced by the next one; None if it has none."""
    for match in re.finditer(r"(?<![\w.,-])(?:\d+|[A-Za-z]+)(?![\w,-]|\.\d)", text):
        if (other := _next_number(match[0])) is not None:
            return text[: match.start()] + other + text[match.end() :]
    return None


def with_exchanged_roles(text: str) -> str | None:
    """Return "A cat is chasing a dog." for "A dog is chasing a cat."; None for a sentence of another form."""
    match = _WHO_DOES_WHAT.fullmatch(text)
    if match is None or match["who"] == match["whom"]:
        return None
    return "{first} {whom} {verb} {article} {who}{end}".format(**match.groupdict())


def _next_number(word: str) -> str | None:
    if word.isdecimal():
        return str(int(word) + 1) if int(word) > 1 else None
    if word.lower() not in COUNTS[:-1]:
        return None
    other = COUNTS[COUNTS.index(word.lower()) + 1]
    return other.capitalize() if word[0].isupper() else other


def is_number(word: str) -> bool:
    """Return True for digits and English number words."""
    return word.isdecimal() or word in NUMBER_WORDS


def read_candidates(path: Path, pairs: Pairs) -> None:
    """Read SemAntoNeg: the paraphrase, and each other candidate as a changed sentence."""
    candidates = sorted(name for name in read_columns(path) if name.startswith("candidate"))
    for _, (anchor, index, *texts) in read_rows(path, ("input", "paraphrase_index", *candidates)):
        paraphrase = texts[int(index)]
        pairs.rows += [(anchor, paraphrase, text, "antonym") for text in texts if text != paraphrase]


def read_negated(path: Path, pairs: Pairs) -> None:
    """Read sentences with their negated form."""
    for _, (sentence, negated) in read_rows(path, ("sentence", "negated")):
        pairs.add_changed(sentence, negated)


def read_inference(path: Path, pairs: Pairs) -> None:
    """Read the contradictions of natural language inference."""
    for _, (premise, hypothesis, label) in read_rows(path, ("premise", "hypothesis", "label")):
        if label == "contradiction":
            pairs.add_changed(premise, hypothesis)


def read_scored(path: Path, pairs: Pairs) -> None:
    """Read STS or SICK."""
    columns = ("score", "sentence1", "sentence2")
    for _, (score, first, second, label) in read_rows(path, columns, ["entailment_label"]):
        if label == "contradiction" or (label == "neutral" and is_reordered(first, second)):
            pairs.add_changed(first, second)
        elif float(score) >= MIN_SCORE and label in ("", "entailment"):
            pairs.add_paraphrase(first, second)


def read_paraphrases(path: Path, pairs: Pairs) -> None:
    """Read pairs with label 1."""
    for _, (label, first, second) in read_rows(path, ("label", "sentence1", "sentence2")):
        if label == "1":
            pairs.add_paraphrase(first, second)


READERS = {
    ("input", "paraphrase_index", "candidate0", "candidate1"): read_candidates,
    ("sentence", "negated"): read_negated,
    ("premise", "hypothesis", "label"): read_inference,
    ("score", "sentence1", "sentence2"): read_scored,
    ("label", "sentence1", "sentence2"): read_paraphrases,
}
"""Readers by the columns that a file must have."""


def read_file(path: Path, pairs: Pairs) -> None:
    """Add the pairs of a file.

    Raises:
        ConfigError: the file cannot be read, or has other columns than those above.
    """
    columns = read_columns(path)
    for needed, read in READERS.items():
        if set(needed) <= set(columns):
            return read(path, pairs)
    raise ConfigError(f"{path}: no known columns: {', '.join(columns)}")


def main() -> None:
    """Read the files named on the command line, write the task and the number of its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="file to write, .tsv")
    arguments = parser.parse_args()
    pairs = Pairs()
    try:
        for path in arguments.files:
            read_file(path, pairs)
    except ConfigError as error:
        sys.exit(str(error))
    rows = list(pairs.joined())
    lines = ["\t".join(row) for row in (COLUMNS, *rows)]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    by_kind = Counter(kind for *_, kind in rows if kind)
    both = sum(bool(paraphrase and changed) for _, paraphrase, changed, _ in rows)
    counts = ", ".join(f"{kind} {count:,}" for kind, count in by_kind.most_common())
    sys.stderr.write(
        f"{arguments.out}: {len(rows):,} rows, {both:,} with both sentences; changed: {counts}\n"
    )


if __name__ == "__main__":
    main()
