"""Labels of a model for natural language inference, found by their names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from multicsr.errors import ConfigError

_SETTING = "score.model"
_REMEDY = (
    "it needs entailment, and contradiction with or without neutral, or not_entailment; take a model for "
    "natural language inference, or write these names into id2label of its config.json"
)


class NliLabels(NamedTuple):
    """Numbers of the labels among the outputs of a model."""

    entailment: int
    neutral: int | None
    """None for a model with two labels."""


def nli_labels(name: str, id2label: Mapping[int, str]) -> NliLabels:
    """Find the labels of a model.

    Args:
        name: name of the model, for the message.
        id2label: names of the outputs, from the model's configuration.

    Raises:
        ConfigError: the labels are not those of natural language inference.
    """
    kinds = {number: _kind(label) for number, label in id2label.items()}
    if sorted(kinds.values()) in (
        ["contradiction", "entailment", "neutral"],
        ["contradiction", "entailment"],
    ):
        number = {kind: index for index, kind in kinds.items()}
        return NliLabels(number["entailment"], number.get("neutral"))
    raise ConfigError(f"{_SETTING}: {name} has the labels {', '.join(id2label.values())}; {_REMEDY}")


def check_labels_in(folder: Path, name: str) -> None:
    """Raise if a model directory states that its labels are not those of natural language inference.

    Raises:
        ConfigError: they are not, or config.json cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        labels = {int(number): str(label) for number, label in config.get("id2label", {}).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{_SETTING}: cannot read config.json of {name}: {error}") from error
    nli_labels(name, labels or {number: f"LABEL_{number}" for number in range(2)})


def _kind(label: str) -> str:
    """Return the meaning of a label: `not_entailment`, the second of two labels, counts as contradiction."""
    lowered = label.lower()
    if lowered.startswith(("not", "non")) and "entail" in lowered:
        return "contradiction"
    for kind, stem in (("entailment", "entail"), ("neutral", "neutral"), ("contradiction", "contradict")):
        if stem in lowered:
            return kind
    return lowered
