"""Trial of a running engine: are its logits a function of the prompt, to the last bit?

With one thread on a CPU, vLLM's kernels add in an order that does not depend on the other rows of a step: not
on their number, not on what the prefix cache holds, and not on whether a token was read with its prompt or
written. Then no choice can depend on the batch, nothing has to be decided alone, and `tie_gap` is 0. This is
a property of machine, build and model, which nobody promises, so it is tried when the engine starts.
"""

import asyncio
from collections.abc import Sequence

from multicsr.llm.request import SamplingParams
from multicsr.llm.vllm.launch import EngineAnswer, RowFailed, TokenRequest, Vllm
from multicsr.llm.vllm.pair_metadata import PairMetadata, PairRole, Sentinels

_LENGTHS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65, 129, 257, 600)
"""Lengths of the prompts: around the numbers of rows at which kernels change, and of a few-shot prompt."""
LONGEST_TRIAL_S = 60.0
"""Seconds after which a trial counts as failed, so that a large model starts no later for it."""
_NUM_WRITTEN = 4
"""Number of tokens that are written after every prompt."""
_NUM_PROBED = 16
"""Number of tokens whose log-probabilities are compared."""
_STRIDE = 7919
"""Distance between the tokens of the prompt: a prime, so that they differ."""


async def is_batch_invariant(engine: Vllm, vocab_size: int, sentinels: Sentinels) -> bool:
    """Return True if the trial ends within `LONGEST_TRIAL_S` and finds the same bits everywhere.

    A request that vLLM could not answer ends the trial: the engine then decides close choices alone.

    Args:
        engine: a running engine that has no other requests.
        vocab_size: number of logits of the model.
        sentinels: sentinel tokens of the engine.

    Raises:
        WorkerLost: the engine has died.
    """
    try:
        async with asyncio.timeout(LONGEST_TRIAL_S):
            return await _have_same_bits(engine, vocab_size, sentinels)
    except (TimeoutError, RowFailed):
        return False


async def _have_same_bits(engine: Vllm, vocab_size: int, sentinels: Sentinels) -> bool:
    """Return True if log-probabilities are the same bits alone, batched, on cached prefixes, and written."""
    probed = tuple(sorted({i * vocab_size // _NUM_PROBED for i in range(_NUM_PROBED)}))
    text = [(1 + i * _STRIDE) % vocab_size for i in range(max(_LENGTHS))]
    prompts = [text[:n] for n in _LENGTHS if n + _NUM_WRITTEN <= engine.max_model_len]
    rule = SamplingParams(1, temperature=0.0, top_p=1.0, seed=0, tie_gap=0.0)
    metadata = PairMetadata("", PairRole.SINGLE, 0.0, rule, sentinels, alone=True)
    read = TokenRequest(1, logprobs_of=probed)
    read_alone = TokenRequest(1, metadata, logprobs_of=probed)
    write = TokenRequest(_NUM_WRITTEN, logprobs_of=probed)

    async def together(asked: TokenRequest) -> list[EngineAnswer]:
        return await asyncio.gather(*(engine.complete(prompt, asked) for prompt in prompts))

    async def one_by_one(prompts: Sequence[Sequence[int]], asked: TokenRequest) -> list[EngineAnswer]:
        return [await engine.complete(prompt, asked) for prompt in prompts]

    def numbers(answers: Sequence[EngineAnswer]) -> list[list[float]]:
        return [[answer.logprobs[token] for token in probed] for answer in answers]

    alone = numbers(await one_by_one(prompts, read_alone))
    if numbers(await together(read)) != alone or numbers(await one_by_one(prompts, read)) != alone:
        return False
    written = await together(write)
    texts = [[*prompt, *answer.tokens[:-1]] for prompt, answer in zip(prompts, written, strict=True)]
    return numbers(written) == numbers(await one_by_one(texts, read_alone))
