"""The attack on commands by exceptions: any kind of them, raised in any function of the package.

Functions that a command calls are found by running it once under a profiler; then one at a time, drawn by a
seed, is replaced by one that raises.
"""

import errno
import gc
import inspect
import random
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType

import botocore.exceptions
import pyarrow as pa
import pytest
import ray.exceptions
from pydantic import TypeAdapter

from multicsr.cli.command import run_app
from multicsr.cli.main import app
from multicsr.messages.captured_output import install_hooks

REPORTERS = ("messages.", "cli.main", "cli.entrypoint", "cli.command", "execution.signals", "errors")
"""Modules that report the exceptions."""


def _validation_error() -> Exception:
    try:
        TypeAdapter(dict[str, int]).validate_python({"a\x1b[2J": "b"})
    except ValueError as error:
        return error
    raise AssertionError


def _api_exception() -> Exception:
    from kubernetes.client import ApiException

    return ApiException(status=403, reason="Forbidden\nby \x1b[31mrule")


MAKERS: dict[str, Callable[[], BaseException]] = {
    "full": lambda: OSError(errno.ENOSPC, "No space left on device", "/data/[/x]\x1b[2J"),
    "read-only": lambda: OSError(errno.EROFS, "Read-only file system", "/data"),
    "files": lambda: OSError(errno.EMFILE, "Too many open files"),
    "permission": lambda: PermissionError(errno.EACCES, "Permission denied", b"/data/\xff"),
    "absent": lambda: FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/x"),
    "runtime": lambda: RuntimeError(
        "first\nTraceback (most recent call last):\n  x\nKeyError: \x1b[2J[/bold]"
    ),
    "key": lambda: KeyError("[bold]\udcff\u202e"),
    "actor": lambda: ray.exceptions.ActorDiedError(),
    "ray oom": lambda: ray.exceptions.OutOfMemoryError("Task was killed"),
    "client": lambda: botocore.exceptions.ClientError(
        {"Error": {"Code": "SlowDown", "Message": "\x1b"}}, "Put"
    ),
    "arrow": lambda: pa.ArrowInvalid("Couldn't deserialize\nthrift"),
    "memory": MemoryError,
    "recursion": lambda: RecursionError("maximum recursion depth exceeded"),
    "kubernetes": _api_exception,
    "tls": lambda: ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "validation": _validation_error,
    "group": lambda: ExceptionGroup("some", [OSError(errno.EIO, "Input/output error"), KeyError("x")]),
    "exit": lambda: SystemExit(0),
    "assertion": AssertionError,
    "interrupt": KeyboardInterrupt,
}


def codes_of(call: Callable[[], int]) -> tuple[set[CodeType], int]:
    """Return the code that runs in this process while `call` does, and what `call` returns."""
    seen: set[CodeType] = set()

    def note(frame, event, argument):
        if event == "call" and frame.f_globals.get("__name__", "").startswith("multicsr."):
            seen.add(frame.f_code)

    sys.setprofile(note)
    threading.setprofile(note)
    try:
        return seen, call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


class Package:
    """The functions of the modules of the package that are loaded."""

    def __init__(self) -> None:
        self.modules = [each for name, each in sys.modules.items() if name.partition(".")[0] == "multicsr"]
        names = {module.__name__ for module in self.modules}
        self._functions: dict[CodeType, FunctionType] = {}
        for each in gc.get_objects():
            if isinstance(each, FunctionType) and each.__module__ in names:
                self._functions[getattr(inspect.unwrap(each), "__code__", each.__code__)] = each

    def functions(self, codes: set[CodeType]) -> list[FunctionType]:
        """Return the functions of some code, in a fixed order."""
        found = [self._functions[code] for code in codes if code in self._functions]
        kept = [each for each in found if not each.__module__.removeprefix("multicsr.").startswith(REPORTERS)]
        return sorted(kept, key=lambda each: (each.__module__, each.__qualname__))

    def replace(
        self, patch: pytest.MonkeyPatch, function: FunctionType, raising: Callable[..., object]
    ) -> int:
        """Replace a function wherever the package refers to it; return in how many places."""
        places = 0
        for module in self.modules:
            owners = [module, *(each for each in vars(module).values() if isinstance(each, type))]
            for owner in owners:
                for name, value in list(vars(owner).items()):
                    plain = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                    if plain is function:
                        patch.setattr(
                            owner, name, property(raising) if isinstance(value, property) else raising
                        )
                        places += 1
        return places


@pytest.fixture
def quiet_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process as the console script sets it up."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    install_hooks()
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["multicsr", *words])
    return run_app(app)


def attack(
    commands: Iterable[str],
    words_of: Callable[[str], list[str]],
    draw: random.Random,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    undisturbed: Iterable[int] = (0, 1),
) -> None:
    """Raise an exception under a command, `count` times.

    Args:
        words_of: returns the words of a command, after everything that it works on was made anew.
        undisturbed: exit codes of commands in which nothing is raised.
    """
    called = called_by(commands, words_of, monkeypatch, undisturbed)
    capfd.readouterr()
    for _ in range(count):
        command = draw.choice([*called])
        function, kind = draw.choice(called[command][1]), draw.choice([*MAKERS])
        code = run_with(words_of(command), called[command][0], function, MAKERS[kind], monkeypatch)
        out, err = capfd.readouterr()
        case = f"{kind} in {function.__module__}.{function.__qualname__} under {command}: {code}\n{err}"
        check(code, kind, out, err, case)


def called_by(
    commands: Iterable[str],
    words_of: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Iterable[int],
) -> dict[str, tuple["Package", list[FunctionType]]]:
    """Return the functions that each command calls."""
    codes, results = {}, {}
    for command in commands:
        call = partial(run, words_of(command), monkeypatch)
        codes[command], results[command] = codes_of(call)
    assert set(results.values()) <= set(undisturbed), results
    package = Package()
    called = {command: (package, package.functions(found)) for command, found in codes.items()}
    counts = {command: len(functions) for command, (_, functions) in called.items()}
    assert min(counts.values()) >= 3, counts
    return called


def run_with(
    words: list[str],
    package: "Package",
    function: FunctionType,
    make: Callable[[], BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> int:
    """Run a command while a function raises; return the exit code."""

    def raising(*arguments: object, **options: object) -> None:
        raise make()

    with monkeypatch.context() as patch:
        package.replace(patch, function, raising)
        return run(words, patch)


def check(code: int, kind: str, out: str, err: str, case: str) -> None:
    """Assert that an exit code and what was printed are as they must be."""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code in {0, 1, 2, 130}, case
    assert "Traceback" not in out + err, case
    assert "\x1b" not in err, case
    if code in (1, 2):
        assert len(errors) == 1, case
    if code == 130:
        assert kind == "interrupt", case
