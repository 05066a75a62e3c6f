"""Progress of a stage: a live bar with ETA in a terminal, plain lines elsewhere, nothing in tests.

The library calls the protocol `Progress` only; the command line chooses the implementation.
"""

import sys
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self, TextIO

from multicsr.messages.terminal import console, echo_progress, one_line

_WINDOW_S = 60.0
"""Seconds whose units decide the rate."""
_LEAST_SAMPLES = 3
"""Reports that are kept even if they are older: the units of a stage may take minutes each."""


class Progress(Protocol):
    """Reporter of the stages of a command, of which one runs at a time."""

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
        """Begin a stage.

        Args:
            stage: name of the stage.
            total: amount of work, in units; None if it is not known.
            unit: name of the units, in the plural.
        """

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Advance the running stage by `amount` units; `note` describes its state, such as "loss 0.123"."""

    def skip(self, amount: int) -> None:
        """Advance by units that were done before, and that are no measure of the rate of the others."""

    def announce(self, text: str) -> None:
        """Report at once what takes time and is no work on a unit, such as the start of Ray."""

    def finish(self, summary: str) -> None:
        """End the running stage; `summary` is its result, in one line."""


class SilentProgress:
    """Reporter that prints nothing."""

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
        """Implement `Progress.start`."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Implement `Progress.advance`."""

    def skip(self, amount: int) -> None:
        """Implement `Progress.skip`."""

    def announce(self, text: str) -> None:
        """Implement `Progress.announce`."""

    def finish(self, summary: str) -> None:
        """Implement `Progress.finish`."""


class _Rate:
    """Rate of the last minute, without the time before the first unit was done."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, done: int) -> None:
        """Record that so many units are done now."""
        self._samples.append((now_s, done))
        while len(self._samples) > _LEAST_SAMPLES and now_s - self._samples[1][0] > _WINDOW_S:
            self._samples.popleft()

    def per_s(self, now_s: float) -> float | None:
        """Return the units per second; None before it is known."""
        if len(self._samples) < 2:
            return None
        (first_s, before), (_, done) = self._samples[0], self._samples[-1]
        return (done - before) / (now_s - first_s) if now_s > first_s else None


class LineProgress:
    """Reporter of plain lines.

    It prints a line when a stage starts, at most every `interval_s` seconds, and when the stage ends.
    """

    def __init__(self, stream: TextIO = sys.stderr, interval_s: float = 10.0) -> None:
        self._stream = stream
        self._interval_s = interval_s
        self.stage = ""
        """The stage that runs or ran last."""
        self._unit = "rows"
        self._total: int | None = None
        self._done = 0
        self._rate = _Rate()
        self._started = self._spoke = 0.0

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
        """Implement `Progress.start`."""
        self.stage, self._total, self._unit, self._done = stage, total, unit, 0
        self._rate = _Rate()
        self._started = self._spoke = time.monotonic()
        self._print(f"{total:,} {unit}" if total is not None else "started")

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Implement `Progress.advance`."""
        self._done += amount
        now = time.monotonic()
        if amount:
            self._rate.add(now, self._done)
        if now - self._spoke < self._interval_s:
            return
        self._spoke = now
        if self._done:
            self._print(", ".join(self._state(now, note)))

    def _state(self, now_s: float, note: str) -> Iterator[str]:
        """Yield the parts of a line about the running stage; rate and ETA only where they are known."""
        per_s = self._rate.per_s(now_s)
        if self._total:
            yield f"{self._done / self._total:.0%}"
        yield f"{self._done:,} {self._unit}"
        if per_s:
            yield f"{per_s:,.{0 if per_s >= 10 else 1}f}/s"
        if per_s and self._total:
            yield f"{(self._total - self._done) / per_s:,.0f} s to go"
        if note:
            yield note

    def skip(self, amount: int) -> None:
        """Implement `Progress.skip`."""
        self._done += amount
        self._rate = _Rate()

    def announce(self, text: str) -> None:
        """Implement `Progress.announce`."""
        self._print(text)

    def finish(self, summary: str) -> None:
        """Implement `Progress.finish`."""
        self._print(f"{summary} ({time.monotonic() - self._started:.1f} s)")

    def _print(self, text: str) -> None:
        echo_progress(self._stream, f"{self.stage:<9} {text}")


class TerminalProgress:
    """Reporter with a live bar for each stage: rate, ETA and note.

    Use it as a context manager around all stages: the bar is shown inside it. A finished stage leaves its
    one-line summary.
    """

    def __init__(self) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = console(stderr=True)
        self._bars = RichProgress(
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f} {task.fields[unit]}", markup=False),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
        )
        self.stage = ""
        """The stage that runs or ran last."""
        self._unit = "rows"
        self._done = 0
        self._started = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
        """Implement `Progress.start`."""
        self.stage, self._unit, self._started, self._done = stage, unit, time.monotonic(), 0
        self._task = self._bars.add_task(stage, total=total, unit=unit, rate="", note="")

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Implement `Progress.advance`."""
        self._done += amount
        self._bars.update(self._task, advance=amount, note=one_line(note))
        if per_s := self._bars.tasks[-1].speed:
            self._bars.update(self._task, rate=f"{per_s:,.1f} {self._unit}/s")

    def skip(self, amount: int) -> None:
        """Implement `Progress.skip`."""
        self._done += amount
        self._bars.reset(self._task, completed=self._done)  # rich forgets the times of earlier units

    def announce(self, text: str) -> None:
        """Implement `Progress.announce`."""
        self._console.print(f"{self.stage:<9} {one_line(text)}")

    def finish(self, summary: str) -> None:
        """Implement `Progress.finish`."""
        from rich.text import Text

        self._bars.remove_task(self._task)
        seconds = time.monotonic() - self._started
        line = Text.assemble(
            (f"{self.stage:<9}", "bold"), f" {one_line(summary)} ", (f"({seconds:.1f} s)", "dim")
        )
        self._console.print(line)
