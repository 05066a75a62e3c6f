"""The import rule of ARCHITECTURE.md: light modules stay light, and heavy packages have one door each."""

import ast
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

LIBRARY = ROOT / "multicsr"
HEAVY = ("torch", "ray", "transformers", "sentence_transformers", "vllm", "deepspeed")
LIGHT = [
    "rows",
    "config",
    "config_file",
    "errors",
    "prompts",
    "observability.progress",
    "observability.metrics",
    "models.resolve",
    "cli.entrypoint",
    "cli.main",
    "deploy.local_cluster.cluster",
    "deploy.resources",
    "deploy.manifest_checks.check",
    "deploy.manifest_checks.node_groups",
    "deploy.targets",
    "stages.score.parse",
    "serve.server",
    "tools.reproduce.registry",
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


def test_ray_data_has_one_importer():
    assert _files_that_name("map_batches", "from_items", "ActorPoolStrategy") == {
        "execution/pool.py",
        "execution/row_stream.py",
    }


def test_ray_train_has_one_importer():
    assert _files_that_name("TorchTrainer", "ScalingConfig") == {"stages/train/trainer.py"}


def _files_that_import(package: str) -> set[str]:
    importing = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(module.split(".")[0] == package for module in modules):
                importing.add(path.relative_to(LIBRARY).as_posix())
    return importing


def test_vllm_is_imported_in_one_folder():
    assert _files_that_import("vllm") == {"llm/vllm/plugin.py", "llm/vllm/launch.py"}


def test_boto3_has_one_importer():
    assert _files_that_import("boto3") == {"storage/s3.py"}


def test_deepspeed_has_one_importer():
    assert _files_that_import("deepspeed") == {"stages/train/engines/deepspeed.py"}


def test_no_handler_of_groups_is_used():
    """What is raised inside `except*` is wrapped in a group by Python 3.11.2; a plain `except` will do."""
    found = [
        f"{path.relative_to(LIBRARY)}:{node.lineno}"
        for path in LIBRARY.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.TryStar)
    ]
    assert found == []


def test_help_imports_nothing_slow():
    """`multicsr --help` answers at once: it imports typer, rich, pydantic and YAML, no other library."""
    probe = (
        "import sys; sys.argv = ['multicsr', '--help']\n"
        "from multicsr.cli.command import run_app\n"
        "from multicsr.cli.main import app\n"
        "run_app(app)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    imported = set(found.stdout.splitlines()[-1].split())
    slow = {*HEAVY, "numpy", "pyarrow", "boto3", "kubernetes", "requests", "jinja2", "scipy", "mlflow"}
    assert imported & slow == set()
    assert "typer" in imported
