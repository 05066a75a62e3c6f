"""Progress as plain lines, which is what is said when there is no terminal, and as a live bar."""

import io
import time

from multicsr.observability.progress import LineProgress, TerminalProgress


def test_a_stage_states_when_it_starts_how_far_it_is_and_what_came_out():
    stream = io.StringIO()
    progress = LineProgress(stream, interval_s=0)
    progress.start("generate", 200)
    progress.advance(0)
    progress.advance(25)
    time.sleep(0.01)
    progress.advance(25)
    progress.finish("180 kept, 20 rejected")
    first, eighth, quarter, last = stream.getvalue().splitlines()
    assert first == "generate  200 rows"
    assert eighth == "generate  12%, 25 rows", "nothing is known of the rate yet"
    assert quarter.startswith("generate  25%, 50 rows, ")
    assert quarter.endswith(" s to go")
    assert last.startswith("generate  180 kept, 20 rejected (")


def test_an_unknown_total_gives_no_eta():
    stream = io.StringIO()
    progress = LineProgress(stream, interval_s=0)
    progress.start("read", None)
    progress.advance(3)
    assert "to go" not in stream.getvalue()
    assert "3 rows" in stream.getvalue()


def test_a_note_ends_the_line():
    stream = io.StringIO()
    progress = LineProgress(stream, interval_s=0)
    progress.start("train", 100, "steps")
    progress.advance(50, "loss 0.123, dev 71.20")
    time.sleep(0.01)
    progress.advance(0)
    progress.advance(10, "loss 0.123, dev 71.20")
    assert " s to go, loss 0.123, dev 71.20\n" in stream.getvalue()


def test_the_bar_shows_rate_and_note_and_leaves_the_summary(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with TerminalProgress() as progress:
        progress.start("train", 2000, "steps")
        for done in range(3):
            progress.advance(500, f"loss 0.12{done}, dev [71.20]")
        progress._bars.refresh()
        live = capsys.readouterr().err
        progress.finish("2,000 steps")
    assert "1,500 steps" in live
    assert "75%" in live
    assert " steps/s" in live
    assert "loss 0.122, dev [71.20]" in live
    assert "2,000 steps" in capsys.readouterr().err


def test_it_does_not_chatter():
    stream = io.StringIO()
    progress = LineProgress(stream, interval_s=3600)
    progress.start("train", 100, "steps")
    for _ in range(100):
        progress.advance()
    assert stream.getvalue().count("\n") == 1


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        monkeypatch.setattr("multicsr.observability.progress.time.monotonic", lambda: self.now_s)

    def wait(self, seconds):
        self.now_s += seconds


def test_the_time_before_the_first_unit_does_not_count(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    progress = LineProgress(stream, interval_s=0)
    progress.start("train", 300, "steps")
    clock.wait(60)  # processes start, models are loaded
    progress.advance(1, "loss 1.0")
    clock.wait(1)
    progress.advance(1, "loss 0.9")
    first, second = stream.getvalue().splitlines()[1:]
    assert first == "train     0%, 1 steps, loss 1.0"
    assert second == "train     1%, 2 steps, 1.0/s, 298 s to go, loss 0.9"


def test_units_that_were_done_before_do_not_count(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    progress = LineProgress(stream, interval_s=0)
    progress.start("generate", 1000)
    progress.skip(500)
    clock.wait(40)
    progress.advance(100)
    clock.wait(10)
    progress.advance(100)
    assert stream.getvalue().splitlines()[-1] == "generate  70%, 700 rows, 10/s, 30 s to go"


def test_the_rate_is_that_of_the_last_minute(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    progress = LineProgress(stream, interval_s=0)
    progress.start("train", 10_000, "steps")
    for _ in range(100):
        clock.wait(10)
        progress.advance(1)
    for _ in range(100):
        clock.wait(1)
        progress.advance(1)
    assert ", 1.0/s, 9,800 s to go" in stream.getvalue().splitlines()[-1]


def test_what_takes_long_is_said_at_once():
    stream = io.StringIO()
    progress = LineProgress(stream, interval_s=3600)
    progress.start("generate", 100)
    progress.announce("starting Ray on this machine")
    assert stream.getvalue().splitlines()[1] == "generate  starting Ray on this machine"


def test_the_bar_forgets_the_times_of_units_done_before(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with TerminalProgress() as progress:
        progress.announce("taking a while")
        progress.start("generate", 1000)
        progress.skip(900)
        progress._bars.refresh()
        assert progress._bars.tasks[-1].speed is None
        assert "90%" in capsys.readouterr().err
        progress.advance(50)
        progress.finish("done")
