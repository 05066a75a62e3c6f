"""The value of each stage, and of the method against baselines: variants trained with several seeds each."""

from multicsr.tools.ablate.run import ablate

__all__ = ["ablate"]
