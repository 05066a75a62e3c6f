"""Everything the report shows, read from a store. A room that is not there yet is None, not an error."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import JsonValue

from multicsr.config import CurateConfig, MaskConfig
from multicsr.errors import RunError
from multicsr.evaluate import Evaluation, read_evaluation
from multicsr.generate.stage import prompts_of
from multicsr.history import Night, nights
from multicsr.manifest import Manifest, iter_rejects, iter_tables
from multicsr.prompts import PromptSet
from multicsr.report.seen import PromptCounts, ReasonSamples, Sample, SampledRow, ScoreCounts
from multicsr.report.training import Training, read_training
from multicsr.rows import CURATED, SCORED
from multicsr.store import Store
from multicsr.versions import Rooms

ROOMS = {"sentences": "Ingest", "scored": "Generate", "curated": "Curate"}
TITLES = {**ROOMS, "model": "Train"}
_SEED = 0
_NUM_KEPT, _NUM_PER_REASON = 8, 2


@dataclass(frozen=True)
class StageSummary:
    """One stage in the table: where every row went, and how long it took."""

    room: str
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
        """Rows in per second of wall time; None where it says nothing: training sees a row many times."""
        return self.rows_in / self.seconds if self.room in ROOMS and self.seconds > 0 else None


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
    sigma: float | None
    """Of the training's mask; None without one."""
    evaluation: Evaluation | None
    settings: list[tuple[str, JsonValue]]
    """(stage, what decided its content)."""
    counters: dict[str, dict[str, float]]
    """Stage -> what it counted: tokens, seconds of its parts."""
    nights: list[Night]
    """Refreshes of the store, oldest first."""
    engine: "EngineSummary | None"
    """How the LLM ran; None where its engine does not say."""


@dataclass(frozen=True)
class EngineSummary:
    """A vLLM engine, over all actors of the generate stage."""

    tokens_per_s: float
    """Tokens written, by the wall clock."""
    prefix_hit_share: float
    """Of the prompt tokens: found in the prefix cache."""
    ties: int
    """Tokens chosen alone."""
    preemptions: int
    out_of_step: int
    """Pairs that came apart and were written again."""


def stage_summaries(rooms: Rooms) -> list[StageSummary]:
    """The stages that were completed, in order."""
    return [_summary(room, manifest) for room, manifest in _manifests(rooms).items()]


def collect(rooms: Rooms) -> Report:
    """Read a version.

    Raises:
        RunError: nothing was made in this store, or a file of it is damaged.
    """
    store, manifests = rooms.store, _manifests(rooms)
    if not manifests:
        raise RunError(f"nothing to report in {store.uri()}; run `multicsr run CONFIG` first")
    curation = _curation(manifests.get("curated"))
    seen = _Seen(_score_method(manifests.get("scored"), curation))
    for room, manifest in manifests.items():
        seen.read(store, room, manifest, is_last="curated" not in manifests)
    newest = max(manifests.values(), key=lambda manifest: manifest.created)
    return Report(
        store=PurePosixPath(store.uri()).name,
        run=newest.run,
        created=newest.created,
        code_version=newest.code_version,
        stages=[_summary(room, manifest) for room, manifest in manifests.items()],
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
        training=read_training(rooms),
        sigma=_sigma(manifests.get("model")),
        evaluation=read_evaluation(rooms),
        settings=[(TITLES[room], _without_paths(manifest.settings)) for room, manifest in manifests.items()],
        counters={TITLES[room]: manifest.counters for room, manifest in manifests.items()},
        nights=nights(store),
        engine=_engine(manifests.get("scored")),
    )


def _engine(scored: Manifest | None) -> EngineSummary | None:
    if scored is None or "engine_steps" not in scored.counters:
        return None
    counted = scored.counters
    return EngineSummary(
        tokens_per_s=counted["generated_tokens"] / max(scored.seconds, 1e-9),
        prefix_hit_share=counted["prefix_hits"] / max(counted["prefix_queries"], 1),
        ties=int(counted["ties"]),
        preemptions=int(counted["preemptions"]),
        out_of_step=int(counted["out_of_step"]),
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


def _manifests(rooms: Rooms) -> dict[str, Manifest]:
    return {room: rooms.manifest(room) for room in TITLES if room in rooms}


def _summary(room: str, manifest: Manifest) -> StageSummary:
    rejected = sorted(manifest.rejected.items(), key=lambda item: (-item[1], item[0]))
    return StageSummary(room, TITLES[room], manifest.rows_in, manifest.rows_out, rejected, manifest.seconds)


def _curation(manifest: Manifest | None) -> CurateConfig | None:
    rule = None if manifest is None else manifest.settings.get("curate")
    if not isinstance(rule, dict):
        return None
    # A dump names gamma even where the rule has none, which the configuration refuses.
    has_gamma = rule.get("rule") != "reference"
    return CurateConfig.model_validate({name: rule[name] for name in rule if has_gamma or name != "gamma"})


def _score_method(scored: Manifest | None, curation: CurateConfig | None) -> str:
    """The score that decided; before curation, the one that was made."""
    if curation is not None:
        return curation.score
    scoring = None if scored is None else scored.settings.get("scoring")
    made = scoring.get("score") if isinstance(scoring, dict) else None
    return "stated" if isinstance(made, dict) and made.get("method") == "stated" else "expected"


def _sigma(model: Manifest | None) -> float | None:
    train = None if model is None else model.settings.get("train")
    mask = train.get("mask") if isinstance(train, dict) else None
    return MaskConfig.model_validate(mask).sigma if mask is not None else None


def _without_paths(value: JsonValue) -> JsonValue:
    """Settings to show to others: of a local path only its name."""
    if isinstance(value, dict):
        return {name: _without_paths(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_without_paths(child) for child in value]
    is_path = isinstance(value, str) and value.startswith(("/", "~", "file:/"))
    return PurePosixPath(str(value)).name if is_path else value


def _prompt_set(manifest: Manifest | None, name: str | None) -> PromptSet | None:
    return None if manifest is None or name is None else prompts_of(manifest, name)


def _prompt_uses(counts: PromptCounts, prompts: PromptSet | None) -> Iterator[PromptUse]:
    pools = {
        "entailment": (counts.entailment, prompts.entailment if prompts else []),
        "contradiction": (counts.contradiction, prompts.contradiction if prompts else []),
    }
    for kind, (drawn, texts) in pools.items():
        for index in sorted({*drawn[True], *drawn[False], *range(len(texts))}):
            text = texts[index] if index < len(texts) else None
            yield PromptUse(kind, index, text, drawn[True][index], drawn[False][index])
