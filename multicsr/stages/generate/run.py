"""Stage `generate`: from sentences to scored triplets. The LLM gets only rows that it has not done yet.

planning    in tasks: find the missing rows of each file of sentences and cut them into shards
retrieval   with `generate.demonstrations`, in actors with P: embed the labelled premises
writing     in actors with the LLM: write every shard to files of the LLM cache; each put commits its rows
assembling  in tasks: join the sentences with the LLM cache and write the files of the artifact `scored`

A row on which the engine failed has no result: it is not in the LLM cache, it is a reject of the assembled
artifact, and it changes the fingerprint of that artifact. The next run looks for the artifact without such
rows, does not find it, and asks for them again.
"""

import logging
from dataclasses import replace

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError, DamagedFileError, RunError
from multicsr.execution.materialise import Artifact, complete, reuse
from multicsr.execution.shard_report import StageTotals
from multicsr.llm.prompt_choice import with_chosen_prompts
from multicsr.observability.progress import Progress
from multicsr.prompts import load_prompts
from multicsr.rows import Reason
from multicsr.stages.generate.assembling import CONTRACT, assemble_files
from multicsr.stages.generate.calibrate import calibrate
from multicsr.stages.generate.costs import budget_spent, summarise
from multicsr.stages.generate.fingerprint import result_settings
from multicsr.stages.generate.llm_cache import CacheKey, LLMCache
from multicsr.stages.generate.planning import plan_files
from multicsr.stages.generate.repeated import REPETITION_RULE
from multicsr.stages.generate.retrieval.labelled import (
    SETTING,
    LabelledPremises,
    read_labelled_premises,
)
from multicsr.stages.generate.retrieval.prepare import prepare_demonstrations
from multicsr.stages.generate.writing import llm_pool, write_shards
from multicsr.stages.ingest.leaks import Leaks, report_leaks
from multicsr.stages.ingest.overlap import KnownTexts
from multicsr.storage.collected import unused
from multicsr.storage.manifest import Contents, Manifest, add_digests, fingerprint
from multicsr.storage.store import SCHEMA_VERSION
from multicsr.storage.versions import Snapshot

_log = logging.getLogger(__name__)


def generate(
    config: Config, snapshot: Snapshot, progress: Progress, known: KnownTexts | None = None
) -> Manifest:
    """Write and score two hypotheses for every sentence (MultiCSR Eq. 1-3).

    Args:
        config: the configuration.
        snapshot: the fingerprints of the artifacts, which name the sentences.
        progress: receives the rows that are done.
        known: texts of the labelled sets. Sentences that they have too are reported and, with
            `evaluate.drop_leaks`, become rejects without being written for.

    Raises:
        ConfigError: the LLM, its prompts or the labelled triplets cannot work as configured.
        RunError: too many rows are rejected, rows are lost, a worker died repeatedly, or the disk is full.
    """
    store, sentences = snapshot.store, snapshot.manifest("sentences")
    config, notes = named_prompts(config, progress)
    dropped = known if config.evaluate.drop_leaks else None
    labelled = labelled_premises(config, known)
    settings = unused(store, _settings(config, sentences, dropped, labelled))
    calibrate(config, store, settings, progress)
    artifact = Artifact(store, CONTRACT.name, CONTRACT.artifact, config.name, settings, notes=notes)
    if made := reuse(artifact, progress):
        return made
    progress.start("generate", sentences.rows_out)
    report_labelled(config, labelled, progress)
    cache_key, before = CacheKey.of(settings).writable(store), scored_before(snapshot)
    plans = plan_files(config, store, LLMCache(store, cache_key, before), sentences, known)
    num_cached = sum(plan.num_cached for plan in plans)
    num_done = num_cached + sum(plan.num_dropped for plan in plans)
    leaks = sum((plan.leaks for plan in plans), Leaks())
    report_leaks(
        "generate",
        f"{sentences.rows_out:,} premises",
        leaks.counters(),
        dropped is not None,
        progress,
        leaks.samples,
    )
    progress.skip(num_done)
    if num_done < sentences.rows_out:
        how = "in batches, which may take a day" if config.llm.batch else "which loads first"
        progress.announce(f"{sentences.rows_out - num_done:,} rows for {config.llm.model}, {how}")
    totals, new = (
        StageTotals("generate", config.generate.max_rejected, sentences.rows_out) for _ in range(2)
    )
    totals.count(rows_reused=num_cached, rows_written=0, rows_scored=0, **leaks.counters())
    failed, num_failed, unpaid = [], 0, []
    todo = [todo for plan in plans for todo in plan.todo]
    pool = llm_pool(config, config.generate.actors)
    shown = prepare_demonstrations(config, store, labelled if todo else None, pool, progress)
    for shard in write_shards(config, store, cache_key, todo, dropped, shown):
        new.add(shard.report)  # raises if too many rows are rejected
        totals.count(worker_seconds=shard.report.seconds, **shard.report.counters)
        progress.advance(shard.report.rows_in)
        failed.append(shard.failed)
        num_failed += shard.num_failed
        unpaid += [shard.unpaid] if shard.unpaid else []
    if unpaid:
        raise budget_spent(config.llm, totals.counters, unpaid[0])
    if num_failed:
        settings = unused(store, settings | {"failed": add_digests(failed)})
        artifact = replace(artifact, settings=settings)
    for report in assemble_files(
        store, LLMCache(store, cache_key, before), sentences, artifact.folder, dropped
    ):
        totals.add(report)
    contents = totals.contents()
    _check_failed(contents, num_failed)
    return complete(replace(artifact, summarise=summarise), contents, progress)


def named_prompts(config: Config, progress: Progress) -> tuple[Config, tuple[str, ...]]:
    """Return the configuration with a named prompt set, and the remark on it if it was chosen here."""
    chosen, choice = with_chosen_prompts(config)
    if choice is None:
        return chosen, ()
    progress.start("prompts", None)
    progress.finish(str(choice))
    return chosen, (str(choice),)


def labelled_premises(config: Config, known: KnownTexts | None) -> LabelledPremises | None:
    """Read the labelled premises that are shown to the LLM.

    Args:
        config: the configuration.
        known: texts of the labelled sets that are measured on; with `evaluate.drop_leaks`, triplets that they
            have are left out.

    Returns:
        The labelled premises; None if prompts have no demonstrations.

    Raises:
        ConfigError, RunError: see `read_labelled_premises`; or the prompt set cannot show any.
    """
    if config.generate.demonstrations is None:
        return None
    require_questions(config)
    return read_labelled_premises(
        config.generate.demonstrations, config.ingest, known, drop_leaks=config.evaluate.drop_leaks
    )


def report_labelled(config: Config, labelled: LabelledPremises | None, progress: Progress) -> None:
    """Report the labelled triplets that labelled sets have, and those that are too long to be shown.

    Args:
        config: the configuration.
        labelled: the labelled premises; None: prompts have no demonstrations.
        progress: receives a line for those that are left out.
    """
    if labelled is None:
        return
    if labelled.num_long:
        progress.announce(
            f"{labelled.num_long:,} triplets of {SETTING} have a text of more than {config.ingest.max_words} "
            "words (ingest.max_words); they are not shown"
        )
    leaks, is_dropped = labelled.leaks, config.evaluate.drop_leaks
    rows = f"{leaks.num_rows:,} triplets of {SETTING}"
    report_leaks("generate", rows, leaks.counters(), is_dropped, progress, leaks.samples, "are not shown")


def require_questions(config: Config) -> None:
    """Raise if labelled hypotheses are no answers to the prompts of a named prompt set.

    Raises:
        ConfigError: the prompts ask to fill masked words.
    """
    if load_prompts(config.generate.prompts).masks_words:
        raise ConfigError(
            f"generate.demonstrations: the prompt set {config.generate.prompts} asks to fill masked words, "
            "and no labelled hypothesis is an answer to that; take another one, or leave demonstrations out"
        )


def scored_before(snapshot: Snapshot) -> Manifest | None:
    """Return the manifest of the current version's scored rows, which serve as LLM cache, too.

    Return None if there is none, or if it is damaged.
    """
    if CONTRACT.artifact not in snapshot:
        return None
    try:
        return snapshot.manifest(CONTRACT.artifact)
    except DamagedFileError as error:
        _log.warning("%s; its rows are read from the LLM cache only", error)
        return None


def _settings(
    config: Config,
    sentences: Manifest,
    dropped: KnownTexts | None = None,
    labelled: LabelledPremises | None = None,
) -> dict[str, JsonValue]:
    """Return the settings that decide the content of the scored artifact.

    The ids of the sentences represent all that generation depends on, so a source file that was only touched
    does not make the LLM write again.

    Args:
        config: the configuration.
        sentences: manifest of the sentences.
        dropped: texts of the labelled sets whose leaks are dropped; None: none are.
        labelled: the labelled premises that are shown to the LLM; None: none are.
    """
    return {
        **result_settings(config, labelled),
        "repeated": REPETITION_RULE,
        "schema": SCHEMA_VERSION,
        "sentences": sentences.rows_digest,
        "files": fingerprint({"rows": [entry.rows for entry in sentences.files]}),
        **({} if dropped is None else {"leaks": dropped.digest()}),
    }


def _check_failed(contents: Contents, num_failed: int) -> None:
    """Raise if rows are missing in the LLM cache other than those on which the engine failed.

    Raises:
        RunError: the number of missing rows differs from `num_failed`.
    """
    missing = contents.rejected.get(Reason.ENGINE_ERROR, 0)
    if missing != num_failed:
        raise RunError(
            f"generate: {missing - num_failed:,} rows are not in the LLM cache; run the command again"
        )
