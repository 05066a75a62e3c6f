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

The dense head that training used is not part of the model. Settings:

```yaml
{settings}```
"""


def model_card(config: TrainConfig, seed: int, steps: int, best_step: int, best_dev: float | None) -> str:
    """The model's README: what it is, how to use it, every setting it was trained with."""
    score = "" if best_dev is None else f" (dev score {best_dev:.2f} on `{config.dev}`)"
    settings = yaml.safe_dump({"train": config.model_dump(), "seed": seed}, sort_keys=False)
    return _CARD.format(
        encoder=config.encoder, steps=steps, best_step=best_step, score=score, settings=settings
    )
