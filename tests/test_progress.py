"""Progress as plain lines: what is said when there is no terminal."""

import io

from multicsr.progress import LineProgress


def test_a_stage_says_when_it_starts_how_far_it_is_and_what_came_out():
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


def test_it_does_not_chatter():
    stream = io.StringIO()
    progress = LineProgress(stream, interval_s=3600)
    progress.start("train", 100, "steps")
    for _ in range(100):
        progress.advance()
    assert stream.getvalue().count("\n") == 1
