"""README.md of a trained model: a card in the format of the Hugging Face hub."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import JsonValue

from multicsr.artifacts import Merges
from multicsr.config import TrainConfig
from multicsr.errors import ConfigError
from multicsr.models.resolve import MINILM

_TEXT = """# Sentence encoder trained with MultiCSR

Started from `{encoder}`; parameters after step {best_step:,} of {steps:,}{score}.{merges} Compare vectors by
cosine.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/directory")
vectors = model.encode(["A sentence.", "Another one."]{prompt})
```

A sentence's vector is {pooling}.{training} Settings:

```yaml
{settings}```
"""
_POOLING = {
    None: "made by the same modules as that of the encoder it started from",
    "cls": "that of its first token",
    "mean": "the mean of its tokens",
    "first_last": "the mean of its tokens over the first and the last layer",
    "last_token": "that of its last token",
}
_HEAD = " The dense head that training used is not part of the model."
_LORA = " The encoder was trained through low-rank adapters (LoRA), which are merged: peft is not needed."
_TAGS: list[JsonValue] = ["sentence-transformers", "sentence-similarity", "feature-extraction", "multicsr"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FENCE = "---\n"
"""Line before and after the metadata of a card."""


@dataclass(frozen=True)
class Card:
    """A README.md as the hub reads it: metadata in YAML, then Markdown."""

    metadata: dict[str, JsonValue]
    text: str

    @classmethod
    def parse(cls, content: str, place: Path) -> "Card":
        """Split a README.md; metadata are empty if it has none.

        Args:
            content: content of the file.
            place: path of the file, for messages.

        Raises:
            ConfigError: the metadata are not valid YAML.
        """
        content = content.removeprefix("\ufeff").replace("\r\n", "\n")
        front, fence, text = content.removeprefix(_FENCE).partition(f"\n{_FENCE}")
        if not content.startswith(_FENCE) or not fence:
            return cls({}, content)
        try:
            metadata = yaml.safe_load(front) or {}
        except yaml.YAMLError as error:
            raise ConfigError(f"{place}: the metadata at the top are not valid YAML; correct them") from error
        if not isinstance(metadata, dict):
            raise ConfigError(f"{place}: the metadata at the top are no mapping; correct them")
        return cls(metadata, text.lstrip("\n"))

    def render(self) -> str:
        """Return the content of the README.md."""
        metadata = yaml.safe_dump(self.metadata, sort_keys=False, allow_unicode=True)
        return f"{_FENCE}{metadata}{_FENCE}\n{self.text}"


def model_card(
    config: TrainConfig,
    seed: int,
    steps: int,
    best_step: int,
    best_dev: float | None,
    merges: Merges | None = None,
) -> str:
    """Return the model's README: what it is, how to use it, and every setting it was trained with."""
    # A tracking URI can hold a password, and a card is published.
    train = config.model_dump(mode="json", exclude={"mlflow"})
    base = hub_id(config.encoder)
    metadata: dict[str, JsonValue] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": _TAGS,
        **({"base_model": base} if base else {}),
    }
    text = _TEXT.format(
        encoder=config.encoder,
        steps=steps,
        best_step=best_step,
        score="" if best_dev is None else f" (dev score {best_dev:.2f} on `{config.dev}`)",
        merges=f" {merges.sentence()}" if merges else "",
        prompt=f", prompt={config.prompt!r}" if config.prompt else "",
        pooling=_POOLING[config.pooling],
        training=(_HEAD if config.mlp_head else "") + (_LORA if config.lora else "") + _prompt(config),
        settings=yaml.safe_dump({"train": train, "seed": seed}, sort_keys=False),
    )
    return Card(metadata, text).render()


def hub_id(name: str) -> str | None:
    """Return the Hugging Face id of a model, given by its name in a configuration; None for a directory."""
    if name == MINILM:
        return f"sentence-transformers/{MINILM}"
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _prompt(config: TrainConfig) -> str:
    return f" Training put `{config.prompt}` before every sentence." if config.prompt else ""
