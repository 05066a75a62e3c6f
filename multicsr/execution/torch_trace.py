"""Traces of torch's operators, in slices, bounded in time and in size.

A trace of some seconds of a small model on a CPU has a million events. So the profiler runs for a short time,
writes a file and pauses, as long as the bytes so far require: the slices are spread over the whole time.

A slice begins and ends in the thread of the work when it calls a module, thus between two operators. Two
other ways crashed processes: a profiler of all threads that ends while operators run (`profile_all_threads`)
and a slice that is open when its thread ends. So only threads that ask for it are traced.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.profiler import profile

_SLICE_S = 0.5
"""Least time of a slice in seconds, unless its block ends before."""
_MOST_BYTES = 64 * 2**20
"""Size of all slices of a process, as JSON. Compressed they are a tenth."""


class OperatorTrace:
    """A hook of all modules that traces the operators of the threads that are in a block of `here`.

    If there are several such threads, each slice is that of the one that was first when it was due.
    """

    def __init__(self, prefix: Path, seconds: float, on_slice: Callable[[str, float], None]) -> None:
        """Start the profiler once, which takes seconds the first time, and add the hook.

        Args:
            prefix: path of the files without number and ending.
            seconds: time from the first call of a module, pauses included, after which nothing is traced.
            on_slice: called with the name of each file and the seconds that it covers.
        """
        from torch.nn.modules.module import register_module_forward_pre_hook

        self._prefix, self._seconds, self._on_slice = prefix, seconds, on_slice
        self._left_s, self._traced_s, self._num_bytes, self._number = seconds, 0.0, 0, 0
        profiler = _profiler()
        profiler.start()
        profiler.stop()
        self._lock = threading.Lock()
        self._slice: _Slice | None = None
        self._thread = threading.local()
        self._due_s = time.monotonic()
        self._hook = register_module_forward_pre_hook(self._look)

    def stop(self) -> None:
        """Remove the hook."""
        self._hook.remove()

    @contextmanager
    def here(self) -> Iterator[None]:
        """Trace this thread while the block runs, as far as slices are due."""
        before = getattr(self._thread, "is_traced", False)
        self._thread.is_traced = True
        try:
            yield
        finally:
            self._thread.is_traced = before
            if not before and (present := self._slice) is not None and present.is_here():
                self._end(present)

    def _look(self, module: "nn.Module", arguments: object) -> None:
        """Begin or end a slice if it is time to; this is called before each call of a module."""
        if not getattr(self._thread, "is_traced", False):
            return
        now_s, present = time.monotonic(), self._slice
        if present is not None:
            if present.is_here() and now_s >= present.start_s + _SLICE_S:
                self._end(present)
        elif now_s >= self._due_s:
            with self._lock:
                if self._slice is None:  # another thread may have been first
                    self._slice = _Slice()

    def _end(self, present: "_Slice") -> None:
        """Write a slice, and set the time of the next one."""
        path = self._prefix.with_name(f"{self._prefix.name}-{self._number:04d}.json")
        seconds = present.write(path)
        self._on_slice(path.name, seconds)
        self._number, self._traced_s = self._number + 1, self._traced_s + seconds
        self._num_bytes += path.stat().st_size
        # The share of the time at which all bytes are used up when the time is over.
        share = min(1.0, _MOST_BYTES / max(self._num_bytes / self._traced_s * self._seconds, 1.0))
        pause_s = seconds * (1 / share - 1)
        self._left_s -= seconds + pause_s
        self._due_s = time.monotonic() + pause_s
        if self._left_s <= 0 or self._num_bytes >= _MOST_BYTES:
            self._hook.remove()
        self._slice = None


class _Slice:
    """A profiler that runs in the thread that made it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._profiler = _profiler()
        self._profiler.start()
        self.start_s = time.monotonic()

    def is_here(self) -> bool:
        """Return True if the profiler runs in this thread."""
        return self._thread == threading.get_ident()

    def write(self, path: Path) -> float:
        """Stop the profiler, write its trace, and return the seconds that it covers."""
        seconds = time.monotonic() - self.start_s
        self._profiler.stop()
        self._profiler.export_chrome_trace(str(path))
        return seconds


def _profiler() -> "profile":
    """Return a profiler of the operators of this thread, and of the kernels if there is a GPU."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    return profile(activities=activities)
