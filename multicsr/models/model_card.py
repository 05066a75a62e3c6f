"""README.md of a trained model."""

import yaml

from multicsr.config import TrainConfig

_CARD = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---

# Sentence encoder trained with MultiCSR

Started from `{encoder}`; parameters after step {best_step:,} of {steps:,}{score}. Compare vectors by cosine.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/directory")
vectors = model.encode(["A sentence.", "Another one."])
```

A sentence's vector is {pooling}.{training} Settings:

```yaml
{settings}```
"""
_POOLING = {
    "cls": "that of its first token",
    "mean": "the mean of its tokens",
    "first_last": "the mean of its tokens over the first and the last layer",
}
_HEAD = " The dense head that training used is not part of the model."
_LORA = " The encoder was trained through low-rank adapters (LoRA), which are merged: peft is not needed."


def model_card(config: TrainConfig, seed: int, steps: int, best_step: int, best_dev: float | None) -> str:
    """Return the model's README: what it is, how to use it, and every setting it was trained with."""
    # A tracking URI can hold a password, and a card is published.
    train = config.model_dump(exclude={"mlflow"})
    return _CARD.format(
        encoder=config.encoder,
        steps=steps,
        best_step=best_step,
        score="" if best_dev is None else f" (dev score {best_dev:.2f} on `{config.dev}`)",
        pooling=_POOLING[config.pooling],
        training=(_HEAD if config.mlp_head else "") + (_LORA if config.lora else ""),
        settings=yaml.safe_dump({"train": train, "seed": seed}, sort_keys=False),
    )
