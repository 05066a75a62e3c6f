"""The learning rate of each step."""

import numpy as np

from multicsr.config import TrainConfig


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Return the learning rate of a step: a linear rise over the warm-up, then `config.schedule`.

    The warm-up is one step ahead of transformers' schedules, which give the first step the rate 0.

    Args:
        step: number of the step, counted from 0.
        steps: number of steps of the run.
        config: the settings of the training.
    """
    warmup_steps = round(config.warmup * steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    left = (steps - step) / (steps - warmup_steps)
    shape = {"constant": 1.0, "linear": left, "cosine": (1 - np.cos(np.pi * left)) / 2}
    return config.learning_rate * float(shape[config.schedule])
