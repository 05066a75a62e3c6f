"""Scores by a model for natural language inference: labels by name, probabilities, batches."""

import json
import shutil

import numpy as np
import pytest
import torch

from multicsr.errors import ConfigError, RunError
from multicsr.stages.score.by_nli import NliScorer, nli_scores
from multicsr.stages.score.nli_labels import NliLabels, check_labels_in, nli_labels
from tests.support.tiny_encoder import save_tiny_classifier
from tests.support.tiny_encoders import WORDS

THREE = ["contradiction", "entailment", "neutral"]
PAIRS = [(f"ba de {'fo ' * n}", f"ba {'de ' * (n % 5)}") for n in range(1, 70)]


@pytest.fixture
def nli_dir(tmp_path):
    return save_tiny_classifier(tmp_path / "nli", WORDS, THREE)


def values(scorer, pairs):
    return [score.value for score in scorer.score(pairs, ["id"] * len(pairs))]


def test_scores_follow_the_probabilities_of_the_labels_found_by_name(nli_dir, monkeypatch):
    """With logits forced to one label, the score is that label's worth, wherever it stands."""
    scorer = NliScorer(str(nli_dir), "cpu")
    for label, worth in (("contradiction", 0), ("entailment", 5), ("neutral", 2.5)):
        forced = np.full((3, 3), -50.0)
        forced[:, THREE.index(label)] = 50.0
        monkeypatch.setattr(scorer, "_logits", lambda pairs, forced=forced: forced)
        assert values(scorer, PAIRS[:3]) == [worth] * 3


def test_scores_are_those_of_a_plain_call(nli_dir):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(nli_dir)
    model = AutoModelForSequenceClassification.from_pretrained(nli_dir).eval()
    expected = []
    for pair in PAIRS:
        features = tokenizer(*pair, truncation=True, max_length=48, return_tensors="pt")
        with torch.no_grad():
            p = model(**features).logits[0].double().softmax(-1).tolist()
        expected.append(5 * (p[1] + p[2] / 2))
    scorer = NliScorer(str(nli_dir), "cpu")
    assert values(scorer, PAIRS) == pytest.approx(expected, abs=2e-4)
    assert len({round(value, 3) for value in expected}) > 20, "the random model tells pairs apart"
    assert values(scorer, PAIRS[::-1])[::-1] == pytest.approx(values(scorer, PAIRS), abs=1.1e-4)
    premise_first = values(scorer, [PAIRS[3]]) != values(scorer, [PAIRS[3][::-1]])
    assert premise_first


def test_two_labels_are_enough():
    assert nli_labels("m", {0: "entailment", 1: "not_entailment"}) == NliLabels(0, None)
    assert nli_labels("m", {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}) == NliLabels(2, 1)
    logits = np.log(np.array([[0.2, 0.8], [1.0, 1.0]]))
    assert nli_scores(logits, NliLabels(1, None)).tolist() == [4.0, 2.5]


@pytest.mark.parametrize(
    "labels", [["LABEL_0", "LABEL_1", "LABEL_2"], ["positive", "negative"], ["entailment"], [*THREE, "other"]]
)
def test_other_labels_are_one_line_that_names_them(nli_dir, labels):
    names = dict(enumerate(labels))
    with pytest.raises(
        ConfigError, match=rf"^score\.model: m has the labels {', '.join(labels)}; it needs [^\n]*$"
    ):
        nli_labels("m", names)
    config = json.loads((nli_dir / "config.json").read_text())
    config["id2label"] = {str(number): name for number, name in names.items()}
    (nli_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=rf"has the labels {', '.join(labels)}; "):
        check_labels_in(nli_dir, "m")


def test_what_cannot_be_loaded_is_one_line(nli_dir, tiny_bert, tmp_path):
    """An encoder has no classifier, whose weights would be random."""
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_bert, encoder)
    for name in ("config.json",):
        config = json.loads((encoder / name).read_text()) | {"id2label": dict(enumerate(THREE))}
        config["label2id"] = {label: number for number, label in enumerate(THREE)}
        (encoder / name).write_text(json.dumps(config))
    for path, words in ((encoder, "lack 2 tensors"), (tmp_path / "nowhere", "no directory")):
        with pytest.raises(ConfigError, match=rf"^score\.model: [^\n]*{words}[^\n]*$"):
            NliScorer(str(path), "cpu")


def test_scores_that_are_not_finite_are_one_line(nli_dir, monkeypatch):
    scorer = NliScorer(str(nli_dir), "cpu")
    monkeypatch.setattr(scorer, "_logits", lambda pairs: np.full((len(pairs), 3), np.nan))
    with pytest.raises(RunError, match=r"^score\.model gives scores that are not finite"):
        values(scorer, PAIRS[:2])
