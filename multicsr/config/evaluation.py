"""Settings of the evaluation, and of the refresh that it decides."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from multicsr.config.corpus import input_place
from multicsr.config.extension_names import check_names
from multicsr.config.section import Count, Fraction, Section
from multicsr.extensions import ExtensionGroup

TASK_KINDS = ExtensionGroup(
    "multicsr.tasks",
    "kind of tasks",
    (
        *("sts", "triplets", "retrieval", "changed meaning", "reranking", "transfer"),
        *("pair classification", "clustering", "positive pairs", "bitext"),
    ),
    is_always_on=True,
)
"""Kinds of evaluation tasks. The columns of a file decide its kind."""


class EvaluateConfig(Section):
    """Settings of the evaluation of the trained encoder."""

    data: list[str] = []
    """Labelled files, by path or URI, or directories of them; names and columns decide the kind of task."""
    kinds: list[str] = []
    """Further kinds of tasks for `data`: those of other packages, by the names of their entry points. They
    are offered the files before those that are built in."""
    baseline: bool = True
    """Also measure the encoder as published, and where training starts from a variant of it (`train.layers`,
    `train.pooling`, `train.prompt`) that variant before training."""
    batch_size: Count = 128
    """Number of sentences encoded at once."""

    drop_leaks: bool = False
    """Reject sentences that `evaluate.data` or `train.dev` has too, exactly or with one word changed:
    premises before they are written for, hypotheses before the training. They are counted in any case."""
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of the premises that are never trained on, chosen by a hash of their id. Their curated triplets
    are a task, `held-out triplets`. It shows whether the encoder learned what the LLM wrote, because the same
    LLM wrote and scored them; it does not show whether the encoder serves its users."""

    @field_validator("kinds")
    @classmethod
    def _kinds_of_packages(cls, names: list[str]) -> list[str]:
        return check_names(TASK_KINDS, names)

    @model_validator(mode="after")
    def _kinds_have_data(self) -> "EvaluateConfig":
        if self.kinds and not self.data:
            raise ValueError("kinds has no effect without evaluate.data")
        return self

    @field_validator("data")
    @classmethod
    def _places(cls, data: list[str]) -> list[str]:
        return [input_place(path) for path in data]


class RefreshConfig(Section):
    """Settings of the incremental refresh."""

    retrain_share: Fraction = 0.02
    """Fraction of curated triplets that must differ from those the model was trained on, to train again."""
    start: Literal["scratch", "last"] = "scratch"
    """Initial encoder: `scratch` is `train.encoder`, `last` the model of the current version."""
    tolerance: Annotated[float, Field(ge=0)] = 0.5
    """Points by which a metric of `evaluate.data` may fall. If one falls more, the previous model stays
    current."""
    tolerances: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Tolerances of single tasks, by name; they replace `tolerance`."""
    best_of: Count = 10
    """Number of previous versions with whose best metrics a new model is compared, so that small losses do
    not add up over many runs; 1: only the current version."""
    max_removed: Fraction = 0.2
    """Maximum fraction of sentences that may be gone from the source; the run fails if it is exceeded, for
    example because a file is missing. If it is intended, run once with `--set refresh.max_removed=1`."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] = 0.0
    """Price of one GPU hour in any currency, for the cost in the refresh log."""
