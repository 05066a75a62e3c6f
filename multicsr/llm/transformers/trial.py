"""Check of a model at load time: it must continue prompts in a batch like each prompt alone.

Decoding needs three properties of an architecture: it keeps keys and values in a cache of transformers'
usual form, padding does not change its output, and a row does not depend on the other rows. State spaces
(Mamba), recurrences (RWKV), permutations (XLNet) and experts of limited capacity (Switch) lack one of them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from multicsr.errors import ConfigError
from multicsr.llm.transformers.kv_cache import Branches

_PROMPTS = ([5, 6, 7], [7, 5, 9, 8, 6, 5, 7])
"""Token ids of two prompts of different length."""
_NEXT = (6, 8)
"""Token that is appended to each prompt."""
_TOLERANCE = 0.05
"""Largest difference, as a share of the range of the logits.

Rounding to bfloat16 changes far less, another prompt far more."""
Reader = Callable[[Sequence[Sequence[int]]], Branches]


@torch.inference_mode()
def check_architecture(read: Reader, architecture: str, name: str) -> None:
    """Raise if a model cannot be decoded in batches.

    Raises:
        ConfigError: the model cannot; the message names model, architecture and setting in one line.
    """
    try:
        together = _logits(read, _PROMPTS, _NEXT)
        alone = [
            _logits(read, [prompt], [token])[:, 0] for prompt, token in zip(_PROMPTS, _NEXT, strict=True)
        ]
    except torch.OutOfMemoryError:
        raise  # a RuntimeError, but unrelated to the architecture
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError, ImportError) as error:
        raise _config_error(architecture, name, "keeps no cache of keys and values") from error
    apart = (together - torch.stack(alone, dim=1)).abs().max()
    if not apart <= _TOLERANCE * (together.max() - together.min()):
        raise _config_error(
            architecture, name, "writes other text for prompts in a batch than for each alone"
        )


def _logits(read: Reader, prompts: Sequence[list[int]], tokens: Sequence[int]) -> Tensor:
    """Compute the logits after each prompt and after one more token, [2, P, V]."""
    branches = read(prompts)
    branches.fork(range(len(prompts)))
    tokens_P = torch.tensor(tokens, device=branches.first_PV.device)
    # NaN logits are not caused by the architecture; decoding rejects the rows that have them.
    return torch.stack([branches.first_PV, branches.step(tokens_P)]).nan_to_num()


def _config_error(architecture: str, name: str, why: str) -> ConfigError:
    """Return the error for an architecture that cannot be decoded in batches."""
    return ConfigError(
        f"llm.model: {name} has the architecture {architecture}, which {why}; take a decoder-only or "
        "encoder-decoder transformer"
    )
