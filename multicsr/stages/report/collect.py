"""Content of the report, read from a store.

An artifact that does not exist yet is None, not an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import JsonValue

from multicsr.config import MaskConfig, ScorerName
from multicsr.errors import RunError
from multicsr.rows import CURATED, SCORED
from multicsr.stages.curate.curation import Curation, method_of
from multicsr.stages.curate.separation import Separation
from multicsr.stages.evaluate import Evaluation, read_evaluation
from multicsr.stages.evaluate.leaks import LeaksOfTraining, read_leaks
from multicsr.stages.evaluate.neighbours import Neighbours, read_neighbours
from multicsr.stages.generate.costs import describe_requests
from multicsr.stages.generate.fingerprint import prompts_of
from multicsr.stages.ingest.findings import findings
from multicsr.stages.ingest.leaks import leak_lines
from multicsr.stages.report.lexical_bias import HypothesisSample, LexicalBias
from multicsr.stages.report.statistics import (
    LanguageCounts,
    PromptCounts,
    ReasonSamples,
    Sample,
    SampledRow,
    ScoreCounts,
)
from multicsr.stages.report.training import TrainingReport, read_training
from multicsr.stages.score.scorer import column_of, scorer_named
from multicsr.storage.manifest import Manifest, iter_rejects, iter_tables
from multicsr.storage.refresh_log import RefreshRun, refresh_runs
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot

ROW_TITLES = {"sentences": "Ingest", "scored": "Generate", "curated": "Curate"}
"""Artifacts of rows -> title of the stage that makes them."""
TITLES = {**ROW_TITLES, "model": "Train"}
"""All artifacts in the table of stages -> title of the stage that makes them."""
_SEED = 0
_NUM_KEPT, _NUM_PER_REASON = 8, 2
"""Sizes of the samples of kept rows, and of rejects per reason."""


@dataclass(frozen=True)
class StageSummary:
    """One stage in the table: its counts of rows, and its duration."""

    artifact: str
    title: str
    rows_in: int
    rows_out: int
    rejected: list[tuple[str, int]]
    """Pairs (reason, number of rows), the most frequent reason first."""
    seconds: float
    findings: list[str]
    """Lines about languages, replaced personal data, and rows that labelled sets have too."""

    @property
    def num_rejected(self) -> int:
        """Return the number of rejected rows, for all reasons together."""
        return sum(rows for _, rows in self.rejected)

    @property
    def rows_per_s(self) -> float | None:
        """Return the input rows per second of wall time.

        It is None for training, where it has no meaning because a row is used many times, and for a stage
        that took no time.
        """
        return self.rows_in / self.seconds if self.artifact in ROW_TITLES and self.seconds > 0 else None


@dataclass(frozen=True)
class PromptUse:
    """Number of rows for which an instruction was drawn, kept and rejected."""

    set: str
    """Name of the prompt set, with the language if its prompts are for one."""
    kind: str
    index: int
    text: str | None
    kept: int
    rejected: int


@dataclass(frozen=True)
class LanguageYield:
    """Number of sentences in a language that reached generation, and of those whose triplets were kept."""

    language: str
    read: int
    kept: int


@dataclass(frozen=True)
class Rejected:
    """A sampled reject and the stage that rejected it."""

    stage: str
    reason: str
    row: SampledRow


@dataclass(frozen=True)
class Report:
    """Content of the report of a run, which may be incomplete."""

    store: str
    """Name of the store's folder; the report contains no local path."""
    run: str
    created: str | None
    """Creation time of the newest artifact."""
    code_version: str
    stages: list[StageSummary]
    is_curated: bool
    curation: Curation | None
    """Settings of the artifact `curated`, with any calibration; None before curation."""
    scores: ScoreCounts
    separation: Separation | None
    """Measure of how well the scores tell entailments from contradictions; None before curation."""
    lexical_bias: LexicalBias | None
    """Words of the kept triplets' hypotheses; None before curation and for few rows."""
    prompts: list[PromptUse]
    notes: list[str]
    """Remarks of all stages, such as why a prompt set was chosen."""
    omegas: list[tuple[float, int]]
    languages: list[LanguageYield]
    """Yield of each language, the most frequent one first."""
    kept: list[SampledRow]
    rejected: list[Rejected]
    training: TrainingReport | None
    sigma: float | None
    """Threshold sigma of the training's mask; None without a mask."""
    evaluation: Evaluation | None
    leaks: LeaksOfTraining | None
    """Triplets of the training that labelled sets have too; None if they were not looked for."""
    neighbours: list[Neighbours]
    """Neighbours of held-out premises under each encoder; empty if none were held out."""
    settings: list[tuple[str, JsonValue]]
    """Pairs (stage, settings that decide its content)."""
    counters: dict[str, dict[str, float]]
    """Stage -> its counters, such as tokens and the seconds of its parts."""
    refresh_runs: list[RefreshRun]
    """Refresh runs of the store, oldest first."""
    engine: "EngineSummary | None"
    """Statistics of the LLM engine; None if the engine does not report them."""
    requests: str
    """Requests to an endpoint with their tokens and cost; empty if there were none."""


@dataclass(frozen=True)
class EngineSummary:
    """Statistics of the engines of all actors of the generate stage."""

    tokens_per_s: float
    """Generated tokens per second of wall time."""
    prefix_hit_share: float
    """Share of the prompt tokens that were not read again, in [0, 1]."""
    ties: int
    """Tokens chosen by a hypothesis that ran alone, because the choice was closer than the tie gap."""
    tie_seconds: float
    """Time for which hypotheses waited for such a token, summed over them."""
    preemptions: int
    """Requests that vLLM threw out of its cache."""
    out_of_step: int
    """Pair submissions that were repeated because a member ran without its partner."""


def stage_summaries(snapshot: Snapshot) -> list[StageSummary]:
    """Return a summary of each completed stage, in order."""
    return [_summary(artifact, manifest) for artifact, manifest in _manifests(snapshot).items()]


def collect(snapshot: Snapshot) -> Report:
    """Read the content of the report of a version.

    Raises:
        RunError: the store has no artifact, or one of its files is damaged.
    """
    store, manifests = snapshot.store, _manifests(snapshot)
    if not manifests:
        raise RunError(f"nothing to report in {store.uri()}; run `multicsr run CONFIG` first")
    curation = Curation.stored(manifests.get("curated"))
    statistics = _RowStatistics(_scorer(manifests.get("scored"), curation))
    for artifact, manifest in manifests.items():
        statistics.read(store, artifact, manifest, is_last="curated" not in manifests)
    newest = max(manifests.values(), key=lambda manifest: manifest.created)
    return Report(
        store=PurePosixPath(store.uri()).name,
        run=newest.run,
        created=newest.created,
        code_version=newest.code_version,
        stages=[_summary(artifact, manifest) for artifact, manifest in manifests.items()],
        is_curated="curated" in manifests,
        curation=curation,
        scores=statistics.scores,
        separation=_separation(manifests.get("curated")),
        lexical_bias=statistics.hypotheses.lexical_bias(),
        prompts=list(_prompt_uses(statistics.prompts, manifests.get("scored"))),
        notes=[note for manifest in manifests.values() for note in manifest.notes],
        omegas=sorted(statistics.prompts.omegas.items()),
        languages=[
            LanguageYield(language, read, statistics.languages.kept[language])
            for language, read in sorted(
                statistics.languages.read.items(), key=lambda item: (-item[1], item[0])
            )
        ],
        kept=statistics.kept.rows(),
        rejected=[
            Rejected(ROW_TITLES[artifact], reason, row)
            for artifact, samples in statistics.rejected.items()
            for reason, row in samples.rows()
        ],
        training=read_training(snapshot),
        sigma=_sigma(manifests.get("model")),
        evaluation=read_evaluation(snapshot),
        leaks=read_leaks(snapshot),
        neighbours=read_neighbours(snapshot),
        settings=[
            (TITLES[artifact], _without_paths(manifest.settings)) for artifact, manifest in manifests.items()
        ],
        counters={TITLES[artifact]: manifest.counters for artifact, manifest in manifests.items()},
        refresh_runs=refresh_runs(store),
        engine=_engine(manifests.get("scored")),
        requests=describe_requests(manifests["scored"].counters) if "scored" in manifests else "",
    )


def _engine(scored: Manifest | None) -> EngineSummary | None:
    if scored is None or "prefix_queries" not in scored.counters:
        return None
    counted = scored.counters
    return EngineSummary(
        tokens_per_s=counted.get("generated_tokens", 0.0) / max(scored.seconds, 1e-9),
        prefix_hit_share=counted["prefix_hits"] / max(counted["prefix_queries"], 1),
        ties=int(counted.get("ties", 0)),
        tie_seconds=counted.get("tie_seconds", 0.0),
        preemptions=int(counted.get("preemptions", 0)),
        out_of_step=int(counted.get("out_of_step", 0)),
    )


class _RowStatistics:
    """Accumulators of the report, and the choice of the artifacts that are added to each of them.

    The artifact `curated` and its rejects together contain all scored rows. The artifact `scored` itself is
    read only if there is no `curated` one.
    """

    def __init__(self, scorer: ScorerName) -> None:
        column = column_of(scorer)
        self.columns = {*_COLUMNS, f"entailment_{column}", f"contradiction_{column}"}
        self.scores = ScoreCounts(scorer, column)
        self.prompts = PromptCounts()
        self.languages = LanguageCounts()
        self.kept = Sample(_NUM_KEPT, _SEED, column)
        self.hypotheses = HypothesisSample()
        self.rejected = {artifact: ReasonSamples(_NUM_PER_REASON, _SEED, column) for artifact in ROW_TITLES}

    def read(self, store: Store, artifact: str, manifest: Manifest, is_last: bool) -> None:
        if artifact not in ROW_TITLES:
            return
        if artifact == "curated" or (artifact == "scored" and is_last):
            names = (CURATED if artifact == "curated" else SCORED).names
            columns = [name for name in names if name in self.columns]
            for table in iter_tables(store, manifest, columns):
                self.scores.add(table, kept=True)
                self.prompts.add(table, kept=True)
                self.languages.add(table, kept=True)
                self.kept.add(table)
                if artifact == "curated":
                    self.hypotheses.add(table)
        for table in iter_rejects(store, manifest):
            self.rejected[artifact].add(table)
            if artifact != "sentences":
                self.prompts.add(table, kept=False)
                self.languages.add(table, kept=False)
            if artifact == "curated":
                self.scores.add(table, kept=False)


_COLUMNS = {
    *("row_id", "text", "language", "source", "position", "entailment", "contradiction"),
    *("a", "b", "swapped", "omega", "entailment_prompt", "contradiction_prompt", "prompts"),
}


def _manifests(snapshot: Snapshot) -> dict[str, Manifest]:
    return {artifact: snapshot.manifest(artifact) for artifact in TITLES if artifact in snapshot}


def _summary(artifact: str, manifest: Manifest) -> StageSummary:
    rejected = sorted(manifest.rejected.items(), key=lambda item: (-item[1], item[0]))
    return StageSummary(
        artifact,
        TITLES[artifact],
        manifest.rows_in,
        manifest.rows_out,
        rejected,
        manifest.seconds,
        [*findings(manifest.counters), *leak_lines(manifest.counters)],
    )


def _separation(curated: Manifest | None) -> Separation | None:
    return None if curated is None else Separation.from_counters(curated.counters)


def _scorer(scored: Manifest | None, curation: Curation | None) -> ScorerName:
    """Return the scorer that decided in curation; before curation, the one that scored."""
    if curation is not None:
        return curation.score
    made = scorer_named(method_of(scored.settings) or "") if scored else ""
    return "llm_expected" if made in ("", "both") else made


def _sigma(model: Manifest | None) -> float | None:
    train = None if model is None else model.settings.get("train")
    mask = train.get("mask") if isinstance(train, dict) else None
    return MaskConfig.model_validate(mask).sigma if mask is not None else None


def _without_paths(value: JsonValue) -> JsonValue:
    """Return settings in which every local path is reduced to its last part."""
    if isinstance(value, dict):
        return {name: _without_paths(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_without_paths(child) for child in value]
    is_path = isinstance(value, str) and value.startswith(("/", "~", "file:/"))
    return PurePosixPath(str(value)).name if is_path else value


def _prompt_uses(counts: PromptCounts, scored: Manifest | None) -> Iterator[PromptUse]:
    """Yield the use of every instruction of the sets that rows were written with."""
    pools = {"entailment": counts.entailment, "contradiction": counts.contradiction}
    names = {name for drawn in pools.values() for rows in drawn.values() for name, _ in rows}
    for name in sorted(names):
        prompts = prompts_of(scored, name) if scored else None
        for kind, drawn in pools.items():
            texts: list[str] = getattr(prompts, kind) if prompts else []
            used = {index for rows in drawn.values() for of_set, index in rows if of_set == name}
            for index in sorted({*used, *range(len(texts))}):
                text = texts[index] if index < len(texts) else None
                key = name, index
                yield PromptUse(name, kind, index, text, drawn[True][key], drawn[False][key])
