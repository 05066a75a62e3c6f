"""The figures of a profile, from the records of the processes and the manifest of the artifact."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multicsr.artifacts import LOG, Step, parse_log
from multicsr.config import Config
from multicsr.stages.evaluate.run import read_evaluation
from multicsr.stages.train.loop import WORKER
from multicsr.storage.manifest import Manifest
from multicsr.storage.versions import Snapshot
from multicsr.tools.profile.operators import OperatorTimes
from multicsr.tools.profile.records import ProfiledProcess
from multicsr.tools.profile.time_use import WORK, RoleTime, Span, role_times, wall_parts


@dataclass(frozen=True)
class Amount:
    """An amount of work that the manifest of the artifact has."""

    name: str
    number: float
    seconds: float | None = None
    """Time that the stage itself has measured for it; None: the time in which workers work."""


@dataclass(frozen=True)
class ProfileFigures:
    """All that the page of a profile shows."""

    stage: str
    run: str
    wall: Mapping[str, float]
    """Parts of the wall time in seconds; see `wall_parts`."""
    driver_cpu_s: float
    roles: Sequence[RoleTime]
    amounts: Sequence[Amount]
    training_waits: Mapping[str, float]
    """Seconds in which the training waited, by what for; of other stages none."""
    operators: OperatorTimes
    sampled_s: float
    computed: Counter[str]
    """CPU seconds of each function in the samples."""
    waited: Counter[str]
    """Seconds of waiting in each function in the samples."""

    @property
    def wall_s(self) -> float:
        """Return the wall time of the command in seconds."""
        return sum(self.wall.values())

    @property
    def working_s(self) -> float:
        """Return the wall time in which at least one worker works."""
        return self.wall.get(WORK, 0.0)


def figures_of(
    stage: str,
    config: Config,
    manifest: Manifest,
    snapshot: Snapshot,
    processes: Sequence[ProfiledProcess],
    operators: OperatorTimes,
    run: Span,
    driver_cpu_s: float,
) -> ProfileFigures:
    """Return the figures of a profiled stage.

    Args:
        stage: name of the stage.
        config: the configuration of the run.
        manifest: manifest of the artifact that the stage made.
        snapshot: the version with that artifact.
        processes: the processes that recorded something.
        operators: times of torch's operators.
        run: beginning and end of the stage.
        driver_cpu_s: CPU time of the driver in it.
    """
    samples = [each for process in processes for each in process.samples]
    computed, waited = Counter[str](), Counter[str]()
    for each in samples:
        computed.update(each.computed)
        waited.update(each.waited)
    steps = _steps(manifest, snapshot, processes) if stage == "train" else []
    waits = {
        "batches": sum(step.ingest_wait_s for step in steps),
        "vectors of the mask model": sum(step.mask_wait_s for step in steps),
    }
    return ProfileFigures(
        stage=stage,
        run=config.name,
        wall=wall_parts(processes, run),
        driver_cpu_s=driver_cpu_s,
        roles=role_times(processes),
        amounts=_amounts_of_training(config, steps) if steps else _amounts(stage, manifest, snapshot),
        training_waits=waits if steps else {},
        operators=operators,
        sampled_s=sum(each.seconds for each in samples),
        computed=computed,
        waited=waited,
    )


def _steps(manifest: Manifest, snapshot: Snapshot, processes: Sequence[ProfiledProcess]) -> list[Step]:
    """Return the steps of a training that these processes did; the log has those of earlier ones, too."""
    [log] = [entry for entry in manifest.files if entry.path.endswith(f"/{LOG}")]
    lines = parse_log(snapshot.store.read_verified(log).decode())
    works = [each for process in processes for each in process.activities if each.role == WORKER]
    done_before = min((each.done_before for each in works if each.what == "work"), default=0)
    return [line for line in lines if isinstance(line, Step) and line.step > done_before]


def _amounts_of_training(config: Config, steps: Sequence[Step]) -> list[Amount]:
    """Return the number of steps and triplets."""
    triplets = len(steps) * config.train.global_batch * config.train.accumulate
    seconds = sum(step.seconds for step in steps)
    return [Amount("steps", len(steps), seconds), Amount("triplets", triplets, seconds)]


def _amounts(stage: str, manifest: Manifest, snapshot: Snapshot) -> list[Amount]:
    """Return the work of a stage. Work that was done before the command is not counted where it is known."""
    counters = manifest.counters
    if stage == "generate":
        names = {
            "rows_written": "rows written",
            "rows_scored": "rows scored",
            "generated_tokens": "tokens written",
        }
        return [Amount(words, counters[name]) for name, words in names.items() if name in counters]
    if stage == "evaluate":
        evaluation = read_evaluation(snapshot)
        encoders = evaluation.encoders if evaluation else []
        return [
            Amount(
                "sentences encoded",
                sum(each.num_sentences for each in encoders),
                sum(each.seconds for each in encoders),
            )
        ]
    return [Amount("rows read", manifest.rows_in)]
