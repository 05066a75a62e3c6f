"""A process ends with its own exit code, whatever threads of C++ libraries still do."""

import subprocess
import sys
from textwrap import dedent

import pytest

# Arrow reads ahead in a thread of its own, which is in the middle of `read` when the process ends.
READING = dedent("""
    import io, sys, time
    import pyarrow as pa
    from pyarrow import csv

    class Slow(io.RawIOBase):
        reads = 0

        def readable(self):
            return True

        def read(self, size=-1):
            self.reads += 1
            if self.reads > 2:
                time.sleep(0.2)
            return b"a\\n" * 1000

    def call():
        reader = csv.open_csv(pa.PythonFile(Slow(), "r"), csv.ReadOptions(block_size=2000))
        sys.stdout.write(f"{reader.read_next_batch().num_rows} rows")
        globals()["reader"] = reader
        return 3
""")
ENDINGS = {
    "ours": "from multicsr.cli.process import run_process\nrun_process(call)",
    "python's": "sys.exit(call())",
}


def ended(script):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_thread_of_arrow_that_still_reads_does_not_abort_the_process(ending):
    run = ended(READING + ENDINGS[ending])
    assert run.stdout == "999 rows"
    assert run.returncode == (3 if ending == "ours" else -6), run.stderr


def test_threads_are_joined_and_handlers_called():
    run = ended(
        dedent("""
        import atexit, logging, threading, time
        from multicsr.cli.process import run_process

        def call():
            atexit.register(print, "handler")
            threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
            return 5

        run_process(call)
        """)
    )
    assert (run.returncode, run.stdout, run.stderr) == (5, "thread\nhandler\n", "")


def test_an_exception_is_shown_by_python():
    run = ended("from multicsr.cli.process import run_process\nrun_process(lambda: 1 // 0)")
    assert run.returncode == 1
    assert run.stderr.endswith("ZeroDivisionError: integer division or modulo by zero\n")
