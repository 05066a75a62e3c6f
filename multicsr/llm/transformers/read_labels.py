"""Log-probabilities of the tokens of score labels, and of the likeliest ones; each prompt is read once.

Shapes: N prompts, R rows, V vocabulary, K paths of the tree.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multicsr.llm.label_tree import LabelTree, TokenPath
from multicsr.llm.transformers.decode import Reader


@torch.inference_mode()
def read_labels(read: Reader, prompts: Sequence[Sequence[int]], tree: LabelTree) -> list[NDArray[np.float64]]:
    """Compute the log-probability of the last token of each path after each prompt.

    A prompt has one row for each prefix that is not empty; the prefixes are appended token by token.

    Args:
        read: reads prompts with the model.
        prompts: token ids of N prompts.
        tree: of the labels.

    Returns:
        [K] for each prompt.
    """
    branches = read(prompts)
    device = branches.first_PV.device
    found: dict[TokenPath, Tensor] = {(): _log_p(branches.first_PV, tree, ())}
    num_prompts = len(prompts)
    growing = tree.prefixes[:0:-1]  # the longest ones first, so that the rows to keep stand first
    if growing:
        branches.fork([prompt for _ in growing for prompt in range(num_prompts)])
    length = 0
    while growing:
        tokens = [prefix[length] for prefix in growing for _ in prompts]
        logits_RV = branches.step(torch.tensor(tokens, device=device))
        length += 1
        for i, prefix in enumerate(growing):
            if len(prefix) == length:
                logits_NV = logits_RV[i * num_prompts : (i + 1) * num_prompts]
                found[prefix] = _log_p(logits_NV, tree, prefix)
        growing = [prefix for prefix in growing if len(prefix) > length]
        if growing:
            branches.keep(torch.arange(len(growing) * num_prompts, device=device))
    log_p_NK = torch.cat([found[prefix] for prefix in tree.prefixes], dim=1)
    return list(log_p_NK.cpu().numpy())


@torch.inference_mode()
def read_top(
    read: Reader, prompt: Sequence[int], tokens: Sequence[int], count: int
) -> list[dict[int, float]]:
    """Implement `TokenEngine.top_log_probabilities`."""
    branches = read([prompt])
    branches.fork([0])
    logits_1V, found = branches.first_PV, []
    for position, token in enumerate(tokens):
        if position:
            logits_1V = branches.step(torch.tensor([tokens[position - 1]], device=logits_1V.device))
        log_p_V = logits_1V[0].double().log_softmax(dim=0)
        top = log_p_V.topk(min(count, len(log_p_V)))
        found.append(dict(zip(top.indices.tolist(), top.values.tolist(), strict=True)))
        found[-1].setdefault(token, log_p_V[token].item())
    return found


def _log_p(logits_NV: Tensor, tree: LabelTree, prefix: TokenPath) -> Tensor:
    """Return the log-probabilities of the tokens that are read after a prefix, one column for each."""
    total_N1 = logits_NV.logsumexp(dim=1, keepdim=True)
    return logits_NV[:, tree.tokens_after(prefix)].double() - total_N1
