"""Nothing that was read from a store, a bucket or the network is unpickled, evaluated or imported."""

import ast
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FILES = [
    *(ROOT / "multicsr").rglob("*.py"),
    *(ROOT / "ray_jobs").glob("*.py"),
    *(ROOT / "cluster").glob("*.py"),
]

PICKLED_IN_TRANSIT = {
    # Shards and results of Ray Data's workers, which the same job has just made: Ray's own object transport.
    "multicsr/execution/pool.py": {"pickle.loads", "pickle.dumps"},
}
"""All places where objects are pickled, none of which reads a file."""

_RUNS_CODE = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "importlib.import_module",
        "runpy.run_path",
        "runpy.run_module",
    ),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "pickle.dumps", "pickle.dump", "cloudpickle.loads"),
    *("cloudpickle.load", "joblib.load", "dill.load", "dill.loads", "marshal.load", "marshal.loads"),
    *("shelve.open", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "os.system"),
    *("pd.read_pickle", "pandas.read_pickle", "tarfile.open", "shutil.unpack_archive", "zipfile.ZipFile"),
}


def calls_in(path: Path) -> list[tuple[str, ast.Call]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def keyword(call: ast.Call, name: str) -> object:
    found = [each.value for each in call.keywords if each.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_data_are_not_run(path):
    allowed = PICKLED_IN_TRANSIT.get(path.relative_to(ROOT).as_posix(), set())
    for name, call in calls_in(path):
        where = f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
        if name.endswith("yaml.load") or name == "yaml.load":
            assert "Safe" in ast.unparse(call), where
            continue
        assert name not in _RUNS_CODE - allowed, where
        if name == "torch.load":
            assert keyword(call, "weights_only") is True, where
        if name in {"np.load", "numpy.load"}:
            assert keyword(call, "allow_pickle") in (None, False), where
        assert keyword(call, "trust_remote_code") is not True, where
        assert keyword(call, "shell") is not True, where


def test_arrow_reads_no_extension_type_that_pickles():
    assert not [
        path
        for path in FILES
        if "PyExtensionType" in path.read_text(encoding="utf-8").replace("PickledType", "")
    ]
