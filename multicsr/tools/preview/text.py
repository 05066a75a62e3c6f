"""The preview as lines of text: counts, samples, figures, advice."""

from collections.abc import Iterator

from multicsr.config import CurateConfig
from multicsr.messages.triplet_lines import triplet_lines
from multicsr.stages.ingest.leaks import sets_of
from multicsr.stages.report.collect import Rejected, StageSummary
from multicsr.stages.report.lexical_bias import MIN_ROWS, LexicalBias, WordUse
from multicsr.stages.report.statistics import SampledRow
from multicsr.stages.score.intervals import wilson_interval
from multicsr.tools.preview.advice import advice, junk_share, stage
from multicsr.tools.preview.run import Preview

_WORDS_SHOWN = 5


def lines(preview: Preview) -> Iterator[str]:
    """Yield the lines in the order in which they are read: samples first, advice last."""
    yield "Kept triplets"
    yield from _triplets(preview)
    yield "Rejected"
    yield from _rejected(preview.report.rejected)
    yield "Yield"
    for summary in preview.report.stages:
        yield _yield(summary)
    yield _files(preview)
    yield from _leaks(preview)
    if (ratio := preview.config.curate.max_word_ratio) is not None:
        yield (
            f"  curate.max_word_ratio {ratio:g} rejects more in a run: so few rows show few words of one side"
        )
    yield "\nFigures"
    yield from _figures(preview)
    found = advice(preview)
    yield "\nAdvice" if found else "\nNo figure is bad."
    yield from (f"  {line}" for line in found)


def _triplets(preview: Preview) -> Iterator[str]:
    if preview.problem or not preview.report.kept:
        yield "  none\n"
        return
    for row in preview.report.kept:
        yield from _triplet(row)


def _triplet(row: SampledRow) -> Iterator[str]:
    return triplet_lines(row.text, row.entailment, row.contradiction, row.a, row.b)


def _rejected(rejected: list[Rejected]) -> Iterator[str]:
    if not rejected:
        yield "  none\n"
    for each in rejected:
        detail = f": {each.row.detail}" if each.row.detail else ""
        yield f"  {each.stage.lower()}, {each.reason}{detail}"
        yield from _triplet(each.row)


def _yield(summary: StageSummary) -> str:
    share = summary.rows_out / max(summary.rows_in, 1)
    reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in summary.rejected)
    return (
        f"  {summary.title.lower():<9} {summary.rows_in:>6,} in, {summary.rows_out:>6,} kept ({share:.0%})"
        f"{f'; rejected: {reasons}' if reasons else ''}"
    )


def _files(preview: Preview) -> str:
    corpus = preview.corpus
    read = f"{corpus.num_files:,} of {corpus.files_in_all:,} files were read, from their start"
    return (
        f"  {'all records were read' if corpus.is_whole else read}; "
        f"{len(preview.results.rows):,} of {len(corpus.usable):,} sentences went to the LLM"
    )


def _leaks(preview: Preview) -> Iterator[str]:
    """Yield the number of sentences that labelled sets have, and samples, if there are any."""
    leaks = preview.corpus.leaks
    if not leaks.num_leaked:
        return
    yield (
        f"  {leaks.num_leaked:,} of {leaks.num_rows:,} sentences are in labelled data: "
        f"{', '.join(sets_of(leaks.counters()))}; "
        + (
            "they are left out, and a run rejects them as leaked"
            if preview.config.evaluate.drop_leaks
            else "--drop-leaks of `multicsr run` leaves them out"
        )
    )
    yield from (f"    {sample}" for sample in leaks.samples)


def _figures(preview: Preview) -> Iterator[str]:
    generate = stage(preview, "scored")
    junk = junk_share(preview)
    low, high = wilson_interval(junk, generate.rows_in)
    yield _figure("junk", f"{junk:.0%} of the rows (95% interval {low:.0%} to {high:.0%})")
    separation = preview.report.separation
    yield _figure("scores", str(separation) if separation else "no row has both scores")
    if preview.curation is not None:
        yield _figure("thresholds", _thresholds(preview.curation, preview.config.curate.keep_share))
    yield from _work(preview)
    yield from _words(preview.report.lexical_bias)


def _figure(name: str, value: str) -> str:
    return f"  {name:<13} {value}"


def _thresholds(limits: CurateConfig, share: float | None) -> str:
    names = ("alpha", "beta", "gamma") if limits.rule == "paper" else ("alpha", "beta")
    values = ", ".join(f"{name} {getattr(limits, name):g}" for name in names)
    return values if share is None else f"{values}, by curate.keep_share {share:g}"


def _work(preview: Preview) -> Iterator[str]:
    """Yield the tokens of a row, and its time if rows were written now."""
    tokens = [each for each in preview.results.rows["generated_tokens"].to_pylist() if each is not None]
    written = preview.results.counters.get("rows_written", 0)
    parts = [f"{sum(tokens) / len(tokens):.1f} written"] if tokens else []
    if written and (prompts := preview.results.counters.get("prompt_tokens")):
        parts.append(f"{prompts / written:,.1f} of prompts")
    if parts:
        yield _figure("tokens a row", ", ".join(parts))
    if written:
        counters = preview.results.counters
        seconds = counters.get("generate_seconds", 0) + counters.get("score_seconds", 0)
        yield _figure("time a row", f"{seconds / written:.2f} s, without the start of the LLM")


def _words(bias: LexicalBias | None) -> Iterator[str]:
    if bias is None:
        yield _figure("lexical bias", f"measured from {MIN_ROWS} kept rows on; see --rows")
        return
    yield _figure("lexical bias", f"AUC {bias.auc:.2f} on {bias.num_rows:,} kept rows; 0.5 is none")
    for name, words in (
        ("entailments", bias.entailment_words),
        ("contradictions", bias.contradiction_words),
    ):
        if words:
            yield _figure("", f"words of {name}: {', '.join(map(_word, words[:_WORDS_SHOWN]))}")


def _word(use: WordUse) -> str:
    return f"{use.word} ({use.entailments}:{use.contradictions})"
