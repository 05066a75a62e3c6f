"""Tests of an environment with the extras in $EXTRAS and no others; .ci/test-extras runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HELD = os.environ.get("EXTRAS", "").split()
ENDPOINT = [
    word
    for setting in ("engine=openai", "model=m", "base_url=http://127.0.0.1:9/v1", "patience_s=0")
    for word in ("--set", f"llm.{setting}")
]
ENDPOINT += ["--set", "generate.omega=0"]
NEEDING = {
    "train": [
        ["train", "CONFIG"],
        ["generate", "CONFIG", "--set", "llm.engine=transformers"],
        ["evaluate", "x", "--data", "triplets.tsv"],
        ["export", "x", "--out", "other", "--format", "safetensors-fp16"],
    ],
    "s3": [["versions", "s3://bucket/corpus"]],
    "k8s": [["jobs", "--to", "k8s"]],
    "openai": [["generate", "CONFIG", *ENDPOINT]],
    "ingest": [["ingest", "CONFIG", "--set", "ingest.near_duplicates=true", "--set", "store=other"]],
    "demo": [["demo"]],
    "hub": [["push", "x", "--repo", "organization/name"]],
}
"""Commands that need an extra."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a configuration, sentences and triplets."""
    folder = tmp_path_factory.mktemp("extras")
    lines = [f"This is sentence number {number} out of many." for number in range(16)]
    (folder / "in.txt").write_text("\n".join(lines) + "\n")
    (folder / "triplets.tsv").write_text("anchor\tpositive\tnegative\nA dog.\tAn animal.\tA cat.\n")
    (folder / "run.yaml").write_text(
        "{name: extras, store: store, input: {paths: [in.txt]}, llm: {engine: fake}}\n"
    )
    return folder


def multicsr(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the directory, with an empty HOME."""
    command = [sys.executable, "-m", "multicsr.cli.main", *(w.replace("CONFIG", "run.yaml") for w in words)]
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    environment = {**os.environ, **keys, "HOME": str(folder), "KUBECONFIG": str(folder / "none")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


def works(folder: Path, *words: str) -> str:
    """Run a command, require that it succeeds, and return its output."""
    done = multicsr(folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


alone = pytest.mark.skipif(bool(HELD), reason="shown with the base alone, over which the extras lie")


@alone
def test_base_goes_from_sentences_to_report_and_submits(folder):
    for stage in ("ingest", "generate", "curate", "report"):
        works(folder, stage, "CONFIG")
    assert (folder / "store/report.html").is_file()
    for words in (["versions", "store"], ["audit", "store"], ["sweep", "CONFIG"], ["gc", "CONFIG"]):
        works(folder, *words)
    shared = ["--set", f"store={folder / 'store'}", "--set", f"input.paths=[{folder / 'in.txt'}]"]
    to = ["--to", "ray", "--address", "http://127.0.0.1:9", "--dry-run"]
    assert "engine: fake" in works(folder, "submit", "curate", "CONFIG", *shared, *to)


def test_check_lists_which_extras_are_installed(folder):
    shown = [
        line.split(maxsplit=2)[2] for line in works(folder, "check").splitlines() if line[6:13] == "extras "
    ]
    assert len(shown) == 1
    assert set(shown[0].split(", ")) == set(HELD or ["none installed"])


@alone
@pytest.mark.parametrize(
    ("extra", "words"),
    [(extra, words) for extra, each in NEEDING.items() for words in each],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_missing_extra_is_named_in_one_line(folder, extra, words):
    failed = multicsr(folder, *words)
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert failed.returncode in (1, 2)
    assert len(errors) == 1
    assert f"pip install 'multicsr[{extra}]'" in errors[0]


@pytest.mark.skipif("s3" not in HELD, reason="the extra is absent")
def test_s3_asks_a_server(folder):
    words = ["--set", "store=s3://bucket/corpus", "--set", "s3.endpoint=http://127.0.0.1:9"]
    failed = multicsr(folder, "versions", "CONFIG", *words)
    assert failed.returncode == 1
    assert "127.0.0.1:9" in failed.stderr


@pytest.mark.skipif("openai" not in HELD, reason="the extra is absent")
def test_openai_asks_an_endpoint(folder):
    works(folder, "ingest", "CONFIG", "--set", "store=asked")
    failed = multicsr(folder, "generate", "CONFIG", *ENDPOINT, "--set", "store=asked")
    assert failed.returncode == 1
    assert "llm.base_url: no answer from http://127.0.0.1:9/v1" in failed.stderr


@pytest.mark.skipif("k8s" not in HELD, reason="the extra is absent")
def test_k8s_looks_for_a_cluster(folder):
    failed = multicsr(folder, "jobs", "--to", "k8s")
    assert failed.returncode in (1, 2)
    assert "kubeconfig" in failed.stderr.lower()


@pytest.mark.skipif("ingest" not in HELD, reason="the extra is absent")
def test_ingest_filters_languages_splits_documents_and_finds_near_duplicates(folder):
    settings = ("store=ingested", "input.documents=true", "ingest.language_filter=true")
    words = [word for setting in (*settings, "ingest.near_duplicates=true") for word in ("--set", setting)]
    works(folder, "ingest", "CONFIG", *words)


@pytest.mark.skipif("train" not in HELD, reason="the extra is absent")
def test_train_generates_by_transformers(folder):
    words = ["--set", "store=local", "--set", "llm.engine=transformers"]
    works(folder, "ingest", "CONFIG", *words[:2])
    works(folder, "generate", "CONFIG", *words)


@pytest.mark.skipif("train" not in HELD, reason="the extra is absent")
def test_gguf_reads_the_file_or_is_named(folder):
    """A damaged file is told from a missing package."""
    (folder / "model.gguf").write_bytes(b"GGUF")
    words = [
        word
        for setting in ("store=local", "llm.engine=transformers", "llm.model=model.gguf")
        for word in ("--set", setting)
    ]
    works(folder, "ingest", "CONFIG", *words[:2])
    failed = multicsr(folder, "generate", "CONFIG", *words)
    assert failed.returncode == 2
    expected = "is no GGUF file, or damaged" if "gguf" in HELD else "pip install 'multicsr[gguf]'"
    assert expected in failed.stderr


@pytest.mark.skipif("demo" not in HELD, reason="the extra is absent")
def test_demo_ends_with_an_encoder_and_a_report(folder):
    """The demo itself, on few sentences."""
    small = ("input={paths: [in.txt], column: null}", "curate.alpha=0")
    small += ("curate.beta=5", "curate.gamma=0", "train.epochs=1", "train.global_batch=4")
    shown = works(folder, "demo", *[word for setting in small for word in ("--set", setting)])
    assert "report" in shown
    assert (folder / "runs/demo/report.html").is_file()
    assert (folder / "runs/demo/encoder/modules.json").is_file()


@pytest.mark.skipif("vllm" not in HELD, reason="the extra is absent")
def test_vllm_generates(folder):
    words = ["--set", "store=served", "--set", "llm.engine=vllm"]
    works(folder, "ingest", "CONFIG", *words[:2])
    works(folder, "generate", "CONFIG", *words, "--set", "llm.vllm.kv_cache_gib=0.5")
