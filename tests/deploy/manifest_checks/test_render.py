"""An overlay is a directory for kubectl, or a file that was rendered before."""

import shutil

import pytest

from multicsr.deploy.manifest_checks.render import render
from multicsr.errors import ConfigError
from tests.support.manifests import K8S


def test_a_rendered_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text("kind: RayJob\n---\n---\nkind: RayCluster\n")
    assert render(path) == [{"kind": "RayJob"}, {"kind": "RayCluster"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "not YAML"), ("- a\n- b\n", "a document is no mapping"), (None, "no such overlay")],
)
def test_what_is_no_manifest_is_rejected(tmp_path, text, message):
    path = tmp_path / "jobs.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        render(path)


def test_a_directory_without_kubectl_is_rejected_with_the_remedy(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        ConfigError, match="kubectl, which renders a directory, is not installed; install it, or"
    ):
        render(K8S / "overlays/dev")


def test_a_directory_that_is_no_overlay_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match=r"has no kustomization\.yaml"):
        render(tmp_path)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_what_kustomize_states_is_passed_on(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [gone.yaml]\n")
    with pytest.raises(ConfigError, match=r"kubectl kustomize: .*gone\.yaml"):
        render(tmp_path)


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "overlay.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(
        ConfigError, match=r"overlay.yaml: cannot be read as a rendered overlay: not utf-8 text"
    ):
        render(tmp_path / "overlay.yaml")
