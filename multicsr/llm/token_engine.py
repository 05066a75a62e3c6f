"""Common base of the engines that see tokens: from prompts to requests, from tokens to completions."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from multicsr.config import Config
from multicsr.llm.base import NOT_NUMBERS, Completion, Rejection, Usage, both
from multicsr.llm.label_probabilities import round_probabilities
from multicsr.llm.label_tree import LabelTree
from multicsr.llm.prompt_tokens import PromptTokens
from multicsr.llm.request import DecodedTokens, HypothesisRequest, SamplingParams, Watch
from multicsr.llm.stopping import StopCriteria, bad_word_tokens
from multicsr.prompts import PromptPair, load_prompts

TIE_GAP = 2e-4
"""Tie gap of greedy choices, in logits.

Measured: batching moves a float32 logit of SmolLM2-135M by at most 4.5e-5, of the LM that ships by 2e-5. At
omega 0.3 the gap of Eq. 2 then moves by at most 1.7e-4."""
DRAW_GAP = 2e-5
"""Tie gap of draws, in logits. A draw compares sums over many tokens: their noise averages to about 1e-6."""


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
        ConfigError: `llm.chat_template` is true, but the tokenizer has no chat template; or the tokenizer
            cannot write the score labels.
    """

    is_continuous = False
    """True if requests of calls that run at the same time are computed together, so that none waits."""
    batches_at_once = 1
    batch_size: int | None = None
    rows_per_commit: int | None = None

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase, shape: ModelShape) -> None:
        generate = config.generate
        self.usage = Usage()
        self._tokenizer, self._shape = tokenizer, shape
        self._omega = generate.omega
        exact = config.llm.dtype == "float32"
        self._tie_gap = TIE_GAP if exact else 0.0
        rule = self.rule(generate.max_new_tokens, generate.temperature, generate.top_p, config.seed)
        self._rule = rule._replace(
            min_new_tokens=generate.min_new_tokens,
            bad_words=bad_word_tokens(tokenizer, generate.bad_words),
        )
        self._prompts = load_prompts(generate.prompts)
        self._ends = self.ends(self._prompts.stop)
        self.tokens = PromptTokens(
            config.llm,
            tokenizer,
            shape.context,
            has_encoder=shape.has_encoder,
            is_for_chat=self._prompts.chat,
        )
        self._trees: dict[tuple[str, ...], LabelTree] = {}
        if config.writer_reads_labels:
            self._tree(self._prompts.score_labels)

    @abstractmethod
    def write(
        self,
        requests: Sequence[HypothesisRequest],
        rule: SamplingParams,
        ends: StopCriteria,
        watch: Watch | None = None,
    ) -> Sequence[DecodedTokens | Rejection]:
        """Write every request, in order; `certain` is False in a result whose logits were not numbers.

        Args:
            requests: prompts that fit into the context with the limit of the rule.
            rule: rule of sampling, common to all requests.
            ends: where a text ends.
            watch: is called after every token that is final; None: nobody watches.
        """

    @abstractmethod
    def close(self) -> None:
        """Implement `Engine.close`."""

    @abstractmethod
    def top_log_probabilities(
        self, prompt: list[int], tokens: Sequence[int], count: int
    ) -> list[dict[int, float]] | Rejection:
        """Compute the log-probabilities of the likeliest tokens at the position of each of `tokens`.

        They are a function of the prompt and the tokens only: nothing is computed beside them.

        Args:
            prompt: token ids.
            tokens: the greedy continuation of the prompt.
            count: number of likeliest tokens at each position.

        Returns:
            Log-probabilities by token for each position, the likeliest ones first.
        """

    def _write_scores(
        self, requests: Sequence[HypothesisRequest], rule: SamplingParams
    ) -> Sequence[DecodedTokens | Rejection]:
        """Write the reply to every scoring prompt, in order; an engine may constrain its form."""
        return self.write(requests, rule, self._ends)

    @abstractmethod
    def _log_probabilities(
        self, prompts: Sequence[list[int]], tree: LabelTree, *, alone: bool
    ) -> Sequence[NDArray[np.float64] | Rejection]:
        """Compute the log-probability of the last token of each path of the tree, [K] for each prompt.

        Args:
            prompts: token ids.
            tree: of the labels; its paths continue every prompt.
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
        completions = self._complete(requests, self.write(requests, self._rule, self._ends))
        return [rejection or both(next(completions), next(completions)) for rejection in rejections]

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Rejection]:
        """Implement `Engine.label_probabilities`, rounded to multiples of `PROBABILITY_STEP`.

        A prompt with a probability too close to a rounding edge is computed again alone.
        """
        return self.read_labels(self.tokens.encode(prompts), self._tree(labels))

    def read_labels(
        self, encoded: Sequence[list[int]], tree: LabelTree
    ) -> list[NDArray[np.float64] | Rejection]:
        """Compute the probabilities of the labels of a tree after prompts in token ids, as above."""
        rejections = [self.tokens.too_long(prompt, tree.num_tokens) for prompt in encoded]
        fitting = [prompt for prompt, rejection in zip(encoded, rejections, strict=True) if rejection is None]
        self.usage.add(prompt_tokens=sum(map(len, fitting)))
        found = iter(self._rounded(fitting, tree))
        return [rejection or next(found) for rejection in rejections]

    def rule(self, max_new_tokens: int, temperature: float, top_p: float, seed: int) -> SamplingParams:
        """Return a rule of sampling with the tie gap of this engine."""
        tie_gap = min(DRAW_GAP, self._tie_gap) if temperature > 0 else self._tie_gap
        return SamplingParams(max_new_tokens, temperature, top_p, seed, tie_gap)

    def ends(self, stop: Sequence[str]) -> StopCriteria:
        """Return where a text with these stop strings ends; it searches the whole vocabulary for them."""
        return StopCriteria(self._tokenizer, self._shape.eos, self._shape.vocab_size, stop)

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Rejection]:
        """Implement `Engine.reply`."""
        rule = self.rule(max_new_tokens, 0.0, 1.0, self._rule.seed)
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

    def _tree(self, labels: Sequence[str]) -> LabelTree:
        """Return the tree of these labels, which is a function of the prompt set and not of the rows."""
        key = tuple(labels)
        if key not in self._trees:
            self._trees[key] = self.tokens.label_tree(self._prompts, key)
        return self._trees[key]

    def _rounded(
        self, prompts: Sequence[list[int]], tree: LabelTree
    ) -> list[NDArray[np.float64] | Rejection]:
        """Compute rounded label probabilities, [L] for each prompt.

        A prompt for which noise could change the rounded numbers is computed a second time, alone.
        """
        results: list[NDArray[np.float64] | Rejection] = []
        close: list[int] = []
        tie_gap = self._tie_gap * tree.noise_factor
        for i, log_p_K in enumerate(self._log_probabilities(prompts, tree, alone=False)):
            if isinstance(log_p_K, Rejection):
                results.append(log_p_K)
                continue
            rounded_L, is_certain = round_probabilities(tree.probabilities(log_p_K), tie_gap)
            results.append(rounded_L)
            if not is_certain:
                close.append(i)
        again = self._log_probabilities([prompts[i] for i in close], tree, alone=True)
        for i, log_p_K in zip(close, again, strict=True):
            if isinstance(log_p_K, Rejection):
                results[i] = log_p_K
                continue
            p_L = tree.probabilities(log_p_K)
            results[i] = round_probabilities(p_L, 0.0)[0] if np.isfinite(p_L).all() else NOT_NUMBERS
        return results
