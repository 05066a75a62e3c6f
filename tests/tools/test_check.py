"""`multicsr check`: the machine alone, and with a configuration what can be checked before its run."""

import shutil
from pathlib import Path

import pytest

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.messages import extras
from multicsr.tools import check
from tests.support.tiny_llms import make_config


@pytest.fixture(autouse=True)
def _packages_fit(monkeypatch):
    monkeypatch.setattr(check, "_packages", lambda: iter(()))
    monkeypatch.setattr(check, "_torch", lambda: iter(()))


def test_machine_alone_needs_no_extra(monkeypatch, capfd):
    monkeypatch.setattr(check, "missing_packages", lambda extra: [extra])
    check.examine(None)
    shown = capfd.readouterr().out
    assert all(f"pip install 'multicsr[{extra}]'" in shown for extra in extras.EXTRAS)
    assert "wrong" not in shown


def settings(store: Path, model: str = "tinylm") -> Config:
    llm = {"engine": "fake", "model": model}
    return Config.model_validate(
        {"name": "checked", "store": str(store), "input": {"paths": ["a.txt"]}, "llm": llm}
    )


def test_configuration_that_cannot_run_fails(tmp_path, capfd):
    with pytest.raises(RunError, match="check: 1 of"):
        check.examine(settings(tmp_path, "./no/such/model"))
    assert "llm.model: no directory ./no/such/model" in capfd.readouterr().out


def test_configuration_that_needs_an_absent_extra_fails(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(extras, "_is_installed", lambda package: package != "deepspeed")
    with pytest.raises(RunError):
        check.examine(settings(tmp_path))
    assert "needs deepspeed, which is not installed: pip install 'multicsr[train]'" in capfd.readouterr().out


def test_labels_that_the_model_cannot_write_fail(encoder_decoder_dir, premises, tmp_path, capfd):
    from tests.support.tokenizers import t5

    model = shutil.copytree(encoder_decoder_dir, tmp_path / "model")
    t5(premises, tmp_path).save_pretrained(model)
    sections = {"store": str(tmp_path / "store"), "train": {"encoder": str(model)}}
    check.examine(make_config(model, **sections))
    assert "score labels" in capfd.readouterr().out
    t5(premises, tmp_path, without="3").save_pretrained(model)
    with pytest.raises(RunError, match="check: 1 of"):
        check.examine(make_config(model, **sections))
    assert "cannot write the score label '3'; change score_labels" in capfd.readouterr().out
    check.examine(make_config(model, **sections, score={"method": "stated"}, curate={"score": "stated"}))
