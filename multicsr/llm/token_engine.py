"""Common base of the engines that see tokens: from prompts to requests, from tokens to completions."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from multicsr.config import Config
from multicsr.llm.base import Completion, Rejection, Usage, both
from multicsr.llm.label_probabilities import round_probabilities
from multicsr.llm.prompt_tokens import PromptTokens
from multicsr.llm.request import DecodedTokens, HypothesisRequest, SamplingParams
from multicsr.llm.stopping import StopCriteria, bad_word_tokens
from multicsr.prompts import PromptPair, load_prompts
from multicsr.rows import Reason

TIE_GAP = 2e-4
"""Tie gap of greedy choices, in logits.

Measured: batching moves a float32 logit by at most 2e-5, so the gap of Eq. 2 by at most 6e-5."""
DRAW_GAP = 2e-5
"""Tie gap of draws, in logits. A draw compares sums over many tokens: their noise averages to about 1e-6."""
NOT_NUMBERS = Rejection(Reason.ENGINE_ERROR, "the model's logits are not numbers; is llm.dtype too narrow?")


class ModelShape(NamedTuple):
    """Properties of a model that decide how requests are made."""

    vocab_size: int
    eos: int | Sequence[int] | None
    """End-of-sequence tokens in the generation settings of the model."""
    context: int | None
    """Maximum number of tokens of the model; None if positions are not bounded."""
    has_encoder: bool = False


class TokenEngine(ABC):
    """Base class of an `Engine` in terms of token ids.

    Subclasses write requests and compute probabilities.

    Raises:
        ConfigError: `llm.chat_template` is true, but the tokenizer has no chat template.
    """

    batches_at_once = 1
    batch_size: int | None = None
    rows_per_commit: int | None = None

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase, shape: ModelShape) -> None:
        generate = config.generate
        self.usage = Usage()
        self._omega = generate.omega
        exact = config.llm.dtype == "float32"
        self._tie_gap = TIE_GAP if exact else 0.0
        self._rule = SamplingParams(
            max_new_tokens=generate.max_new_tokens,
            temperature=generate.temperature,
            top_p=generate.top_p,
            seed=config.seed,
            tie_gap=DRAW_GAP if exact and generate.temperature > 0 else self._tie_gap,
            min_new_tokens=generate.min_new_tokens,
            bad_words=bad_word_tokens(tokenizer, generate.bad_words),
        )
        stop = load_prompts(generate.prompts).stop
        self._ends = StopCriteria(tokenizer, shape.eos, shape.vocab_size, stop)
        self.tokens = PromptTokens(config.llm, tokenizer, shape.context, has_encoder=shape.has_encoder)

    @abstractmethod
    def _write(
        self, requests: Sequence[HypothesisRequest], rule: SamplingParams
    ) -> Sequence[DecodedTokens | Rejection]:
        """Write every request, in order; `certain` is False in a result whose logits were not numbers."""

    def _write_scores(
        self, requests: Sequence[HypothesisRequest], rule: SamplingParams
    ) -> Sequence[DecodedTokens | Rejection]:
        """Write the reply to every scoring prompt, in order; an engine may constrain its form."""
        return self._write(requests, rule)

    @abstractmethod
    def _probabilities(
        self, prompts: Sequence[list[int]], label_ids: Sequence[int], *, alone: bool
    ) -> Sequence[NDArray[np.float64] | Rejection]:
        """Compute the softmax over the label tokens alone, [L] for each prompt.

        Args:
            alone: True: the numbers must be a function of the prompt only, without other prompts beside it.
        """

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Rejection]:
        """Implement `Engine.generate_pairs`; a row whose prompt exceeds the context is rejected."""
        entailment = self.tokens.encode([pair.entailment for pair in pairs])
        contradiction = self.tokens.encode([pair.contradiction for pair in pairs])
        requests, rejections = [], []
        for e, c, row_id in zip(entailment, contradiction, row_ids, strict=True):
            rejections.append(self.tokens.too_long(max(e, c, key=len), self._rule.max_new_tokens))
            if rejections[-1] is None:
                requests.append(HypothesisRequest(e, c, self._omega, row_id, "entailment"))
                requests.append(HypothesisRequest(c, e, self._omega, row_id, "contradiction"))
        completions = self._complete(requests, self._write(requests, self._rule))
        return [rejection or both(next(completions), next(completions)) for rejection in rejections]

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Rejection]:
        """Implement `Engine.label_probabilities`, rounded to multiples of `PROBABILITY_STEP`.

        A prompt with a probability too close to a rounding edge is computed again alone.
        """
        encoded = self.tokens.encode(prompts)
        label_ids = self.tokens.label_ids(prompts[0], labels) if prompts else []
        rejections = [self.tokens.too_long(prompt, 1) for prompt in encoded]
        fitting = [prompt for prompt, rejection in zip(encoded, rejections, strict=True) if rejection is None]
        self.usage.add(prompt_tokens=sum(map(len, fitting)))
        found = iter(self._rounded(fitting, label_ids))
        return [rejection or next(found) for rejection in rejections]

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Rejection]:
        """Implement `Engine.reply`."""
        rule = SamplingParams(max_new_tokens, 0.0, 1.0, self._rule.seed, self._tie_gap)
        encoded = self.tokens.encode(prompts)
        rejections = [self.tokens.too_long(prompt, max_new_tokens) for prompt in encoded]
        requests = [
            HypothesisRequest(prompt, prompt, 0.0, row_id, "score")
            for prompt, row_id, rejection in zip(encoded, row_ids, rejections, strict=True)
            if rejection is None
        ]
        completions = self._complete(requests, self._write_scores(requests, rule))
        return [rejection or next(completions) for rejection in rejections]

    def _complete(
        self, requests: Sequence[HypothesisRequest], written: Sequence[DecodedTokens | Rejection]
    ) -> Iterator[Completion | Rejection]:
        """Yield the completion of each request, or the reason to reject its row; add to the usage."""
        for request, row in zip(requests, written, strict=True):
            self.usage.add(prompt_tokens=len(request.main))
            if isinstance(row, Rejection):
                yield row
            elif row.certain:
                text, num_tokens = self._ends.text(row.tokens)
                self.usage.add(generated_tokens=num_tokens)
                yield Completion(text, num_tokens, row.finished)
            else:
                yield NOT_NUMBERS

    def _rounded(
        self, prompts: Sequence[list[int]], label_ids: Sequence[int]
    ) -> list[NDArray[np.float64] | Rejection]:
        """Compute rounded label probabilities, [L] for each prompt.

        A prompt for which noise could change the rounded numbers is computed a second time, alone.
        """
        results: list[NDArray[np.float64] | Rejection] = []
        close: list[int] = []
        for i, p_L in enumerate(self._probabilities(prompts, label_ids, alone=False)):
            if isinstance(p_L, Rejection):
                results.append(p_L)
                continue
            rounded_L, is_certain = round_probabilities(p_L, self._tie_gap)
            results.append(rounded_L)
            if not is_certain:
                close.append(i)
        again = self._probabilities([prompts[i] for i in close], label_ids, alone=True)
        for i, p_L in zip(close, again, strict=True):
            if isinstance(p_L, Rejection) or not np.isfinite(p_L).all():
                results[i] = p_L if isinstance(p_L, Rejection) else NOT_NUMBERS
            else:
                results[i], _ = round_probabilities(p_L, 0.0)
        return results
