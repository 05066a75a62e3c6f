"""Samples of the Python functions in which a process spends its time.

Samples are taken instead of tracing every call (cProfile), because tracing slows functions that call many
others down several times and so changes what it measures. A sample costs about 0.1 ms whatever runs.
"""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import FrameType

_EVERY_S = 0.01
"""Seconds between two samples."""
WAITING_BELOW = 0.1
"""Share of one core below which a process counts as waiting."""
_ELSEWHERE = "outside of this package"
_PACKAGE = str(Path(__file__).resolve().parents[1])


@dataclass
class Samples:
    """Seconds of work by the function that they were spent in."""

    seconds: float = 0.0
    """Time of work that was sampled."""
    waiting_s: float = 0.0
    """Part of it in which the process waited."""
    computed: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """CPU seconds of each function."""
    waited: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of waiting in each function."""


class FunctionSampler:
    """A thread that samples the functions of this process while it works.

    Only threads with a function of this package on their stack are looked at. Between two samples, the CPU
    time of each is added to the function that it is in. If the whole process uses less than
    `WAITING_BELOW` of one core, it waits, and the time is added to the function of the thread that computed
    last: the other threads wait for that one.
    """

    def __init__(self, seconds: float, is_working: Callable[[], bool]) -> None:
        """Start the thread.

        Args:
            seconds: time of work after which the thread ends.
            is_working: returns True while the process works.
        """
        self._left_s, self._is_working = seconds, is_working
        self._samples, self._lock = Samples(), threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profile-functions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def take(self) -> Samples:
        """Return the samples since the last call."""
        with self._lock:
            taken, self._samples = self._samples, Samples()
        return taken

    def _run(self) -> None:
        before, threads_before, last_active = _Clocks.now(), dict[int, float](), 0
        while self._left_s > 0 and not self._stop.wait(_EVERY_S):
            now, frames = _Clocks.now(), _frames_of_ours()
            threads = {native: _thread_cpu_s(native) for native in frames}
            # A thread that was not seen before has no earlier time to compare with.
            used = {native: max(threads[native] - threads_before.get(native, inf), 0.0) for native in frames}
            last_active = max(used, key=used.__getitem__, default=0) if any(used.values()) else last_active
            if self._is_working():
                labels = {native: label(frame) for native, frame in frames.items()}
                computed = [(labels[native], used_s) for native, used_s in used.items()]
                at = labels.get(last_active, next(iter(labels.values()), ""))
                self._add(now.wall_s - before.wall_s, now.cpu_s - before.cpu_s, computed, at)
            before, threads_before = now, threads

    def _add(self, seconds: float, cpu_s: float, computed: Sequence[tuple[str, float]], at: str) -> None:
        """Add the time since the last sample.

        Args:
            seconds: wall time.
            cpu_s: CPU time of the process.
            computed: function and CPU time of each thread.
            at: function in which the process is if it waits; empty if there is none of this package.
        """
        self._left_s -= seconds
        with self._lock:
            self._samples.seconds += seconds
            for name, used_s in computed:
                self._samples.computed[name] += used_s
            if cpu_s < WAITING_BELOW * seconds:
                self._samples.waiting_s += seconds
                self._samples.waited[at or _ELSEWHERE] += seconds


@dataclass(frozen=True)
class _Clocks:
    """The time, and the CPU time of this process without the calling thread."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> "_Clocks":
        return cls(time.monotonic(), time.process_time() - time.thread_time())


def _frames_of_ours() -> dict[int, FrameType]:
    """Return the innermost frame of each thread that runs a function of this package, by its native id."""
    native = {thread.ident: thread.native_id for thread in threading.enumerate()}
    here = threading.get_ident()
    return {
        number: frame
        for ident, frame in sys._current_frames().items()
        if ident != here and (number := native.get(ident)) is not None and _our_frame(frame) is not None
    }


def _thread_cpu_s(native: int) -> float:
    """Return the CPU time of a thread in seconds; 0 if it has just ended."""
    # Linux's number of a thread's clock. Unlike `time.pthread_getcpuclockid`, it raises and does not crash if
    # the thread is gone.
    try:
        return time.clock_gettime(~native << 3 | 6)
    except OSError:
        return 0.0


def _our_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame of a function of this package; None if there is none."""
    while frame is not None and not _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _is_ours(filename: str) -> bool:
    return filename.startswith(_PACKAGE) and not filename.endswith(("execution/profiling.py", "/pool.py"))


def label(frame: FrameType) -> str:
    """Return the name of the function of this package in which a stack is, and of what it has called."""
    ours = _our_frame(frame)
    if ours is None or ours is frame:
        return _name(frame)
    return f"{_name(ours)} > {_name(frame)}"


def _name(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    module = path.parent.name if path.stem == "__init__" else path.stem
    return f"{module}.{frame.f_code.co_qualname.replace('<locals>.', '')}"
