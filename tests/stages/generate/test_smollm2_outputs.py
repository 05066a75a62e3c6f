"""What a small public LLM really wrote, labelled by reading before the rules were applied.

SmolLM2-135M-Instruct (Q4_1), 50 captions of the demo, both shipped prompt sets without their stop string.
The rules were made on the outputs for one half of the captions; the other half was labelled and judged
afterwards.
"""

import json
from pathlib import Path

import pytest

from multicsr.llm.base import Completion
from multicsr.prompts import load_prompts
from multicsr.rows import normalise
from multicsr.stages.generate.hypothesis_rules import HypothesisRules
from multicsr.stages.generate.triplet_rows import TripletInProgress

RULES = {name: HypothesisRules(load_prompts(name)) for name in ("syncse", "reference")}
GOOD = Completion("It is something else altogether.", 6, finished=True)


def outputs(half):
    lines = Path(__file__).with_name("smollm2_outputs.tsv").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    return [{**row, "raw": json.loads(row["raw"])} for row in rows if row["half"] == half]


def is_rejected(row):
    """True if the rules reject the text, beside a good one on the other side."""
    text = Completion(row["raw"], 40, row["finished"] == "true")
    pair = (text, GOOD) if row["direction"] == "entailment" else (GOOD, text)
    triplet = TripletInProgress(row["premise"], "id", "en", 0.3, row["prompts"], "smollm2")
    triplet.take_completions(*pair, RULES[row["prompts"]])
    return triplet.rejection is not None


def is_rejected_by_version_1(row):
    """True if the first version of the rules rejects the text: empty, unfinished, or the premise itself."""
    text = normalise(row["raw"]).casefold()
    return not text or row["finished"] != "true" or text == row["premise"].casefold()


HYPHEN = "A woman with red hair and a leather jacket holds a harp in front of a snowy forest."
"""Labelled good, and rejected since version 4: it only lacks a hyphen of the premise."""


@pytest.mark.parametrize(
    ("half", "junk", "caught", "before", "lost"),
    [("rules", 39, 38, 17, [HYPHEN]), ("report", 36, 33, 17, [])],
)
def test_junk_is_caught_and_good_texts_are_not_lost(half, junk, caught, before, lost):
    rows = outputs(half)
    bad = [row for row in rows if row["label"] == "junk"]
    assert len(bad) == junk
    assert sum(map(is_rejected, bad)) == caught
    assert sum(map(is_rejected_by_version_1, bad)) == before
    assert [row["raw"] for row in rows if row["label"] == "good" and is_rejected(row)] == lost
