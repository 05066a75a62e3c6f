"""Advice where a figure of the preview is bad: one line each, which names the setting to change."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.rows import Reason
from multicsr.stages.curate.separation import Separation
from multicsr.stages.generate.hypothesis_rules import JUDGED
from multicsr.stages.ingest.words import count_words
from multicsr.stages.report.collect import StageSummary
from multicsr.tools.preview.run import Preview

_JUNK = frozenset({*JUDGED, Reason.REPEATED_HYPOTHESIS})
"""Reasons that follow from the texts of hypotheses: what the LLM wrote is no usable sentence."""
_MANY = 0.1
"""Share of the records or rows above which one reason is worth a line of advice."""
_MUCH_JUNK = 0.2
_FEW_KEPT = 0.1
"""Share of the scored rows below which curation wastes most of what the LLM wrote."""
_WANTED_SHARE = 0.95
"""Share of the too long records that the proposed `ingest.max_words` would admit."""


def advice(preview: Preview) -> list[str]:
    """Return a line for every figure that is bad, in the order of the stages."""
    return [line for look in _LOOKS for line in look(preview)]


def stage(preview: Preview, artifact: str) -> StageSummary:
    """Return the counts of the stage that makes an artifact.

    Raises:
        KeyError: the preview did not get so far.
    """
    return {each.artifact: each for each in preview.report.stages}[artifact]


def junk_share(preview: Preview) -> float:
    """Return the share of the rows whose hypotheses are no usable sentences, for rules of packages too."""
    return share_of(stage(preview, "scored"), *_JUNK, *preview.config.generate.reject_reasons)


def share_of(summary: StageSummary, *reasons: str) -> float:
    """Return the share of a stage's rows that were rejected for one of these reasons."""
    rows = sum(rows for reason, rows in summary.rejected if reason in reasons)
    return rows / max(summary.rows_in, 1)


def expected_triplets(preview: Preview) -> float:
    """Return the number of triplets that the sentences of the sample would give at the yield of its rows."""
    rows_in, rows_out = stage(preview, "scored").rows_in, stage(preview, "curated").rows_out
    return len(preview.corpus.usable) * rows_out / max(rows_in, 1)


def _engine(preview: Preview) -> Iterator[str]:
    if preview.config.llm.engine == "fake":
        yield (
            "llm.engine is fake: texts and scores are made up, to try the stages without an LLM; no figure "
            "of hypotheses means anything"
        )


def _lengths(preview: Preview) -> Iterator[str]:
    ingest, limits = stage(preview, "sentences"), preview.config.ingest
    if (share := share_of(ingest, Reason.TOO_LONG)) > _MANY:
        words = sorted(map(count_words, _texts(preview.corpus.rejects, Reason.TOO_LONG)))
        enough = words[int(_WANTED_SHARE * (len(words) - 1))]
        split = "" if preview.config.input.documents else ", or input.documents: true, which splits them"
        yield (
            f"{share:.0%} of the records have more than {limits.max_words} words: set ingest.max_words, to "
            f"{enough} for nearly all of them{split}"
        )
    short = _texts(preview.corpus.rejects, Reason.TOO_SHORT)
    if (share := len(set(short)) / max(ingest.rows_in, 1)) > _MANY:  # greetings and headings repeat
        yield f"{share:.0%} of the records have fewer than {limits.min_words} words: lower ingest.min_words"


def _records(preview: Preview) -> Iterator[str]:
    ingest = stage(preview, "sentences")
    if (share := share_of(ingest, Reason.WRONG_LANGUAGE)) > _MANY:
        yield (
            f"{share:.0%} of the records are not in ingest.language {preview.config.ingest.language}: "
            "correct it, or leave the filter off (ingest.language_filter)"
        )
    damage = (Reason.MALFORMED, Reason.UNDECODABLE, Reason.CONTROL_CHARACTERS)
    if (share := share_of(ingest, *damage)) > _MANY:
        yield f"{share:.0%} of the records are damaged: look at input.format and input.column"
    yield from _would_end(ingest, "ingest", preview.config.ingest.max_rejected)


def _writing(preview: Preview) -> Iterator[str]:
    generate = stage(preview, "scored")
    if (share := junk_share(preview)) > _MUCH_JUNK:
        yield (
            f"{share:.0%} of what the LLM writes is junk: take other generate.prompts, or a larger or "
            "instruction-tuned llm.model"
        )
    if (share := share_of(generate, Reason.UNFINISHED_HYPOTHESIS)) > _MANY:
        yield (
            f"{share:.0%} of the rows are cut off at {preview.config.generate.max_new_tokens} tokens: raise "
            "generate.max_new_tokens"
        )
    if (share := share_of(generate, Reason.WRONG_LANGUAGE)) > _MANY:
        yield (
            f"{share:.0%} of the rows have a hypothesis in another language: take generate.prompts in the "
            "language of the corpus"
        )
    if (share := share_of(generate, Reason.PROMPT_TOO_LONG)) > _MANY:
        yield (
            f"{share:.0%} of the prompts do not fit into the LLM's context: lower ingest.max_words, or take "
            "shorter generate.prompts"
        )
    if (share := share_of(generate, Reason.ENGINE_ERROR, Reason.LLM_REFUSED)) > _MANY:
        yield f"{share:.0%} of the rows got no answer of the LLM: see the rejects above and the section llm"
    if (share := share_of(generate, Reason.SCORE_UNPARSABLE)) > _MANY:
        yield f"{share:.0%} of the stated scores cannot be read: set score.method to llm_expected"
    yield from _would_end(generate, "generate", preview.config.generate.max_rejected)


def _would_end(summary: StageSummary, name: str, limit: float) -> Iterator[str]:
    """Yield a line if a stage rejects so many rows that a run would end."""
    if summary.num_rejected > limit * summary.rows_in:
        yield (
            f"{name} rejects {summary.num_rejected / summary.rows_in:.0%}, and a run would end at "
            f"{name}.max_rejected {limit:g}"
        )


def _scores(preview: Preview) -> Iterator[str]:
    separation = preview.report.separation
    if separation is None or not separation.is_chance:
        return
    if _is_above(separation):
        yield (
            f"{separation.num_rows} rows are too few to tell the scores from chance: look at more with --rows"
        )
    else:
        yield (
            "the scores do not tell entailments from contradictions: take a larger llm.model, other "
            "generate.prompts or another score.method"
        )


def _is_above(separation: Separation) -> bool:
    """Return True if a is above b in clearly more than half of the rows, though they may be too few."""
    return separation.share > 0.6


def _kept(preview: Preview) -> Iterator[str]:
    if preview.problem:
        yield preview.problem
        return
    curate = stage(preview, "curated")
    if curate.rows_out < _FEW_KEPT * curate.rows_in:
        yield (
            f"curation keeps {curate.rows_out} of {curate.rows_in} rows: set curate.keep_share, or other "
            "thresholds (curate.alpha, beta, gamma)"
        )
    expected, batch = expected_triplets(preview), preview.config.train.global_batch
    num_sentences = len(preview.corpus.usable)
    if preview.corpus.is_whole and expected < batch:
        yield (
            f"a run would keep some {expected:,.0f} triplets of all {num_sentences:,} sentences, and "
            f"cannot fill a batch: set train.global_batch {batch} lower, or add records"
        )


def _bias(preview: Preview) -> Iterator[str]:
    bias = preview.report.lexical_bias
    if bias is not None and bias.is_strong:
        yield (
            f"words alone tell contradictions from entailments (AUC {bias.auc:.2f}): an encoder may learn "
            "the words; lower generate.omega, take other generate.prompts, or set curate.max_word_ratio"
        )


def _texts(rejects: pa.Table, reason: Reason) -> list[str]:
    return [
        text or "" for text in rejects.filter(pc.equal(rejects["reason"], reason.value))["text"].to_pylist()
    ]


_LOOKS: tuple[Callable[[Preview], Iterator[str]], ...] = (
    _engine,
    _lengths,
    _records,
    _writing,
    _scores,
    _kept,
    _bias,
)
"""Functions that look at the figures, in the order of the stages."""
