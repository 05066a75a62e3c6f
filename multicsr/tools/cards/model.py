"""The card of an encoder: that of its training, completed by data, figures, thresholds and limits."""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from multicsr.artifacts import LABELLED_ROWS
from multicsr.config import CardConfig
from multicsr.messages.redaction import redact
from multicsr.models.model_card import Card
from multicsr.stages.evaluate import Evaluation, Score, read_evaluation, read_thresholds
from multicsr.stages.evaluate.thresholds import TaskThresholds
from multicsr.storage.manifest import Manifest
from multicsr.storage.versions import Snapshot
from multicsr.tools.cards.facts import TripletFacts, base_model

_DATA = """## Data

{num_triplets:,} triplets, made of {num_sentences:,} sentences without labels by MultiCSR: for each sentence
an LLM wrote an entailment and a contradiction ({num_generated:,} pairs that could be used), and the triplets
were chosen by their scores. Written by: {llms}.

The encoder was trained on {num_trained:,} triplets{labelled}. Triplets that are held out for the evaluation,
or left out because its tasks hold their texts, are not among them.

The terms or the licence of an LLM may restrict what its output is used for, training other models included.
Check those of {llms} before you publish or sell what was trained on it.
"""
_USE = """## Intended use and limits

Sentences are compared by the cosine of their vectors: search, clustering, duplicates, for text like that
of the training data{languages}.

- People have checked neither the sentences nor what the LLM wrote. Errors and biases of the LLM may be
  learnt.
- Text of other domains, languages or lengths may be encoded worse than by the encoder that training started
  from. Measure it: `multicsr evaluate DIRECTORY --data YOUR_TASKS`.
- A cosine is no probability. Thresholds hold for pairs like those on which they were computed.
"""
_THRESHOLDS = """## Cosine thresholds

The smallest cosine from which on pairs match with a given precision. Which pairs of a set match is stated
with it; they need not mean the same: an entailment follows from its sentence and may mean less. Intervals at
95%; recall is the share of the matching pairs that are found. Precision depends on the share of such pairs,
which is given with each set.
"""
_TASK_TYPE = "sentence-similarity"


def complete_card(
    training_card: str, snapshot: Snapshot, card: CardConfig, datasets: tuple[str, ...] = ()
) -> str:
    """Return the README.md of a version's encoder with all that is known about it.

    Args:
        training_card: README.md that the training wrote.
        snapshot: the version; data, evaluation and thresholds are stated where it has them.
        card: statements of the configuration.
        datasets: Hugging Face ids of the published triplets.

    Raises:
        RunError: the version has no model, or a file is damaged.
    """
    trained = Card.parse(training_card, Path("README.md"))
    triplets = TripletFacts.of(snapshot, card) if "curated" in snapshot else None
    evaluation, thresholds = read_evaluation(snapshot), read_thresholds(snapshot)
    languages = triplets.languages if triplets else card.languages
    model = snapshot.manifest("model")
    stated: dict[str, JsonValue] = {
        "language": [*languages],
        "license": card.license,
        "base_model": base_model(model, card),
        "datasets": [*datasets],
        "model-index": _model_index(model.run, evaluation) if evaluation else None,
    }
    metadata = {**trained.metadata, **{key: value for key, value in stated.items() if value}}
    sections = [
        trained.text.rstrip("\n") + "\n",
        *([_data(triplets, model)] if triplets else []),
        *([_figures(evaluation)] if evaluation else []),
        *([_thresholds(thresholds)] if thresholds else []),
        _USE.format(languages=f" ({', '.join(languages)})" if languages else ""),
        *([] if card.license else ["## Licence\n\nNo licence is stated.\n"]),
    ]
    return redact(Card(metadata, "\n".join(sections)).render())


def _data(triplets: TripletFacts, model: Manifest) -> str:
    labelled = int(model.counters.get(LABELLED_ROWS, 0))
    return _DATA.format(
        num_triplets=triplets.num_triplets,
        num_sentences=triplets.num_sentences,
        num_generated=triplets.num_generated,
        num_trained=model.rows_out,
        labelled=f"; {labelled:,} labelled ones were given besides those of the LLM" if labelled else "",
        llms=", ".join(f"`{llm}`" for llm in triplets.llms) or "an LLM that is not recorded",
    )


def _figures(evaluation: Evaluation) -> str:
    encoders = evaluation.encoders
    rows = [
        (scores[0].task, scores[0].metric, f"{scores[0].num_rows:,}", *map(_figure, scores))
        for scores in zip(*(encoder.main_scores() for encoder in encoders), strict=True)
    ]
    header = ("task", "metric", "rows", *(encoder.label for encoder in encoders))
    return f"## Evaluation\n\nIntervals at 95%.\n\n{_table([header, *rows])}"


def _figure(score: Score) -> str:
    has_interval = score.low is not None and score.high is not None
    return f"{score.value:.2f}" + (f" ({score.low:.2f} to {score.high:.2f})" if has_interval else "")


def _thresholds(found: list[TaskThresholds]) -> str:
    return "\n".join([_THRESHOLDS, *(block for task in found for block in _of_task(task))])


def _of_task(task: TaskThresholds) -> Iterator[str]:
    counts = f"{task.num_pairs:,} pairs, of which {task.num_same:,} match ({task.same})"
    yield f"`{task.task}`: {counts}.\n"
    rows = [
        (
            f"{each.precision:.2f}",
            f"{each.cosine:.3f}",
            _interval(each.cosine_interval),
            _interval(each.precision_interval),
            f"{each.recall:.3f}",
            f"{each.num_pairs:,}",
        )
        for each in task.thresholds
    ]
    if rows:
        yield _table(
            [("precision", "cosine", "its interval", "interval of the precision", "recall", "pairs"), *rows]
        )
    else:
        yield "No precision of these is reached.\n"


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _table(rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table; the first row is the header."""
    header, *others = rows
    lines = [header, ("---",) * len(header), *others]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in lines)


def _model_index(name: str, evaluation: Evaluation) -> list[JsonValue]:
    """Return the figures of the trained encoder as the hub reads them, the metadata `model-index`."""
    results: list[JsonValue] = [
        {
            "task": {"type": _TASK_TYPE, "name": "Sentence similarity"},
            "dataset": {"type": _slug(score.task), "name": score.task},
            "metrics": [{"type": _slug(score.metric), "name": score.metric, "value": round(score.value, 4)}],
        }
        for score in evaluation.encoders[-1].main_scores()
    ]
    return [{"name": name, "results": results}]


def _slug(name: str) -> str:
    """Return a name in small letters, digits and `_`, which the hub takes as a type."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "unnamed"
