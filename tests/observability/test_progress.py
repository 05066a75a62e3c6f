"""Progress as plain lines, which is what is said when there is no terminal, and as a live bar."""

import io

from multicsr.observability.progress import LineProgress, TerminalProgress


def test_a_stage_states_when_it_starts_how_far_it_is_and_what_came_out():
    stream = io.StringIO()
    progress = LineProgress(stream, interval_s=0)
    progress.start("generate", 200)
    progress.advance(0)
    progress.advance(50)
    progress.finish("180 kept, 20 rejected")
    first, quarter, last = stream.getvalue().splitlines()
    assert first == "generate  200 rows"
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
