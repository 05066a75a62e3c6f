"""The single catch of everything: an exit code, one line, the traceback in a file or with --debug only."""

import logging
import subprocess
import sys
import warnings

import pytest
import typer

from multicsr.cli.entrypoint import guarded, job_main, progress_for_terminal
from multicsr.errors import ConfigError, RunError
from multicsr.storage.refresh_log import RefreshRun
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def _temporary(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def raiser(error: BaseException):
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(("error", "code"), [(ConfigError("a: is wrong"), 2), (RunError("a: is wrong"), 1)])
def test_an_expected_error_is_its_line(error, code, capfd, tmp_path):
    assert guarded(raiser(error), debug=False) == code
    assert capfd.readouterr().err == "error: a: is wrong\n"
    assert not [*tmp_path.iterdir()]


def test_anything_else_names_command_stage_exception_and_file(capfd, tmp_path):
    def call() -> None:
        with progress_for_terminal() as progress:
            progress.start("generate", 3)
            raise KeyError("first\nsecond \x1b[2J")

    assert guarded(call, debug=False, command="multicsr run") == 1
    (file,) = tmp_path.iterdir()
    shown = capfd.readouterr().err.splitlines()[-1]
    expected = "KeyError: 'first\\nsecond \\x1b[2J'"
    assert shown == f"error: multicsr run, stage: generate: {expected}; details in {file}"
    assert "Traceback" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_debug_shows_the_traceback(capfd):
    assert guarded(raiser(KeyError("x")), debug=True) == 1
    assert "Traceback" in capfd.readouterr().err
    assert guarded(raiser(RunError("x")), debug=True) == 1
    assert "Traceback" in capfd.readouterr().err


def test_a_library_that_exits_or_panics_is_an_error(capfd):
    class PanicException(BaseException):
        """As pyo3's, which is no Exception."""

    for error in (SystemExit(0), SystemExit("x"), PanicException("unwrap of None"), GeneratorExit()):
        assert guarded(raiser(error), debug=False) == 1
        assert capfd.readouterr().err.count("error: ") == 1


def test_no_artifact_for_the_details_is_reported(capfd, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", "/there/is/none")
        assert guarded(raiser(KeyError("x")), debug=False) == 1
    shown = capfd.readouterr().err
    assert "--debug shows the traceback (no details file: No such file or directory)" in shown


def test_an_endless_recursion_is_one_line(capfd):
    def call() -> None:
        call()

    assert guarded(call, debug=False) == 1
    assert capfd.readouterr().err.startswith("error: multicsr: RecursionError")


def test_log_records_are_lines_without_tracebacks(capfd):
    def call() -> None:
        logging.getLogger("some.library").error("bad %s", "\x1b[2J", exc_info=KeyError("x"))
        logging.getLogger("some.library").error("bad %d", "no number")
        warnings.warn("old\n\x1b[2J", stacklevel=1)

    assert guarded(call, debug=False) == 0
    shown = capfd.readouterr().err
    assert "some.library: bad \\x1b[2J: KeyError: 'x'" in shown
    assert "Traceback" not in shown
    assert "\x1b" not in shown


_NOBODY_CATCHES = """
import asyncio, logging, multiprocessing, sys, threading
from multicsr.cli.entrypoint import guarded
from multicsr.messages.captured_output import install_hooks

class Broken:
    def __del__(self):
        raise RuntimeError("in __del__")

async def forgotten():
    task = asyncio.ensure_future(asyncio.sleep(0, 1 / 1))
    async def fails():
        raise RuntimeError("in a task")
    asyncio.ensure_future(fails())
    await asyncio.sleep(0.05)

def thread():
    raise RuntimeError("in a thread")

def call():
    Broken()
    one = threading.Thread(target=thread, name="reader")
    one.start()
    one.join()
    asyncio.run(forgotten())
    import atexit
    atexit.register(thread)

install_hooks()
sys.exit(guarded(call, debug="--debug" in sys.argv))
"""


def test_what_nobody_catches_is_a_line_or_nothing(tmp_path):
    command = [sys.executable, "-c", _NOBODY_CATCHES]
    environment = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "warning: thread reader ended: RuntimeError: in a thread" in done.stderr
    assert "Task exception was never retrieved" in done.stderr
    assert "__del__" not in done.stderr


def multicsr(*words: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multicsr.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--nothing"], "No such option: --nothing; see `multicsr run --help`"),
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument 'CONFIG'"),
        (["cluster", "up", "--nodes", "x"], "'--nodes'"),
        (["audit", "a", "\x1b[2J\udcff"], "\\x1b[2J\\udcff"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(words, message):
    failed = multicsr(*words)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    assert message in failed.stderr


@pytest.mark.parametrize("words", ["--version", "--help"])
def test_an_output_that_is_full_is_an_error_and_one_that_is_closed_is_none(words):
    with open("/dev/full", "w") as full:
        failed = subprocess.run(
            [sys.executable, "-m", "multicsr.cli.main", words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
        )
    assert failed.returncode == 1
    assert "No space left on device" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert failed.stderr.count("error: ") == 1
    closed = subprocess.run(
        f"{sys.executable} -m multicsr.cli.main --help | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert "Traceback" not in closed.stderr
    assert closed.returncode in (0, 1)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_the_caller_closed_leads_nowhere(tmp_path, closed):
    """Nothing that the command opens gets the number of the stream."""
    ended = subprocess.run(
        f"{sys.executable} -m multicsr.cli.main versions {tmp_path} {closed}",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == 1, "nothing was published there"
    assert "Traceback" not in ended.stderr
    assert ended.stderr.startswith("error: nothing was published" if "2>" not in closed else "")


def test_a_message_names_the_whole_command(monkeypatch):
    from multicsr.cli import command

    app, cluster = typer.Typer(), typer.Typer()
    cluster.command("up")(lambda: None)
    app.command("run")(lambda: None)
    app.add_typer(cluster, name="cluster")
    assert command._name_of_command(app, ["cluster", "up", "--nodes", "3"]) == "multicsr cluster up"
    assert command._name_of_command(app, ["run", "cluster"]) == "multicsr run"


def test_a_refresh_job_tells_its_outcome(tmp_path, monkeypatch, capfd):
    """A job on a cluster has nothing but its log."""
    path = tmp_path / "nightly.yaml"
    path.write_text(f"{{name: nightly, store: {tmp_path / 'store'}, input: {{paths: [a.txt]}}}}")
    done = RefreshRun(
        started="2026-01-01T00:00:00+00:00",
        seconds=1,
        outcome="published",
        version=7,
        sentences=5,
        decision="not promoted: sts fell by 2",
    )
    monkeypatch.setattr("multicsr.pipeline.refresh.refresh", lambda config, progress: done)
    assert job_main("refresh", [str(path)]) == 0
    assert "published: version 7" in (shown := capfd.readouterr().out)
    assert "not promoted: sts fell by 2" in shown
