"""Check of a model at load time: its cache must be right, and a batch like each prompt alone.

Decoding needs four properties of an architecture: it keeps keys and values in a cache of transformers'
usual form, it writes with this cache what it writes without, padding does not change its output, and a row
does not depend on the other rows. State spaces (Mamba), recurrences (RWKV), permutations (XLNet), experts of
limited capacity (Switch) and ProphetNet, whose cache is wrong in transformers, lack one of them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from multicsr.errors import ConfigError
from multicsr.llm.transformers.kv_cache import Branches, first_token
from multicsr.llm.transformers.shared_prefix import MIN_PREFIX

_PROMPTS = ([5, 6, 7], [7, 5, 9, 8, 6, 5, 7])
"""Token ids of two prompts of different length."""
_NEXT = ((6, 8), (8, 5))
"""Tokens that are appended to each prompt, one a step."""
_ALIKE = tuple(
    [*(5 + i % 5 for i in range(MIN_PREFIX)), *(9 - i % 4 for i in range(length))]
    for length in (1, 2, 4, 8, 24)
)
"""Token ids of prompts that begin alike."""
_TOLERANCE, _HALF_TOLERANCE = 0.002, 0.05
"""Largest difference as a share of the range of the logits, in float32 and in half precision.

Rounding changes far less, another prompt far more. ProphetNet's cache changes 1 to 25 %."""
Reader = Callable[[Sequence[Sequence[int]]], Branches]


@torch.inference_mode()
def check_architecture(read: Reader, model: PreTrainedModel, name: str) -> None:
    """Raise if a model cannot be decoded in batches.

    Args:
        read: reader of prompts for this model.
        model: the model.
        name: value of `llm.model`.

    Raises:
        ConfigError: the model cannot; the message names model, architecture and setting in one line.
    """
    architecture = type(model).__name__
    try:
        together = _logits(read, _PROMPTS, _NEXT)
        alone = [_logits(read, [prompt], [tokens]) for prompt, tokens in zip(_PROMPTS, _NEXT, strict=True)]
        uncached = [
            _logits_without_cache(model, prompt, tokens)
            for prompt, tokens in zip(_PROMPTS, _NEXT, strict=True)
        ]
    except torch.OutOfMemoryError:
        raise  # a RuntimeError, but unrelated to the architecture
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError, ImportError) as error:
        raise _config_error(architecture, name, "keeps no cache of keys and values") from error
    tolerance = _TOLERANCE if model.dtype == torch.float32 else _HALF_TOLERANCE
    if _differ(together, torch.cat(alone, dim=1), tolerance):
        raise _config_error(
            architecture, name, "writes other text for prompts in a batch than for each alone"
        )
    if _differ(torch.cat(alone, dim=1), torch.cat(uncached, dim=1), tolerance):
        raise _config_error(
            architecture, name, "writes other text with its cache of keys and values than without"
        )


@torch.inference_mode()
def can_share_prefixes(shared: Reader, whole: Reader, model: PreTrainedModel) -> bool:
    """Return whether prompts that begin alike may be read with one reading of their common prefix.

    A model that takes the distance of two tokens from their places in the cache must read each prompt whole.

    Args:
        shared: reader of prompts for this model that shares prefixes.
        whole: one that does not.
        model: the model.
    """
    tokens = [_NEXT[0]] * len(_ALIKE)
    try:
        together, apart = _logits(shared, _ALIKE, tokens), _logits(whole, _ALIKE, tokens)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError):
        return False  # its context is too short, or its cache has another form
    tolerance = _TOLERANCE if model.dtype == torch.float32 else _HALF_TOLERANCE
    return not _differ(together, apart, tolerance)


def _differ(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Return whether logits differ by more than this share of their range."""
    apart = (found - expected).abs().max()
    return not bool(apart <= tolerance * (found.max() - found.min()))


def _logits(read: Reader, prompts: Sequence[list[int]], tokens: Sequence[Sequence[int]]) -> Tensor:
    """Compute the logits after each prompt and after each of its S next tokens, [1 + S, P, V]."""
    branches = read(prompts)
    branches.fork(range(len(prompts)))
    steps = [torch.tensor(step, device=branches.first_PV.device) for step in zip(*tokens, strict=True)]
    # NaN logits are not caused by the architecture; decoding rejects the rows that have them.
    return torch.stack([branches.first_PV, *(branches.step(step_P) for step_P in steps)]).nan_to_num()


def _logits_without_cache(model: PreTrainedModel, prompt: list[int], tokens: Sequence[int]) -> Tensor:
    """Compute the same for one prompt, each by a pass over the whole text, [1 + S, 1, V]."""
    found = []
    for count in range(len(tokens) + 1):
        if model.config.is_encoder_decoder:
            texts = {"input_ids": prompt, "decoder_input_ids": [first_token(model), *tokens[:count]]}
        else:
            texts = {"input_ids": [*prompt, *tokens[:count]]}
        inputs = {name: torch.tensor([ids], device=model.device) for name, ids in texts.items()}
        found.append(model(**inputs, use_cache=False).logits[:, -1].float())
    return torch.stack(found).nan_to_num()


def _config_error(architecture: str, name: str, why: str) -> ConfigError:
    """Return the error for an architecture that cannot be decoded in batches."""
    return ConfigError(
        f"llm.model: {name} has the architecture {architecture}, which {why}; take a decoder-only or "
        "encoder-decoder transformer"
    )
