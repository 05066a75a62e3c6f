"""The import rule of ARCHITECTURE.md: light modules stay light, and heavy packages have one door each."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "multicsr"
HEAVY = ("torch", "ray", "transformers", "sentence_transformers", "vllm", "deepspeed")
LIGHT = [
    "rows",
    "config",
    "config_file",
    "errors",
    "prompts",
    "progress",
    "models",
    "job",
    "cli",
    "cluster",
    "resources",
    "metrics",
    "kube.rules",
    "kube.groups",
    "submit.places",
    "score.parse",
]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module):
    probe = f"import multicsr.{module}, sys; print(*({set(HEAVY)!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def _files_that_name(*names: str) -> set[str]:
    """Library files in whose code one of the names occurs as an attribute, a name or an import."""
    found = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            seen = {
                getattr(node, "attr", None),
                getattr(node, "id", None),
                *(alias.name for alias in getattr(node, "names", []) if isinstance(alias, ast.alias)),
            }
            if seen & set(names):
                found.add(path.relative_to(LIBRARY).as_posix())
    return found


def test_ray_data_has_one_door():
    assert _files_that_name("map_batches", "from_items", "ActorPoolStrategy") == {
        "ray_stage.py",
        "ray_stream.py",
    }


def test_ray_train_has_one_door():
    assert _files_that_name("TorchTrainer", "ScalingConfig") == {"train/trainer.py"}


def _files_that_import(package: str) -> set[str]:
    importing = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(module.split(".")[0] == package for module in modules):
                importing.add(path.relative_to(LIBRARY).as_posix())
    return importing


def test_vllm_has_one_door():
    assert _files_that_import("vllm") == {"lockstep/door.py", "lockstep/launch.py"}


def test_boto3_has_one_door():
    assert _files_that_import("boto3") == {"storage/bucket.py"}


def test_deepspeed_has_one_door():
    assert _files_that_import("deepspeed") == {"train/deepspeed_engine.py"}
