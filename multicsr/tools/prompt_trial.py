"""Trial of prompt sets (`multicsr prompts try`): the same few rows, written with each set."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from multicsr.config import Config
from multicsr.execution.ray_session import lazy_ray_session
from multicsr.observability.progress import Progress
from multicsr.pipeline.preflight import require_no_problems
from multicsr.prompts import load_prompts
from multicsr.stages.report.collect import StageSummary
from multicsr.stages.score.intervals import wilson_interval
from multicsr.tools.preview.advice import junk_share, stage
from multicsr.tools.preview.run import STAGES, Preview, preview_sample, read_sample

if TYPE_CHECKING:
    from rich.table import Table

_SAMPLES = 3
"""Number of rows whose hypotheses are shown for each set."""


def try_sets(config: Config, names: Sequence[str], num_rows: int, progress: Progress) -> "TriedSets":
    """Write the same rows with each prompt set.

    Results of the LLM go into the LLM cache of the run, where it finds those of the set that it uses.

    Args:
        config: the configuration of the run; its own prompt set does not matter.
        names: shipped sets or YAML files.
        num_rows: number of sentences of the corpus.
        progress: receives every stage of every set.

    Raises:
        ConfigError: the configuration cannot work, or there is no such set.
        RunError: the LLM fails, or the corpus has no usable sentence.
    """
    for name in names:
        load_prompts(name)
    configs = {name: _with_prompts(config, name) for name in names}
    require_no_problems(STAGES, configs[names[0]])
    corpus = read_sample(config, progress)
    with lazy_ray_session(config.generate.cpus_per_actor, progress.announce):
        return TriedSets(
            {name: preview_sample(each, corpus, num_rows, progress) for name, each in configs.items()}
        )


class TriedSets:
    """Outcomes of the same rows with several prompt sets."""

    def __init__(self, previews: dict[str, Preview]) -> None:
        self._previews = previews

    def figures(self) -> "Table":
        """Return a table with a line for each set."""
        from rich.table import Table

        table = Table(title="Prompt sets", title_justify="left")
        for title in ("set", "rows", "pass", "junk", "junk, 95% interval", "a > b", "most frequent reject"):
            table.add_column(title, justify="left" if title in ("set", "most frequent reject") else "right")
        for name, each in self._previews.items():
            summary = stage(each, "scored")
            junk = junk_share(each)
            low, high = wilson_interval(junk, summary.rows_in)
            separation = each.report.separation
            table.add_row(
                name,
                f"{summary.rows_in}",
                f"{summary.rows_out / summary.rows_in:.0%}",
                f"{junk:.0%}",
                f"{low:.0%} to {high:.0%}",
                f"{separation.share:.0%}" if separation else "",
                _first_reason(summary),
            )
        return table

    def samples(self) -> Iterator[str]:
        """Yield the lines of the first rows, with what each set made of them."""
        rows = {
            name: {row["row_id"]: row for row in each.results.rows.to_pylist()}
            for name, each in self._previews.items()
        }
        sentences = next(iter(self._previews.values())).corpus.usable
        for sentence in sentences.slice(0, _SAMPLES).to_pylist():
            yield f"\n{sentence['text']}"
            for name, by_id in rows.items():
                yield from _row(name, by_id[sentence["row_id"]])


def _with_prompts(config: Config, name: str) -> Config:
    return config.model_copy(update={"generate": config.generate.model_copy(update={"prompts": name})})


def _first_reason(summary: StageSummary) -> str:
    if not summary.rejected:
        return ""
    reason, rows = summary.rejected[0]
    return f"{reason} ({rows})"


def _row(name: str, row: dict[str, object]) -> Iterator[str]:
    """Yield the two hypotheses of a row, and why it was rejected if it was."""
    for side in ("entailment", "contradiction"):
        yield f"  {name:<10} {side:<14} {row[side]}"
    if row["reason"]:
        yield f"  {name:<10} {'rejected':<14} {row['reason']} {row['detail'] or ''}"
