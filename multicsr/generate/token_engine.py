"""What the engines that see tokens have in common: from prompts to requests, from tokens to completions."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from multicsr.config import Config
from multicsr.generate.ends import Ends, bad_word_tokens
from multicsr.generate.engine import Completion, Refusal, Usage, both
from multicsr.generate.hypothesis import Request, Rule, Written
from multicsr.generate.tokens import PromptTokens
from multicsr.prompts import PromptPair, load_prompts
from multicsr.rows import Reason
from multicsr.score.expected import round_probabilities

TIE_GAP = 2e-4
"""Logits. Measured: batching moves a float32 logit by at most 2e-5, so the gap of Eq. 2 by at most 6e-5."""
DRAW_GAP = 2e-5
"""The same for draws, which compare sums over many tokens: the noise there averages to about 1e-6."""
NOT_NUMBERS = Refusal(Reason.ENGINE_ERROR, "the model's logits are not numbers; is llm.dtype too narrow?")


class ModelShape(NamedTuple):
    """What must be known of a model to put words into it."""

    vocab_size: int
    eos: int | Sequence[int] | None
    """As its generation settings have it."""
    context: int | None
    """Most tokens it can take; None where positions are not bounded."""
    has_encoder: bool = False


class TokenEngine(ABC):
    """An `Engine` in terms of token ids. Subclasses write requests and read probabilities.

    Raises:
        ConfigError: a chat template is asked for and absent.
    """

    batches_at_once = 1
    batch_size: int | None = None

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase, shape: ModelShape) -> None:
        generate = config.generate
        self.usage = Usage()
        self._omega = generate.omega
        exact = config.llm.dtype == "float32"
        self._tie_gap = TIE_GAP if exact else 0.0
        self._rule = Rule(
            max_new_tokens=generate.max_new_tokens,
            temperature=generate.temperature,
            top_p=generate.top_p,
            seed=config.seed,
            tie_gap=DRAW_GAP if exact and generate.temperature > 0 else self._tie_gap,
            min_new_tokens=generate.min_new_tokens,
            bad_words=bad_word_tokens(tokenizer, generate.bad_words),
        )
        stop = load_prompts(generate.prompts).stop
        self._ends = Ends(tokenizer, shape.eos, shape.vocab_size, stop)
        self.tokens = PromptTokens(config.llm, tokenizer, shape.context, has_encoder=shape.has_encoder)

    @abstractmethod
    def _write(self, requests: Sequence[Request], rule: Rule) -> Sequence[Written | Refusal]:
        """Every request, in order."""

    def _write_scores(self, requests: Sequence[Request], rule: Rule) -> Sequence[Written | Refusal]:
        """Every reply to a scoring prompt, in order; an engine that can hold them to a form does."""
        return self._write(requests, rule)

    @abstractmethod
    def _probabilities(
        self, prompts: Sequence[list[int]], label_ids: Sequence[int], *, alone: bool
    ) -> Sequence[NDArray[np.float64] | Refusal]:
        """Softmax over the label tokens alone, [L] a prompt; `alone`: as a function of the prompt only."""

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Refusal]:
        entailment = self.tokens.encode([pair.entailment for pair in pairs])
        contradiction = self.tokens.encode([pair.contradiction for pair in pairs])
        requests, refusals = [], []
        for e, c, row_id in zip(entailment, contradiction, row_ids, strict=True):
            refusals.append(self.tokens.too_long(max(e, c, key=len), self._rule.max_new_tokens))
            if refusals[-1] is None:
                requests.append(Request(e, c, self._omega, row_id, "entailment"))
                requests.append(Request(c, e, self._omega, row_id, "contradiction"))
        completions = self._complete(requests, self._write(requests, self._rule))
        return [refusal or both(next(completions), next(completions)) for refusal in refusals]

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Refusal]:
        """Rounded to multiples of `PROBABILITY_STEP`; a prompt that is too close to call is read alone."""
        encoded = self.tokens.encode(prompts)
        label_ids = self.tokens.label_ids(prompts[0], labels) if prompts else []
        refusals = [self.tokens.too_long(prompt, 1) for prompt in encoded]
        fitting = [prompt for prompt, refusal in zip(encoded, refusals, strict=True) if refusal is None]
        self.usage.add(prompt_tokens=sum(map(len, fitting)))
        found = iter(self._rounded(fitting, label_ids))
        return [refusal or next(found) for refusal in refusals]

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Refusal]:
        rule = Rule(max_new_tokens, 0.0, 1.0, self._rule.seed, self._tie_gap)
        encoded = self.tokens.encode(prompts)
        refusals = [self.tokens.too_long(prompt, max_new_tokens) for prompt in encoded]
        requests = [
            Request(prompt, prompt, 0.0, row_id, "score")
            for prompt, row_id, refusal in zip(encoded, row_ids, refusals, strict=True)
            if refusal is None
        ]
        completions = self._complete(requests, self._write_scores(requests, rule))
        return [refusal or next(completions) for refusal in refusals]

    def _complete(
        self, requests: Sequence[Request], written: Sequence[Written | Refusal]
    ) -> Iterator[Completion | Refusal]:
        for request, row in zip(requests, written, strict=True):
            self.usage.add(prompt_tokens=len(request.main))
            if isinstance(row, Refusal):
                yield row
            elif row.certain:
                text, num_tokens = self._ends.text(row.tokens)
                self.usage.add(generated_tokens=num_tokens)
                yield Completion(text, num_tokens, row.finished)
            else:
                yield NOT_NUMBERS

    def _rounded(
        self, prompts: Sequence[list[int]], label_ids: Sequence[int]
    ) -> list[NDArray[np.float64] | Refusal]:
        """A prompt for which noise could show in the rounded numbers is read a second time, alone."""
        results: list[NDArray[np.float64] | Refusal] = []
        close: list[int] = []
        for i, p_L in enumerate(self._probabilities(prompts, label_ids, alone=False)):
            if isinstance(p_L, Refusal):
                results.append(p_L)
                continue
            rounded_L, is_certain = round_probabilities(p_L, self._tie_gap)
            results.append(rounded_L)
            if not is_certain:
                close.append(i)
        again = self._probabilities([prompts[i] for i in close], label_ids, alone=True)
        for i, p_L in zip(close, again, strict=True):
            if isinstance(p_L, Refusal) or not np.isfinite(p_L).all():
                results[i] = p_L if isinstance(p_L, Refusal) else NOT_NUMBERS
            else:
                results[i], _ = round_probabilities(p_L, 0.0)
        return results
