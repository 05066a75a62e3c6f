"""Nothing that lies in a store is unpickled, evaluated or imported."""

import ast

from tests.support.paths import ROOT

LIBRARY = ROOT / "multicsr"
CALLS = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads"),
    *("marshal.loads", "shelve.open", "joblib.load", "dill.load", "dill.loads", "eval", "exec"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "importlib.import_module", "__import__"),
    *("runpy.run_path", "torch.load", "np.load", "numpy.load"),
}
ALLOWED = {
    # What this process handed to Ray's workers a moment ago.
    ("execution/pool.py", "pickle.loads"),
    # Loads types of data only: weights_only=True, which is checked below.
    ("stages/train/checkpoint.py", "torch.load"),
    # A cache of this user, of arrays only: allow_pickle=False, which is checked below.
    ("stages/evaluate/cache.py", "np.load"),
}


def calls() -> list[tuple[str, ast.Call, str]]:
    """(file, call, dotted name) of every call in the library."""
    found = []
    for path in sorted(LIBRARY.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((path.relative_to(LIBRARY).as_posix(), node, ast.unparse(node.func)))
    return found


def test_only_known_places_could_run_what_they_read():
    assert {(file, name) for file, _, name in calls() if name in CALLS} <= ALLOWED


def test_names_are_not_imported_past_this_test():
    """`from pickle import loads` would hide a call."""
    modules = {name.partition(".")[0] for name in CALLS if "." in name} - {
        "np",
        "numpy",
        "torch",
        "yaml",
        "importlib",
    }
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in modules, path
            if isinstance(node, ast.Import):
                assert not any(alias.asname and alias.name in modules for alias in node.names), path


def test_loads_of_tensors_and_arrays_take_data_only():
    for file, call, name in calls():
        settings = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name == "torch.load":
            assert settings.get("weights_only") == "True", file
        assert settings.get("allow_pickle", "False") == "False", file
        # A permission is passed on from a setting that is off by default; nothing in a store gives one.
        assert settings.get("trust_remote_code", "False") != "True", file
