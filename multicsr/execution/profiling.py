"""Recording of what the processes of a stage do, for `multicsr profile`.

The command sets the environment variable `VARIABLE`, which the workers that Ray starts inherit. Each process
then appends its records to a file of its own in the folder that the variable names. Without the variable a
look at the environment is all that `loading` and `working` cost.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from multicsr.artifacts import FileRecord
from multicsr.execution.sampling import FunctionSampler, Samples
from multicsr.execution.torch_trace import OperatorTrace

VARIABLE = "MULTICSR_PROFILE"
"""Environment variable with a `RecordingRequest` as JSON."""
DRIVER = "driver"
"""Role of the process of the command."""


class RecordingRequest(FileRecord):
    """The order to record, in the environment of every process."""

    folder: str
    """Directory of this machine for the records of all processes."""
    seconds: float
    """Longest time of work, in seconds, in which one process is sampled and traced."""


class ActivityRecord(FileRecord):
    """A span of time in which a process did one thing. Spans of one process may overlap."""

    kind: Literal["activity"] = "activity"
    what: Literal["ray", "load", "work", "profiler"]
    """Start of Ray, loading of a model, work on an item, start of the profiler."""
    role: str
    start_s: float
    """Beginning in seconds since 1970."""
    end_s: float
    """End in seconds since 1970."""
    cpu_s: float
    """CPU time of the process from its start to the end of the span, in seconds."""
    children_cpu_s: float
    """CPU time of the processes that it has started and that are alive, such as vLLM's, in seconds."""
    done_before: int = 0
    """Number of steps that an earlier process had done when this work began."""


class SamplesRecord(FileRecord):
    """Samples of the functions in which a process was at work."""

    kind: Literal["samples"] = "samples"
    role: str
    seconds: float
    """Time of work that the samples cover, in seconds."""
    waiting_s: float
    """Part of it in which the process waited; see `FunctionSampler`."""
    computed: Mapping[str, float]
    """CPU seconds of each function."""
    waited: Mapping[str, float]
    """Seconds of waiting in each function."""


class TraceRecord(FileRecord):
    """One slice of the trace of torch's operators."""

    kind: Literal["trace"] = "trace"
    role: str
    name: str
    """Name of the file in the folder."""
    seconds: float
    """Wall time that it covers."""


Record = ActivityRecord | SamplesRecord | TraceRecord
record_of: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])
"""Reader of a line of a process's file."""


def loading(role: str) -> AbstractContextManager[None]:
    """Record that this process loads what it works with while the block runs, if it is to be recorded."""
    recorder = _recorder()
    return recorder.activity("load", role) if recorder else nullcontext()


def working(role: str, done_before: int = 0) -> AbstractContextManager[None]:
    """Record the work in the block, with functions and operators, if this process is to be recorded.

    Args:
        role: what the process is for.
        done_before: number of steps that an earlier process has done.
    """
    recorder = _recorder()
    return recorder.work(role, done_before) if recorder else nullcontext()


def tracing() -> AbstractContextManager[None]:
    """Trace the operators of this thread while the block runs; for threads other than that of the work."""
    recorder = _recorder()
    return recorder.tracing() if recorder else nullcontext()


def starting_ray() -> AbstractContextManager[None]:
    """Record that the driver starts Ray while the block runs, if it is to be recorded."""
    recorder = _recorder()
    return recorder.activity("ray", DRIVER) if recorder else nullcontext()


def finish_recording() -> None:
    """End the recording of this process, and forget it."""
    global _current
    if _current is not None:
        _current.finish()
        _current = None


class Recorder:
    """Recorder of one process. Sampling and tracing end when they have covered enough."""

    def __init__(self, request: RecordingRequest) -> None:
        self.request = request
        self._file = Path(request.folder, f"{os.getpid()}.jsonl")
        self._lock = threading.Lock()
        self._num_works = 0
        self._role = ""
        self._sampler: FunctionSampler | None = None
        self._trace: OperatorTrace | None = None

    @contextmanager
    def activity(
        self, what: Literal["ray", "load", "work", "profiler"], role: str, done_before: int = 0
    ) -> Iterator[None]:
        """Record a span of time."""
        start_s = time.time()
        try:
            yield
        finally:
            self._write(
                ActivityRecord(
                    what=what,
                    role=role,
                    start_s=start_s,
                    end_s=time.time(),
                    cpu_s=time.process_time(),
                    children_cpu_s=children_cpu_s(),
                    done_before=done_before,
                )
            )

    @contextmanager
    def work(self, role: str, done_before: int) -> Iterator[None]:
        """Record a span of work; sample and trace the process if it has not been recorded long enough."""
        self._begin(role)
        try:
            with self.activity("work", role, done_before), self.tracing():
                yield
        finally:
            self._end()

    def tracing(self) -> AbstractContextManager[None]:
        """Trace the operators of this thread while the block runs, if this process is traced."""
        return self._trace.here() if self._trace else nullcontext()

    def finish(self) -> None:
        """End sampling and tracing, and write what they have."""
        for each in (self._sampler, self._trace):
            if each is not None:
                each.stop()
        self._write_samples()

    def _begin(self, role: str) -> None:
        with self._lock:
            self._role = role
            if self._sampler is None:
                self._sampler = FunctionSampler(self.request.seconds, self._is_working)
            if self._trace is None and "torch" in sys.modules:
                with self.activity("profiler", role):
                    self._trace = OperatorTrace(
                        self._file.with_suffix(""), self.request.seconds, self._write_slice
                    )
            self._num_works += 1

    def _end(self) -> None:
        with self._lock:
            self._num_works -= 1
            # A worker may be killed when its last item is done, so nothing is kept for later.
            self._write_samples()

    def _is_working(self) -> bool:
        return self._num_works > 0

    def _write_samples(self) -> None:
        samples = self._sampler.take() if self._sampler else Samples()
        if samples.seconds:
            self._write(
                SamplesRecord(
                    role=self._role,
                    seconds=samples.seconds,
                    waiting_s=samples.waiting_s,
                    computed=dict(samples.computed),
                    waited=dict(samples.waited),
                )
            )

    def _write_slice(self, name: str, seconds: float) -> None:
        self._write(TraceRecord(role=self._role, name=name, seconds=seconds))

    def _write(self, record: Record) -> None:
        """Append a record in one write, so that a process that is killed leaves whole lines."""
        with open(self._file, "ab", buffering=0) as file:
            file.write(record_of.dump_json(record) + b"\n")


_current: Recorder | None = None


def _recorder() -> Recorder | None:
    """Return the recorder of this process; None if the process is not to be recorded."""
    global _current
    order = os.environ.get(VARIABLE)
    if order is None:
        return None
    if _current is None:
        _current = Recorder(RecordingRequest.model_validate_json(order))
    return _current


def children_cpu_s() -> float:
    """Return the CPU time in seconds of the living children of this process."""
    ticks = 0
    for listed in Path("/proc/self/task").glob("*/children"):
        for child in listed.read_text().split():
            try:
                fields = Path("/proc", child, "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            ticks += int(fields[11]) + int(fields[12])  # utime and stime; see proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")
