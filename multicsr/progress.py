"""Progress of a stage: a live bar with ETA in a terminal, plain lines elsewhere, nothing in tests.

The library only ever calls `Progress`; which one it gets is the command line's business.
"""

import sys
import time
from types import TracebackType
from typing import Protocol, Self, TextIO


class Progress(Protocol):
    """What a running stage tells the outside. Use as a context manager around all stages of a command."""

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
        """A stage begins; `total` is None when the amount of work is not known."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """So much more of the running stage is done; `note` is a word on its state, such as "loss 0.123"."""

    def finish(self, summary: str) -> None:
        """The running stage is over; `summary` is its one line of result."""


class SilentProgress:
    """Says nothing."""

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None: ...
    def advance(self, amount: int = 1, note: str = "") -> None: ...
    def finish(self, summary: str) -> None: ...


class LineProgress:
    """One plain line when a stage starts, at most every `interval_s` seconds, and when it ends."""

    def __init__(self, stream: TextIO = sys.stderr, interval_s: float = 10.0) -> None:
        self._stream = stream
        self._interval_s = interval_s
        self._stage, self._unit = "", "rows"
        self._total: int | None = None
        self._done = 0
        self._started = self._spoke = 0.0

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
        self._stage, self._total, self._unit, self._done = stage, total, unit, 0
        self._started = self._spoke = time.monotonic()
        self._say(f"{total:,} {unit}" if total is not None else "started")

    def advance(self, amount: int = 1, note: str = "") -> None:
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
        self._say(f"{line}, {note}" if note else line)

    def finish(self, summary: str) -> None:
        self._say(f"{summary} ({time.monotonic() - self._started:.1f} s)")

    def _say(self, text: str) -> None:
        self._stream.write(f"{self._stage:<9} {text}\n")
        self._stream.flush()


class TerminalProgress:
    """A live bar a stage, with rate, ETA and note; a finished stage leaves its one-line summary."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True)
        self._bars = RichProgress(
            TextColumn("{task.description:<9}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f} {task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._stage, self._unit = "", "rows"
        self._started = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, stage: str, total: int | None, unit: str = "rows") -> None:
        self._stage, self._unit, self._started = stage, unit, time.monotonic()
        self._task = self._bars.add_task(stage, total=total, unit=unit, rate="", note="")

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._bars.update(self._task, advance=amount, note=note)
        if per_s := self._bars.tasks[-1].speed:
            self._bars.update(self._task, rate=f"{per_s:,.1f} {self._unit}/s")

    def finish(self, summary: str) -> None:
        self._bars.remove_task(self._task)
        seconds = time.monotonic() - self._started
        self._console.print(f"[bold]{self._stage:<9}[/] {summary} [dim]({seconds:.1f} s)[/]", highlight=False)
