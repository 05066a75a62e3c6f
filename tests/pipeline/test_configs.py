"""Every file in configs/ runs through all stages, with tiny models in place of those it names."""

import bz2
import gzip
import json
from pathlib import Path

import pytest
import yaml

from multicsr.config import Config
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.pipeline.refresh import refresh
from multicsr.stages.report import REPORT
from multicsr.storage.store import Store
from multicsr.storage.versions import ARTIFACTS, current
from multicsr.tools.audit import audit
from tests.stages.ingest.test_wikipedia import HEAD, TAIL, page
from tests.support.jobs_here import jobs_here, write_inputs
from tests.support.paths import ROOT

FILES = sorted((ROOT / "configs").glob("*.yaml"))
DEMO = "multicsr/assets/demo"
MISSING_HERE = ("gpus_per_actor", "gpus_per_worker", "min_workers", "deepspeed", "dtype", "layers", "device")
"""Settings of models and devices that the tiny run has not."""
SENTENCES = [f"Sentence number {number} talks about some other thing." for number in range(40)]
TAGALOG = [
    f"Ang ikalawang pangungusap bilang {number} ay tungkol sa ibang bagay sa bayan." for number in range(40)
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    write_inputs(folder)
    (folder / "tickets").mkdir()
    lines = "".join(json.dumps({"body": f"{text} {text}"}) + "\n" for text in SENTENCES)
    (folder / "tickets/one.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("tickets.txt", "sentences.txt"):
        (folder / name).write_text("\n".join(SENTENCES))
    (folder / "dumps").mkdir()
    pages = [page(number, f"Bayan {number}", text) for number, text in enumerate(TAGALOG, 1)]
    articles = "".join([HEAD, *pages, TAIL]).encode()
    (folder / "dumps/tlwiki-2026-pages-articles1.xml.bz2").write_bytes(bz2.compress(articles))
    (folder / DEMO).mkdir(parents=True)
    for name in ("sentences.tsv", "dev_triplets.tsv", "test_triplets.tsv"):
        lines = (ROOT / DEMO / name).read_text().splitlines(keepends=True)
        (folder / DEMO / name).write_text("".join(lines[:60]))
    (folder / "build/demo-llm").mkdir(parents=True)
    (folder / "build/demo-llm/sentences.tsv").write_bytes((folder / DEMO / "sentences.tsv").read_bytes())
    (folder / "sts").mkdir()
    pairs = "".join(f"{n % 5}.0\tNumber {n} is here.\tHere is number {n % 3}.\n" for n in range(12))
    for name in ("stsb_dev.tsv", "sts/sts.tsv"):
        (folder / name).write_text(f"score\tsentence1\tsentence2\n{pairs}")
    return folder


def shrunk(path: Path, inputs: Path, store: str, bucket: str) -> dict:
    """Return the content of a configuration with tiny models, no GPU, and one optimizer step."""
    tree = yaml.safe_load(path.read_text().replace("s3://my-bucket", bucket))
    for section in ("generate", "train"):
        tree[section] = {k: v for k, v in tree.setdefault(section, {}).items() if k not in MISSING_HERE}
    encoder = str(inputs / "encoder")
    tree["llm"] = {"engine": "fake"}
    if "language" in tree.get("ingest", {}):
        tree["ingest"]["language"] = "en"  # the fake engine writes English
    tree["generate"] |= {"actors": 1, "rows_per_shard": 20}
    tree["train"] = {"max_length": 24} | tree["train"] | {"encoder": encoder, "workers": 1}
    tree["train"] |= {"mask": {"model": encoder, "place": "worker", "sigma": 0.9999}, "tensorboard": False}
    tree["train"] |= {"steps": 1, "global_batch": 8}
    tree["train"].pop("epochs", None)
    if "micro_batch" in tree["train"]:
        tree["train"]["micro_batch"] = 4
    tree["evaluate"] = {"baseline": False} | tree.get("evaluate", {"data": ["sts/"]})
    return tree if tree["store"].startswith("s3://") else tree | {"store": store}


def put_sentences(bucket) -> None:
    bucket.put("sentences/a.txt", "\n".join(SENTENCES).encode())


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name, marks=[] if path.name == "demo.yaml" else [pytest.mark.cluster])
        for path in FILES
    ],
)
def test_a_configuration_runs_from_its_input_to_a_model(path, inputs, bucket, tmp_path, monkeypatch):
    put_sentences(bucket)
    tree = shrunk(path, inputs, str(tmp_path / "store"), bucket.uri)
    if "s3" in tree:
        tree["s3"]["endpoint"] = bucket.endpoint
    monkeypatch.chdir(inputs)
    config = Config.model_validate(tree)
    with jobs_here():
        (refresh if "refresh" in tree else full_run.run)(config, SilentProgress())
    snapshot = current(Store.of(config))
    assert set(snapshot.fingerprints) == {*ARTIFACTS}
    assert snapshot.manifest("curated").rows_out > 8
    assert audit(snapshot) == []
    assert REPORT in Store.of(config).names("")
