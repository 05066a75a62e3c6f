"""Find out which artifacts a change of each setting makes anew.

Every setting is changed in turn, and the values that fingerprints are computed from are compared.
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TypeVar

from markdown_text import page, table
from pydantic import BaseModel

from multicsr.config import Config, DeepSpeedConfig, LLMConfig, LoraConfig, TrainConfig, TripletFile
from multicsr.models.resolve import resolve_model
from multicsr.stages.generate.fingerprint import scoring_settings, writing_settings
from multicsr.stages.ingest.run import reading_settings
from multicsr.stages.train.fingerprint import deciding_rows, deciding_settings

M = TypeVar("M", bound=BaseModel)
CHANGED: Mapping[str, object] = MappingProxyType(
    {
        "generate.prompts": "reference",
        "generate.demonstrations.encoder": str(resolve_model("tinylm", "generate.demonstrations.encoder")),
        "llm.vllm.lora": str(resolve_model("tinylm", "llm.model")),
        "score.method": "llm_stated",
        "train.encoder": str(resolve_model("tinylm", "train.encoder")),
        "train.objective": "simcse_sup",
    }
)
"""Other values of settings that must name something that exists."""

TEXTS = {
    frozenset({"sentences"}): ("sentences", "hypotheses and scores of all sentences that were there before"),
    frozenset({"hypotheses"}): ("hypotheses, and so scores", "sentences"),
    frozenset({"hypotheses", "scores"}): ("hypotheses and scores", "sentences"),
    frozenset({"scores"}): ("scores", "sentences, hypotheses"),
    frozenset({"curated"}): ("the decision on every row", "sentences, hypotheses, scores"),
    frozenset({"model"}): ("the model", "all rows"),
    frozenset({"scored", "model"}): (
        "the scored rows out of the LLM cache, and the model",
        "sentences, hypotheses, scores",
    ),
    frozenset({"hypotheses", "model"}): ("hypotheses, and so scores, and the model", "sentences"),
    frozenset({"evaluation"}): ("the evaluation", "all rows, the model"),
    frozenset(): ("nothing", "everything"),
}
"""Artifacts that a setting decides to what a change makes anew and what it keeps, in the order of stages."""


def effects_page() -> str:
    """Return the page of what a change of each setting makes anew and what it keeps."""
    introduction = (
        "This table comes from the code that computes fingerprints: every setting was changed in turn. An "
        "artifact is also made anew when what it is made from changed, in the order sentences, hypotheses, "
        "scores, curated rows, model, evaluation. The LLM is asked only for sentences that it has not done. "
        "Files count by their content too: other bytes of a prompt set, a model or an evaluation file under "
        "the same path are another setting. An input file counts by its bytes, format and name below "
        "`input.paths`. Of a prompt set, a change of the scoring prompts alone makes only the scores anew. "
        "To set `train.mask`, `train.lora` or `generate.demonstrations` to null, or no longer to null, is a "
        "change of all its settings. Where `generate.demonstrations` has no `encoder`, model, pooling and "
        "prompt of `train.mask` decide hypotheses too. With `generate.demonstrations`, `ingest.redact` and "
        "`ingest.max_words` count for labelled texts as well, and with `evaluate.drop_leaks` so do the "
        "evaluation data and `train.dev`: one more labelled triplet that they have, or one less, and all "
        "hypotheses are made anew."
    )
    settings: dict[tuple[str, str], list[str]] = {texts: [] for texts in TEXTS.values()}
    for name, artifacts in effects().items():
        settings[TEXTS[artifacts]].append(f"`{name}`")
    lines = [(*texts, ", ".join(names)) for texts, names in settings.items()]
    return page(
        "What a change of a setting makes anew",
        introduction,
        table(("made anew", "kept", "settings"), lines),
    )


def effects() -> dict[str, frozenset[str]]:
    """Return the artifacts that each setting decides: `sentences`, `hypotheses`, ..., `evaluation`."""
    found = {}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic warns of values that no validator has seen
        shown, other = (_write_triplet(folder, anchor) for anchor in ("It rains.", "It snows."))
        changed = {**CHANGED, "generate.demonstrations.triplets": [TripletFile(path=other)]}
        # They are read for every setting, so they are small: an encoder counts by the bytes of its files.
        (Path(folder) / "model.safetensors").touch()
        config = _every_section({"triplets": shown, "encoder": folder})
        before = _deciding(config)
        for name in _names(config, ""):
            after = _deciding(_changed(config, name.split("."), changed.get(name)))
            found[name] = frozenset(artifact for artifact in before if before[artifact] != after[artifact])
    return found


def _write_triplet(folder: str, anchor: str) -> str:
    """Write a file with one labelled triplet; return its path."""
    path = Path(folder) / f"{anchor}tsv"
    path.write_text(f"anchor\tpositive\tnegative\n{anchor}\tIt is wet.\tIt is dry.\n", encoding="utf-8")
    return str(path)


def _every_section(demonstrations: dict[str, str]) -> Config:
    """Return a configuration that has every optional section, and an engine that needs no files."""
    return Config.model_validate(
        {
            "name": "x",
            "store": "x",
            "input": {"paths": ["x"], "column": "x"},
            "llm": LLMConfig(engine="fake"),
            "generate": {"demonstrations": demonstrations},
            "train": TrainConfig(lora=LoraConfig(), deepspeed=DeepSpeedConfig(), dev="x", merge=[0.5]),
        }
    )


def _deciding(config: Config) -> dict[str, object]:
    """Return what decides the content of each artifact, besides the artifacts before it."""
    files = {"paths": config.input.paths, "format": config.input.format}
    generate = config.generate.model_copy(update={"reject_reasons": []})
    without_rules = config.model_copy(update={"generate": generate})
    filters = config.ingest.model_dump(exclude={"max_rejected"})
    return {
        "sentences": {**reading_settings(config), **filters, **files},
        "hypotheses": writing_settings(config),
        "scores": {
            **scoring_settings(without_rules),
            "reject_reasons": config.generate.reject_reasons,  # with the versions of their packages
        },
        "scored": config.evaluate.drop_leaks,  # with the texts of the labelled sets
        "curated": {**config.curate.model_dump(), "calibrate": config.score.calibrate},
        "model": {
            "seed": config.seed,
            **deciding_settings(config.train),
            **deciding_rows(config),
            "drop_leaks": config.evaluate.drop_leaks,
            "extra_triplets": config.train.extra_triplets,  # by their content
            "keep": config.train.keep,
            "dev": config.train.dev,
        },
        "evaluation": config.evaluate.model_dump(include={"data", "kinds", "baseline"}),
    }


def _names(section: BaseModel, prefix: str) -> Iterator[str]:
    """Yield the name of every setting, those of sections below included."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _changed(section: M, path: list[str], value: object) -> M:
    """Return a copy of a section in which the setting at the path has another value."""
    name, *below = path
    before = getattr(section, name)
    new = _changed(before, below, value) if below else _other(before) if value is None else value
    return section.model_copy(update={name: new})


def _other(value: object) -> object:
    """Return a value of the same type that differs."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case list():
            return [*value, "other"]
        case dict():
            return {**value, "other": "other"}
    return "other"
