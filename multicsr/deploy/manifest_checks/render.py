"""Rendering of an overlay to the documents that it stands for."""

import shutil
import subprocess
from pathlib import Path

import yaml

from multicsr.deploy.manifest_checks.documents import Document
from multicsr.errors import ConfigError
from multicsr.messages.foreign_errors import explain_error

_TIMEOUT_S = 60


def render(overlay: Path) -> list[Document]:
    """Return the documents of a kustomize directory, or of a file that was rendered before.

    Raises:
        ConfigError: there is no such overlay, or it cannot be rendered, read or parsed.
    """
    if overlay.is_dir():
        return parse(_kustomize(overlay), overlay)
    if not overlay.is_file():
        raise ConfigError(f"{overlay}: no such overlay; give a directory of k8s/overlays, or a rendered file")
    try:
        text = overlay.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{overlay}: cannot be read as a rendered overlay: {explain_error(error)}"
        ) from error
    return parse(text, overlay)


def parse(text: str, source: Path) -> list[Document]:
    """Return the documents in a YAML text.

    Args:
        text: the documents, in YAML.
        source: path of the text, for messages.

    Raises:
        ConfigError: the text is not YAML, or a document is no mapping.
    """
    try:
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    if not all(isinstance(document, dict) for document in found):
        raise ConfigError(f"{source}: a document is no mapping; is this a rendered overlay?")
    return found


def _kustomize(overlay: Path) -> str:
    if not any((overlay / name).is_file() for name in ("kustomization.yaml", "kustomization.yml")):
        raise ConfigError(f"{overlay}: has no kustomization.yaml; --overlay takes one of k8s/overlays")
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ConfigError(
            f"{overlay}: kubectl, which renders a directory, is not installed; install it, or "
            "render elsewhere with `kubectl kustomize` and give the file"
        )
    command = [kubectl, "kustomize", str(overlay)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{overlay}: kubectl kustomize took over {_TIMEOUT_S} s; a remote base?") from None
    if done.returncode:
        raise ConfigError(f"{overlay}: kubectl kustomize: {' '.join(done.stderr.split())}")
    return done.stdout
