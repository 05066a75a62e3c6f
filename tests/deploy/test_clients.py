"""Client libraries have one door each, and the command line starts without them."""

import ast
import subprocess
import sys

from tests.support.paths import ROOT

LIBRARY = ROOT / "multicsr"


def files_that_import(package: str) -> set[str]:
    found = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(f"{module}.".startswith(f"{package}.") for module in modules):
                found.add(path.relative_to(LIBRARY).as_posix())
    return found


def test_each_library_has_one_importer():
    assert files_that_import("kubernetes") == {"deploy/kubernetes/client.py"}
    assert files_that_import("ray.job_submission") == {"deploy/ray/client.py"}


def test_the_commands_import_them_late():
    heavy = {"kubernetes", "ray", "torch", "pyarrow"}
    probe = (
        f"import multicsr.cli.jobs, multicsr.deploy.submit.submit, sys; print(*({heavy} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
