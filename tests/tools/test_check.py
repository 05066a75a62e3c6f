"""`multicsr check`: the machine alone, and with a configuration what can be checked before its run."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from multicsr.config import Config, LLMConfig
from multicsr.errors import RunError
from multicsr.messages import extras
from multicsr.tools import check
from tests.support.tiny_llms import make_config


@pytest.fixture(autouse=True)
def _packages_fit(monkeypatch):
    monkeypatch.setattr(check, "_packages", lambda: iter(()))
    monkeypatch.setattr(check, "_torch", lambda: iter(()))
    monkeypatch.setattr(check, "_machine", lambda: iter(()))  # other tests may use up the memory


def test_machine_alone_needs_no_extra(monkeypatch, capfd):
    monkeypatch.setattr(check, "missing_packages", lambda extra: [extra])
    check.examine(None)
    shown = capfd.readouterr().out
    assert f"{', '.join(extras.EXTRAS)}; pip install 'multicsr[NAME]' installs one" in shown
    assert "none installed" in shown
    assert "wrong" not in shown


def test_packages_that_fit_are_one_line_and_others_one_each(monkeypatch, capfd):
    monkeypatch.undo()
    monkeypatch.setattr(check, "_torch", lambda: iter(()))
    monkeypatch.setattr(check, "_machine", lambda: iter(()))
    needed = ["numpy>=1", "pyarrow>=10000", "no-such-package>=1", "scipy; extra == 'train'"]
    monkeypatch.setattr(check.importlib.metadata, "requires", lambda name: needed)
    with pytest.raises(RunError, match="check: 2 of"):
        check.examine(None)
    shown = capfd.readouterr().out
    assert shown.count("wrong") == 2
    assert "pip install 'pyarrow>=10000'" in shown
    assert "no-such-package    missing" in shown
    assert "2 installed, in versions that fit" in shown


def settings(folder: Path, model: str = "tinylm") -> Config:
    (folder / "a.txt").write_text("A sentence that is long enough to be read.\n")
    llm = {"engine": "transformers", "model": model}
    return Config.model_validate(
        {
            "name": "checked",
            "store": str(folder / "store"),
            "input": {"paths": [str(folder / "a.txt")]},
            "llm": llm,
        }
    )


def test_configuration_that_can_run_passes(tmp_path, capfd):
    check.examine(settings(tmp_path))
    assert "wrong" not in capfd.readouterr().out


def test_configuration_that_cannot_run_fails(tmp_path, capfd):
    with pytest.raises(RunError, match="check: 1 of"):
        check.examine(settings(tmp_path, "./no/such/model"))
    assert "llm.model: no directory ./no/such/model" in capfd.readouterr().out


def test_endpoint_that_does_not_answer_is_found(tmp_path, capfd):
    config = settings(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    llm = {"engine": "openai", "model": "m", "base_url": f"http://127.0.0.1:{port}/v1"}
    config = config.model_copy(update={"llm": LLMConfig.model_validate(llm)})
    with pytest.raises(RunError, match="check: 1 of"):
        check.examine(config)
    assert "llm.base_url: nothing answers there" in capfd.readouterr().out


LOCAL = """
name: twelve
store: {folder}/file.txt/store
input: {{paths: [{folder}/tickets.jsonl], column: text}}
llm: {{model: ./no/llm, modle: x}}
generate: {{prompts: ./no/prompts.yaml, gpus_per_actor: 1, omega: 9}}
train: {{encoder: ./no/encoder, dev: {folder}/no_dev.tsv, mask: {{model: ./no/mask}}, gpus_per_worker: 1}}
evaluate: {{data: [{folder}/no_sts.tsv]}}
"""
REMOTE = """
name: twelve
store: s3://no-bucket/store
s3: {{endpoint: "http://127.0.0.1:{port}"}}
input: {{paths: [{folder}/tickets.jsonl], column: text}}
llm: {{engine: openai, model: m, base_url: "http://127.0.0.1:{port}/v1", modle: x}}
generate: {{prompts: ./no/prompts.yaml, omega: 0, actors: 0}}
score: {{method: llm_stated}}
curate: {{alhpa: 3}}
train: {{encoder: ./no/encoder, dev: {folder}/no_dev.tsv, mask: {{model: ./no/mask}}, gpus_per_worker: 1}}
evaluate: {{data: [{folder}/no_sts.tsv]}}
"""
LABELS = """
name: twelve
store: s3://no-bucket/store
s3: {{endpoint: "http://127.0.0.1:{port}"}}
input: {{paths: [{folder}/tickets.jsonl], column: text}}
llm: {{model: {folder}/model, modle: x}}
generate: {{gpus_per_actor: 1, actors: 0}}
curate: {{alhpa: 3}}
train: {{encoder: ./no/encoder, dev: {folder}/no_dev.tsv, mask: {{model: ./no/mask}}, gpus_per_worker: 1}}
evaluate: {{data: [{folder}/no_sts.tsv]}}
"""
EVERYWHERE = (
    "unknown key 'llm.modle'; did you mean 'llm.model'?",
    "input.column",
    "train.encoder: no directory ./no/encoder",
    "train.mask.model: no directory ./no/mask",
    "train.dev: no evaluation file",
    "train.gpus_per_worker: 1, and this machine has 0 GPUs",
    "evaluate.data: no ",
)
CASES = {
    "local": (
        LOCAL,
        "generate.omega",
        "llm.model: no directory ./no/llm",
        "generate.prompts",
        "generate.gpus_per_actor: 1, and this machine has 0 GPUs",
        "file.txt",
    ),
    "endpoint and bucket": (
        REMOTE,
        "generate.actors",
        "curate.alhpa",
        "generate.prompts",
        "llm.base_url: nothing answers",
        "s3.endpoint: nothing answers",
    ),
    "labels and bucket": (
        LABELS,
        "generate.actors",
        "curate.alhpa",
        "generate.gpus_per_actor: 1, and this machine has 0 GPUs",
        "cannot write the score label '3'",
        "s3.endpoint: nothing answers",
    ),
}


def model_without_a_label(folder: Path, premises) -> None:
    """Write an encoder-decoder model whose tokenizer cannot write the digit 3."""
    from tests.support.tokenizers import t5

    (folder / "tokenizer").mkdir()
    t5(premises, folder / "tokenizer", without="3").save_pretrained(folder / "model")


@pytest.mark.parametrize(
    "case", ["local", *(pytest.param(case, marks=pytest.mark.cluster) for case in CASES if case != "local")]
)
def test_twelve_mistakes_are_twelve_lines(case, encoder_decoder_dir, premises, tmp_path):
    pytest.importorskip("deepspeed", reason="a missing package would be named alone")
    text, *words = CASES[case]
    shutil.copytree(encoder_decoder_dir, tmp_path / "model")
    model_without_a_label(tmp_path, premises)
    (tmp_path / "file.txt").write_text("no directory")
    (tmp_path / "tickets.jsonl").write_text('{"body": "My printer does not print."}\n')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "config.yaml").write_text(text.format(folder=tmp_path, port=port))
    code = (
        "import sys\nfrom multicsr.cli.main import main\nfrom multicsr.tools import check\n"
        "check._machine = lambda: iter(())\n"  # other tests may use up the memory
        "sys.argv = ['multicsr', 'check', sys.argv[1]]\n"
        "try:\n    main()\nfinally:\n    print('ray' in sys.modules, 'transformers' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "config.yaml")],
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "400"},
    )
    wrong = [line for line in done.stdout.splitlines() if line.startswith("wrong")]
    for each in (*EVERYWHERE, *words):
        assert each in done.stdout, (each, done.stdout, done.stderr)
    assert len(wrong) == len((*EVERYWHERE, *words)) == 12
    assert done.returncode == 1
    assert "check: 12 of" in done.stderr
    assert "Traceback" not in done.stderr
    reads_labels = case == "labels and bucket"
    assert done.stdout.splitlines()[-1] == f"False {reads_labels}", "nothing heavy is imported"


def test_configuration_that_needs_an_absent_extra_fails(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(extras, "_is_installed", lambda package: package != "deepspeed")
    with pytest.raises(RunError):
        check.examine(settings(tmp_path))
    assert "needs deepspeed, which is not installed: pip install 'multicsr[train]'" in capfd.readouterr().out


def test_labels_that_the_model_cannot_write_fail(encoder_decoder_dir, premises, tmp_path, capfd):
    from tests.support.tokenizers import t5

    model = shutil.copytree(encoder_decoder_dir, tmp_path / "model")
    t5(premises, tmp_path).save_pretrained(model)
    (tmp_path / "a.txt").write_text("A sentence that is long enough to be read.\n")
    sections = {"store": str(tmp_path / "store"), "train": {"encoder": str(model)}}
    sections |= {"input": {"paths": [str(tmp_path / "a.txt")]}}
    check.examine(make_config(model, **sections))
    assert "score labels" in capfd.readouterr().out
    t5(premises, tmp_path, without="3").save_pretrained(model)
    with pytest.raises(RunError, match="check: 1 of"):
        check.examine(make_config(model, **sections))
    assert "cannot write the score label '3'; change score_labels" in capfd.readouterr().out
    check.examine(make_config(model, **sections, score={"method": "llm_stated"}))
