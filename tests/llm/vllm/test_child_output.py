"""What child processes print: kept, searched for the cause of a death, and not shown."""

import logging
import os
import subprocess
import sys
import threading

import pytest

from multicsr.llm.vllm.child_output import ChildOutput

DYING = """
import sys
print("loading", flush=True)
try:
    raise ValueError("no such weights")
except ValueError as error:
    raise RuntimeError("engine core failed") from error
"""


@pytest.fixture
def level():
    """Set the level of the root logger; afterwards it is as before."""
    before = logging.getLogger().level
    yield logging.getLogger().setLevel
    logging.getLogger().setLevel(before)


def run(code, child_output):
    with child_output.listening():
        child = subprocess.Popen([sys.executable, "-c", code])
    child.wait()
    drain()


def drain():
    """Wait until everything that children have printed was read."""
    for thread in threading.enumerate():
        if thread.name == "child_output":
            thread.join(5)


def fail_while(child_output):
    with child_output.listening():
        os.write(1, b"hidden\n")
        raise OSError("mine")


def test_the_cause_is_the_first_error_and_nothing_is_shown(capfd, level):
    level(logging.WARNING)
    child_output = ChildOutput()
    run(DYING, child_output)
    assert child_output.cause() == "ValueError: no such weights"
    assert capfd.readouterr() == ("", "")


def test_all_is_shown_when_information_is_asked_for(capfd, level):
    level(logging.INFO)
    run(DYING, ChildOutput())
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "loading" in shown.err
    assert "RuntimeError: engine core failed" in shown.err


def test_the_streams_are_as_before_even_after_an_error(capfd, level):
    level(logging.WARNING)
    with pytest.raises(OSError, match="mine"):
        fail_while(ChildOutput())
    os.write(1, b"out\n")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_a_child_is_heard_for_as_long_as_it_lives(capfd, level):
    level(logging.WARNING)
    child_output = ChildOutput()
    code = "input(); raise KeyError('late')"
    with child_output.listening():
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
    assert child_output.cause() is None
    child.communicate("go\n")
    drain()
    assert child_output.cause() == "KeyError: 'late'"
    child_output.forget()
    assert child_output.cause() is None
    assert capfd.readouterr() == ("", "")


def test_lines_that_only_speak_of_errors_are_no_cause():
    child_output = ChildOutput()
    run("print('0 errors: fine'); print('ErrorHandler ready')", child_output)
    assert child_output.cause() is None


def test_the_module_of_an_error_and_what_stands_before_it_are_left_out():
    child_output = ChildOutput()
    run(
        "print('(EngineCore pid=7) ERROR 08-01 [core.py:9] torch.cuda.OutOfMemoryError: 3 GiB')", child_output
    )
    assert child_output.cause() == "OutOfMemoryError: 3 GiB"
