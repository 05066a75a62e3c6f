"""Everything the report shows, read from a store. A room that is not there yet is None, not an error."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import JsonValue, ValidationError

from multicsr.config import CurateConfig
from multicsr.errors import ConfigError, RunError
from multicsr.evaluate import EVALUATION, Evaluation
from multicsr.manifest import Manifest, iter_rejects, iter_tables, read_manifest
from multicsr.prompts import PromptSet, load_prompts
from multicsr.report.seen import PromptCounts, ReasonSamples, Sample, SampledRow, ScoreCounts
from multicsr.report.training import Training, read_training
from multicsr.rows import CURATED, SCORED
from multicsr.store import Store

ROOMS = {"sentences": "Ingest", "scored": "Generate", "curated": "Curate"}
_SEED = 0
_NUM_KEPT, _NUM_PER_REASON = 8, 2


@dataclass(frozen=True)
class StageSummary:
    """One stage in the table: where every row went, and how long it took."""

    title: str
    rows_in: int
    rows_out: int
    rejected: list[tuple[str, int]]
    """(reason, rows), the most frequent first."""
    seconds: float

    @property
    def num_rejected(self) -> int:
        """Rows refused, for whatever reason."""
        return sum(rows for _, rows in self.rejected)

    @property
    def rows_per_s(self) -> float | None:
        """Rows in per second of wall time; None for a stage too short to tell."""
        return self.rows_in / self.seconds if self.seconds > 0.001 else None


@dataclass(frozen=True)
class PromptUse:
    """How often an instruction was drawn, and what became of those rows."""

    kind: str
    index: int
    text: str | None
    kept: int
    rejected: int


@dataclass(frozen=True)
class Rejected:
    """A sampled reject and the stage that refused it."""

    stage: str
    reason: str
    row: SampledRow


@dataclass(frozen=True)
class Report:
    """A run, as far as it has come."""

    store: str
    """Name of the store's folder; the report carries no path of the machine."""
    run: str
    created: str | None
    """When the newest room was made."""
    code_version: str
    stages: list[StageSummary]
    is_curated: bool
    curation: CurateConfig | None
    """Thresholds of the curated room."""
    scores: ScoreCounts
    prompts: list[PromptUse]
    omegas: list[tuple[float, int]]
    kept: list[SampledRow]
    rejected: list[Rejected]
    training: Training | None
    evaluation: Evaluation | None
    settings: list[tuple[str, dict[str, JsonValue]]]
    """(stage, what decided its content)."""
    counters: dict[str, dict[str, float]]
    """Stage -> what it counted: tokens, seconds of its parts."""


def stage_summaries(store: Store) -> list[StageSummary]:
    """The row stages that were completed, in order."""
    return [_summary(ROOMS[room], manifest) for room, manifest in _manifests(store).items() if room in ROOMS]


def read_evaluation(store: Store) -> Evaluation | None:
    """`evaluation.json`; None where there is none. Raises RunError when it is damaged."""
    if not store.exists(EVALUATION):
        return None
    try:
        return Evaluation.model_validate_json(store.read_text(EVALUATION))
    except ValidationError as error:
        raise RunError(f"{store.uri(EVALUATION)} is damaged; run `multicsr evaluate` again") from error


def collect(store: Store) -> Report:
    """Read a store.

    Raises:
        RunError: nothing was made in this store, or a file of it is damaged.
    """
    manifests = _manifests(store)
    if not manifests:
        raise RunError(f"nothing to report in {store.uri()}; run `multicsr run CONFIG` first")
    curation = _curation(manifests.get("curated"))
    seen = _Seen(curation.score if curation else "expected")
    for room, manifest in manifests.items():
        seen.read(store, room, manifest, is_last="curated" not in manifests)
    newest = max(manifests.values(), key=lambda manifest: manifest.created)
    return Report(
        store=PurePosixPath(store.uri()).name,
        run=newest.run,
        created=newest.created,
        code_version=newest.code_version,
        stages=stage_summaries(store),
        is_curated="curated" in manifests,
        curation=curation,
        scores=seen.scores,
        prompts=list(_prompt_uses(seen.prompts, _prompt_set(manifests.get("scored"), seen.prompt_set))),
        omegas=sorted(seen.prompts.omegas.items()),
        kept=seen.kept.rows(),
        rejected=[
            Rejected(ROOMS[room], reason, row)
            for room, samples in seen.rejected.items()
            for reason, row in samples.rows()
        ],
        training=read_training(store),
        evaluation=read_evaluation(store),
        settings=[(ROOMS.get(room, "Train"), manifest.settings) for room, manifest in manifests.items()],
        counters={ROOMS.get(room, "Train"): manifest.counters for room, manifest in manifests.items()},
    )


class _Seen:
    """Accumulators, and which room's rows go into which of them.

    The curated room and its rejects are all scored rows; the scored room itself is read when there is no
    curated one.
    """

    def __init__(self, method: str) -> None:
        self.scores = ScoreCounts(method)
        self.prompts = PromptCounts()
        self.kept = Sample(_NUM_KEPT, _SEED, method)
        self.rejected = {room: ReasonSamples(_NUM_PER_REASON, _SEED, method) for room in ROOMS}
        self.prompt_set: str | None = None

    def read(self, store: Store, room: str, manifest: Manifest, is_last: bool) -> None:
        if room not in ROOMS:
            return
        if room == "curated" or (room == "scored" and is_last):
            columns = [name for name in (CURATED if room == "curated" else SCORED).names if name in _COLUMNS]
            for table in iter_tables(store, manifest, columns):
                self.scores.add(table, kept=True)
                self.prompts.add(table, kept=True)
                self.kept.add(table)
                if table.num_rows:
                    self.prompt_set = table["prompts"][0].as_py()
        for table in iter_rejects(store, manifest):
            self.rejected[room].add(table)
            if room != "sentences":
                self.prompts.add(table, kept=False)
            if room == "curated":
                self.scores.add(table, kept=False)


_COLUMNS = {
    *("row_id", "text", "source", "position", "entailment", "contradiction", "a", "b", "swapped", "omega"),
    *(
        "entailment_prompt",
        "contradiction_prompt",
        "prompts",
        "entailment_expected",
        "contradiction_expected",
    ),
    *("entailment_stated", "contradiction_stated"),
}


def _manifests(store: Store) -> dict[str, Manifest]:
    return {
        room: read_manifest(store, room)
        for room in (*ROOMS, "model")
        if store.exists(f"{room}/manifest.json")
    }


def _summary(title: str, manifest: Manifest) -> StageSummary:
    rejected = sorted(manifest.rejected.items(), key=lambda item: (-item[1], item[0]))
    return StageSummary(title, manifest.rows_in, manifest.rows_out, rejected, manifest.seconds)


def _curation(manifest: Manifest | None) -> CurateConfig | None:
    return None if manifest is None else CurateConfig.model_validate(manifest.settings["curate"])


def _prompt_set(manifest: Manifest | None, name: str | None) -> PromptSet | None:
    """The prompt set by its name, if it is still the one the rows were made with."""
    if manifest is None or name is None:
        return None
    try:
        prompts = load_prompts(name)
    except ConfigError:
        return None
    return prompts if prompts.digest() == manifest.settings.get("prompts") else None


def _prompt_uses(counts: PromptCounts, prompts: PromptSet | None) -> Iterator[PromptUse]:
    pools = {
        "entailment": (counts.entailment, prompts.entailment if prompts else []),
        "contradiction": (counts.contradiction, prompts.contradiction if prompts else []),
    }
    for kind, (drawn, texts) in pools.items():
        for index in sorted({*drawn[True], *drawn[False], *range(len(texts))}):
            text = texts[index] if index < len(texts) else None
            yield PromptUse(kind, index, text, drawn[True][index], drawn[False][index])
