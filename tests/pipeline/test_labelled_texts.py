"""The labelled texts of a run are read once, whatever the number of stages that compare with them."""

from contextlib import nullcontext
from types import SimpleNamespace

from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.stages import evaluate
from multicsr.stages.evaluate import leaks
from multicsr.stages.generate import run as generate_run
from multicsr.stages.train import trainer
from tests.support.tiny_llms import make_config


def test_a_run_reads_its_labelled_texts_once(tmp_path, monkeypatch):
    (tmp_path / "t.tsv").write_text("anchor\tpositive\tnegative\nA cat sits.\tA cat sat.\tStocks fell.\n")
    config = make_config(
        "m", store=str(tmp_path), llm={"engine": "fake"}, evaluate={"data": [str(tmp_path / "t.tsv")]}
    )
    given, reads, read = [], [], leaks.labelled_texts
    monkeypatch.setattr(leaks, "labelled_texts", lambda config: reads.append(config) or read(config))
    monkeypatch.setattr(full_run, "require_no_problems", lambda stages, config: None)

    transaction = SimpleNamespace(
        add=lambda name, known: given.append(known),
        snapshot=None,
        store=None,
        replaces=False,
        publish=lambda: None,
    )
    monkeypatch.setattr(full_run, "open_transaction", lambda *args: nullcontext(transaction))
    monkeypatch.setattr(generate_run, "generate", lambda *args: args[-1])
    monkeypatch.setattr(trainer, "train", lambda *args, known: known)
    monkeypatch.setattr(evaluate, "evaluate_run", lambda *args: args[-1]())
    full_run.run_stages("run", ["generate", "train", "evaluate"], config, SilentProgress())
    assert len(given) == 3
    assert len(given[0]) == 3
    assert given[0] is given[1] is given[2]
    assert len(reads) == 1
    full_run.run_stages("generate", ["generate"], config, SilentProgress())
    assert len(reads) == 2, "another run may have other files"


def test_a_run_without_labelled_sets_compares_with_none(tmp_path):
    config = make_config("m", store=str(tmp_path), llm={"engine": "fake"})
    assert full_run.labels_of(config)() is None
