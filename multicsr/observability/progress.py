"""Progress of a stage: a live bar with ETA in a terminal, plain lines elsewhere, nothing in tests.

The library calls the protocol `Progress` only; the command line chooses the implementation.
"""

import sys
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from multicsr.messages.terminal import console, echo_progress, one_line


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

    def finish(self, summary: str) -> None:
        """End the running stage; `summary` is its result, in one line."""


class SilentProgress:
    """Reporter that prints nothing."""

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
        """Implement `Progress.start`."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Implement `Progress.advance`."""

    def finish(self, summary: str) -> None:
        """Implement `Progress.finish`."""


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
        self._started = self._spoke = 0.0

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
        """Implement `Progress.start`."""
        self.stage, self._total, self._unit, self._done = stage, total, unit, 0
        self._started = self._spoke = time.monotonic()
        self._print(f"{total:,} {unit}" if total is not None else "started")

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Implement `Progress.advance`."""
        self._done += amount
        now = time.monotonic()
        if now - self._spoke < self._interval_s:
            return
        self._spoke = now
        if self._done == 0:
            return
        rate = self._done / (now - self._started)
        line = f"{self._done:,} {self._unit}, {rate:,.{0 if rate >= 10 else 1}f}/s"
        if self._total:
            eta_s = (self._total - self._done) / rate
            line = f"{self._done / self._total:.0%}, {line}, {eta_s:,.0f} s to go"
        self._print(f"{line}, {note}" if note else line)

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
        self.stage, self._unit, self._started = stage, unit, time.monotonic()
        self._task = self._bars.add_task(stage, total=total, unit=unit, rate="", note="")

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Implement `Progress.advance`."""
        self._bars.update(self._task, advance=amount, note=one_line(note))
        if per_s := self._bars.tasks[-1].speed:
            self._bars.update(self._task, rate=f"{per_s:,.1f} {self._unit}/s")

    def finish(self, summary: str) -> None:
        """Implement `Progress.finish`."""
        from rich.text import Text

        self._bars.remove_task(self._task)
        seconds = time.monotonic() - self._started
        line = Text.assemble(
            (f"{self.stage:<9}", "bold"), f" {one_line(summary)} ", (f"({seconds:.1f} s)", "dim")
        )
        self._console.print(line)
