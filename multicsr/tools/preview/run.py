"""The preview itself: the stages' own functions on a sample, with artifacts in a store that is thrown away.

Only the results of the LLM go into the store of the run, into its LLM cache, where the run finds them. No
version is published and no lease is taken, so that a job that runs at the same time is not disturbed.
"""

import tempfile
from dataclasses import dataclass

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.execution.materialise import Artifact, complete
from multicsr.execution.ray_session import lazy_ray_session
from multicsr.execution.shard_report import ShardReport, StageTotals, count_reasons
from multicsr.execution.stage_runner import PartShard, work_on, write_rejects
from multicsr.observability.progress import Progress, SilentProgress
from multicsr.pipeline.preflight import require_no_problems
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.run import curate_settings, curate_stage, nothing_left
from multicsr.stages.curate.thresholds import with_absolute_thresholds
from multicsr.stages.generate.assembling import assemble_shard
from multicsr.stages.generate.calibrate import calibrate
from multicsr.stages.generate.few import FewResults, write_few
from multicsr.stages.generate.run import named_prompts
from multicsr.stages.report.collect import Report, collect
from multicsr.storage.manifest import Manifest, rows_digest
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot
from multicsr.tools.preview.sample import CorpusSample, sample_corpus

STAGES = ("ingest", "generate", "curate")
"""Stages that a preview goes through."""
_PART = "part-000000"


@dataclass(frozen=True)
class Preview:
    """Outcome of a preview."""

    config: Config
    corpus: CorpusSample
    results: FewResults
    report: Report
    """Content of the report of a run that has nothing but the sample."""
    curation: Curation | None
    """Settings with the thresholds that were applied; None if there are none that `keep_share` asks for."""
    problem: str
    """Error with which curation would end; empty if there is none."""


def preview(config: Config, num_rows: int, progress: Progress) -> Preview:
    """Put a few rows of the corpus through reading, writing, scoring and curation.

    Args:
        config: the configuration of the run.
        num_rows: number of sentences for the LLM; fewer if the sample has fewer.
        progress: receives every stage.

    Raises:
        ConfigError: the configuration cannot work.
        RunError: no record of the sample is usable, or a file or the LLM fails.
    """
    if config.train.rows == "sentences":
        raise ConfigError("train.rows: sentences asks no LLM, so there is nothing to preview; run it")
    require_no_problems(STAGES, config)
    config, _ = named_prompts(config, progress)
    corpus = read_sample(config, progress)
    with lazy_ray_session(config.generate.cpus_per_actor, progress.announce):
        return preview_sample(config, corpus, num_rows, progress)


def read_sample(config: Config, progress: Progress) -> CorpusSample:
    """Read a sample of the corpus.

    Raises:
        ConfigError: the configured files, formats or columns do not exist.
        RunError: no record of the sample is usable, all sentences are dropped as leaks, or a file cannot be
            read.
    """
    progress.start("read", None, "records")
    corpus = sample_corpus(config)
    num_read = len(corpus.sentences) + len(corpus.rejects)
    progress.finish(f"{num_read:,} records of {corpus.num_files:,} of {corpus.files_in_all:,} files")
    if not len(corpus.sentences):
        reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in count_reasons(corpus.rejects).items())
        raise RunError(
            f"ingest: none of the first {num_read:,} records is usable: {reasons or 'there are none'}; see "
            "ingest.min_words, ingest.max_words and input.column"
        )
    if not len(corpus.usable):
        raise RunError(
            f"evaluate.drop_leaks: labelled data have all {len(corpus.sentences):,} sentences of the sample, "
            "and the run would write nothing for them; give it other input.paths or evaluate.data"
        )
    return corpus


def preview_sample(config: Config, corpus: CorpusSample, num_rows: int, progress: Progress) -> Preview:
    """Put the first rows of a sample through writing, scoring and curation.

    Args:
        config: the configuration of the run, with a named prompt set.
        corpus: the sample.
        num_rows: see `preview`.
        progress: likewise.

    Raises:
        ConfigError: the LLM or its prompts cannot work as configured.
        RunError: the LLM fails.
    """
    results = write_few(config, corpus.usable.slice(0, num_rows), progress, corpus.known)
    progress.finish(f"{len(results.rows):,} rows, {results.num_reused:,} of them from before")
    calibrate(config, Store.of(config), results.settings, progress)
    with tempfile.TemporaryDirectory(prefix="multicsr-preview-") as folder:
        return _curated(config, corpus, results, Store.open(folder))


def _curated(config: Config, corpus: CorpusSample, results: FewResults, scratch: Store) -> Preview:
    """Write the artifacts of the sample into a store, curate it, and collect the outcome."""
    manifests = {"sentences": _sentences(config, corpus, scratch)}
    manifests["scored"] = _scored(config, corpus, results, scratch)
    curation, problem = None, ""
    try:
        curation = Curation.of(config, Store.of(config), manifests["scored"])
        curation = with_absolute_thresholds(curation, scratch, manifests["scored"])
        manifests["curated"] = _decided(config, curation, scratch, manifests["scored"])
        if manifests["curated"].rows_out == 0:
            raise nothing_left(curation, manifests["curated"], scratch, manifests["scored"])
    except RunError as error:
        problem = str(error)
    snapshot = Snapshot(scratch, {name: manifest.fingerprint for name, manifest in manifests.items()})
    return Preview(config, corpus, results, collect(snapshot), curation, problem)


def _sentences(config: Config, corpus: CorpusSample, scratch: Store) -> Manifest:
    """Write the artifact `sentences` of the records that were read."""
    artifact = _artifact(config, scratch, "ingest", "sentences", {})
    rows, folder = corpus.sentences, artifact.folder
    report = ShardReport(
        key=_PART,
        rows_in=len(rows) + len(corpus.rejects),
        rows_out=len(rows),
        rejected=count_reasons(corpus.rejects),
        rows_digest=rows_digest(rows["row_id"]),
        files=[scratch.write_table(f"{folder}/rows/{_PART}.parquet", rows)],
        reject_files=write_rejects(scratch, folder, _PART, corpus.rejects),
    )
    return _completed(artifact, report)


def _scored(config: Config, corpus: CorpusSample, results: FewResults, scratch: Store) -> Manifest:
    """Write the artifact `scored` of the sentences that the LLM got."""
    artifact = _artifact(config, scratch, "generate", "scored", results.settings)
    sentences = corpus.usable.slice(0, len(results.rows))
    entry = scratch.write_table(f"sample/{_PART}.parquet", sentences)
    report = assemble_shard(scratch, artifact.folder, PartShard(entry), results.rows)
    return _completed(artifact, report)


def _decided(config: Config, curation: Curation, scratch: Store, scored: Manifest) -> Manifest:
    """Write the artifact `curated`."""
    stage = curate_stage(curation, scratch, scored)
    artifact = _artifact(config, scratch, "curate", "curated", curate_settings(curation, scored))
    report = work_on(stage, scratch, artifact.folder, PartShard(scored.files[0]), stage.make())
    return _completed(artifact, report)


def _artifact(
    config: Config, scratch: Store, stage: str, kind: str, settings: dict[str, JsonValue]
) -> Artifact:
    return Artifact(scratch, stage, kind, config.name, settings)


def _completed(artifact: Artifact, report: ShardReport) -> Manifest:
    """Write the manifest of an artifact of one shard; no share of rejects is too large for a preview."""
    totals = StageTotals(artifact.stage, 1.0, report.rows_in)
    totals.add(report)
    return complete(artifact, totals.contents(), SilentProgress())
