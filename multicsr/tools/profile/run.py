"""The profiled run of a stage: the stage's own code, with recorders in every process of a local Ray."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.execution.profiling import VARIABLE, RecordingRequest, finish_recording
from multicsr.execution.ray_session import lazy_ray_session
from multicsr.observability.progress import Progress
from multicsr.pipeline.full_run import largest_pool, run_step
from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot, current
from multicsr.tools.profile.figures import figures_of
from multicsr.tools.profile.operators import merge_traces
from multicsr.tools.profile.page import page
from multicsr.tools.profile.records import read_processes

STAGES = {
    "ingest": "sentences",
    "generate": "scored",
    "curate": "curated",
    "train": "model",
    "evaluate": "evaluation",
}
"""Stages that can be profiled, with the artifact that each one makes."""
READING, TIMELINE = "reading.md", "timeline.json"
"""Names of the page and of Ray's timeline."""
_QUIET_KINETO = {"KINETO_LOG_LEVEL": "99"}
"""Environment in which torch's profiler does not print that it starts and stops."""


def profile(stage: str, config: Config, out: Path, seconds: float, progress: Progress) -> str:
    """Run a stage, record what its processes do, and write timeline, traces and page into a new folder.

    The results of the stage are kept as after the command of its name, also if it could not be profiled.

    Args:
        stage: a key of `STAGES`.
        config: the configuration of the run.
        out: the folder, which must not exist or be empty. It stays so after an error.
        seconds: longest time of work in which one process is sampled and traced.
        progress: receives the stage.

    Returns:
        The page.

    Raises:
        ConfigError: the stage cannot be profiled here, or the folder has files.
        RunError: the stage failed, or all its work was done before.
    """
    _require_possible(stage, out)
    with _whole_folder(out) as folder, tempfile.TemporaryDirectory(prefix="multicsr-profile-") as records:
        started, started_s, cpu_s = datetime.now(UTC), time.time(), time.process_time()
        request = RecordingRequest(folder=records, seconds=seconds)
        with lazy_ray_session(largest_pool(config), progress.announce):
            with _recording(request):
                run_step(stage, config, progress)
                run = (started_s, time.time())
            driver_cpu_s = time.process_time() - cpu_s
            has_timeline = _write_timeline(folder / TIMELINE)
        snapshot = current(Store.of(config))
        manifest = _made_now(stage, snapshot, started)
        processes = read_processes(Path(records))
        operators = merge_traces(processes, Path(records), folder)
        figures = figures_of(stage, config, manifest, snapshot, processes, operators, run, driver_cpu_s)
        files = sorted(path.name for path in folder.iterdir())
        text = page(figures, files, _notes(stage, config, has_timeline))
        (folder / READING).write_text(text, encoding="utf-8")
    return text


def _require_possible(stage: str, out: Path) -> None:
    """Raise if the stage cannot be profiled here.

    Raises:
        ConfigError: it cannot.
    """
    if stage not in STAGES:
        raise ConfigError(f"STAGE: {stage} cannot be profiled; choose one of {', '.join(STAGES)}")
    if os.environ.get("RAY_ADDRESS"):
        raise ConfigError(
            "RAY_ADDRESS: workers of a running Ray cluster cannot be profiled, because they do not inherit "
            "the order to record; unset RAY_ADDRESS for a local Ray"
        )
    if not sys.platform.startswith("linux"):
        raise ConfigError(f"profile reads clocks of threads that {sys.platform} does not have; use Linux")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: {out} exists and is not an empty folder; name a new one")


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` when the block ends, and is removed if the block fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield part
        part.chmod(0o755)
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _recording(request: RecordingRequest) -> Iterator[None]:
    """Order the recording in the environment of this process and of those that it starts."""
    order = {VARIABLE: request.model_dump_json(), **_QUIET_KINETO}
    before = {name: os.environ.get(name) for name in order}
    os.environ.update(order)
    try:
        yield
    finally:
        finish_recording()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _write_timeline(path: Path) -> bool:
    """Write Ray's timeline and return True; return False if Ray was not started."""
    if "ray" not in sys.modules:
        return False
    import ray

    if not ray.is_initialized():
        return False
    ray.timeline(str(path))
    return True


def _made_now(stage: str, snapshot: Snapshot, started: datetime) -> Manifest:
    """Return the manifest of the artifact that the stage made.

    Raises:
        RunError: the artifact was made before, so that no worker did anything.
    """
    manifest = snapshot.manifest(STAGES[stage])
    if datetime.fromisoformat(manifest.created) < started.replace(microsecond=0):
        before = [*STAGES][: [*STAGES].index(stage)]
        first = f", after {', '.join(before)} with the same --set" if before else ""
        raise RunError(
            f"profile: nothing to profile: the results of {stage} were there before and are reused; to do "
            f"the work anew, profile it in another store: --set store=runs/profiled{first}"
        )
    return manifest


def _notes(stage: str, config: Config, has_timeline: bool) -> list[str]:
    """Return what the profile lacks, and why."""
    notes = []
    if not has_timeline:
        notes.append(f"No {TIMELINE}: this stage ran without Ray.")
    if stage == "generate" and config.llm.engine == "vllm":
        notes.append(
            "vLLM computes in processes of its own, which are not traced: while they do, the actor waits. "
            "The CPU seconds of the actor contain theirs."
        )
    if stage == "generate" and config.llm.engine == "openai":
        notes.append("The endpoint computes elsewhere: while it does, the actor waits.")
    return notes
