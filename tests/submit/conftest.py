"""A run in a bucket, and a fake Kubernetes API that the client library finds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.submit.fake_kube import FakeKube

ROOT = Path(__file__).parents[2]
RENDERED = ROOT / "k8s/overlays/nightly/jobs.yaml"
"""The RayJob `refresh`, rendered; so kubectl is not needed."""
TREE = {
    "name": "nights",
    "store": "s3://b/t",
    "input": {"paths": ["s3://b/in.txt"]},
    "llm": {"engine": "fake"},
    "evaluate": {"data": ["sts.tsv"]},
}


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    """The file of a run, with a data file beside it, in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sts.tsv").write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n")
    (tmp_path / "nights.yaml").write_text(yaml.safe_dump(TREE))
    return tmp_path / "nights.yaml"


@pytest.fixture
def kube(tmp_path, monkeypatch) -> Iterator[FakeKube]:
    """The fake, which KUBECONFIG names."""
    with FakeKube() as fake:
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(fake.kubeconfig()))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield fake
