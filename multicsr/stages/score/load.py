"""Loader of the scorers that `score.method` names; the only module that knows all of them."""

from collections.abc import Sequence

from multicsr.config import Config
from multicsr.llm.base import Engine
from multicsr.llm.load import load_engine
from multicsr.prompts import load_prompts
from multicsr.stages.score.by_llm import ExpectedScorer, StatedScorer
from multicsr.stages.score.by_package import PackageScorer
from multicsr.stages.score.scorer import Scorer


def load_scoring_engine(config: Config, writer: Engine | None = None) -> Engine | None:
    """Return the engine of the LLM that scores; None if no LLM does.

    Args:
        config: the settings of the run.
        writer: engine of the LLM that writes, which is taken if it also scores; None: there is none here.

    Raises:
        ConfigError: the LLM cannot be loaded as configured.
    """
    if not config.score.uses_llm:
        return None
    if writer is not None and config.scoring_llm == config.llm:
        return writer
    return load_engine(config.model_copy(update={"llm": config.scoring_llm}))


def load_scorers(config: Config, engine: Engine | None) -> Sequence[Scorer]:
    """Return the scorers of `score.method`.

    Args:
        config: the settings of the run.
        engine: what `load_scoring_engine` returned.

    Raises:
        ConfigError: a model or a package cannot be loaded as configured.
    """
    if config.score.uses_encoder:
        return [_model_scorer(config)]
    if engine is None:
        return [PackageScorer(config.score)]
    prompts = load_prompts(config.generate.prompts)
    expected = ExpectedScorer(engine, prompts)
    stated = StatedScorer(engine, prompts, config.score)
    ways: dict[str, list[Scorer]] = {
        "llm_expected": [expected],
        "llm_stated": [stated],
        "both": [expected, stated],
    }
    return ways[config.score.method]


def _model_scorer(config: Config) -> Scorer:
    """Load the encoder or the NLI model, on the device of `llm.device`."""
    import torch

    from multicsr.models.device import choose_device

    torch.set_num_threads(max(1, int(config.generate.cpus_per_actor)))
    device = choose_device(config.llm)
    name, setting = config.scoring_encoder
    if config.score.method == "nli":
        from multicsr.stages.score.by_nli import NliScorer

        return NliScorer(name, device, trust_remote_code=config.scorer_runs_code)
    from multicsr.models.frozen_encoder import FrozenEncoder
    from multicsr.stages.score.by_encoder import EncoderScorer

    encoder = FrozenEncoder(
        name,
        setting,
        device,
        config.scoring_prompt,
        pooling=config.scoring_pooling,
        trust_remote_code=config.scorer_runs_code,
    )
    return EncoderScorer(encoder)
