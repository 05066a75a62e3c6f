"""Any causal or encoder-decoder model of the transformers library: the exact reference.

What a row gets depends on the row alone, on one machine, one thread count and in float32: see
`multicsr.generate.decode` for hypotheses and `label_probabilities` below for scores.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from multicsr.config import Config, LLMConfig
from multicsr.errors import ConfigError
from multicsr.generate.branches import CausalBranches, EncoderDecoderBranches
from multicsr.generate.decode import Reader, Request, Rule, decode
from multicsr.generate.ends import Ends
from multicsr.generate.engine import Completion, Refusal, Usage
from multicsr.models import quiet_loading, resolve_model
from multicsr.prompts import PromptPair, load_prompts
from multicsr.rows import Reason

TIE_GAP = 2e-4
"""Logits. Measured: batching moves a float32 logit by at most 2e-5, so the gap of Eq. 2 by at most 6e-5."""
DRAW_GAP = 2e-5
"""The same for draws, which compare sums over many tokens: the noise there averages to about 1e-6."""
PROBABILITY_STEP = 1 / 256
"""Label probabilities are multiples of this."""
_NOT_NUMBERS = Refusal(Reason.ENGINE_ERROR, "the model's logits are not numbers; is llm.dtype too narrow?")


class TransformersEngine:
    """Loads a model once and decodes in batches.

    Raises:
        ConfigError: no such model, no weights, or a chat template is asked for and absent.
    """

    def __init__(self, config: Config) -> None:
        self.usage = Usage()
        self._omega = config.generate.omega
        exact = config.llm.dtype == "float32"
        self._tie_gap = TIE_GAP if exact else 0.0
        self._rule = Rule(
            config.generate.max_new_tokens,
            config.generate.temperature,
            config.generate.top_p,
            config.seed,
            DRAW_GAP if exact and config.generate.temperature > 0 else self._tie_gap,
        )
        torch.set_num_threads(max(1, int(config.generate.cpus_per_actor)))
        self._tokenizer, self._model = _load(config.llm)
        self._has_encoder = bool(self._model.config.is_encoder_decoder)
        self._read: Reader = partial(
            EncoderDecoderBranches if self._has_encoder else CausalBranches, self._model
        )
        self._ends = Ends(self._tokenizer, self._model, load_prompts(config.generate.prompts).stop)
        self._chat = _wants_chat(config.llm, self._tokenizer)
        self._context = _context(self._model)

    def generate_pairs(
        self, pairs: Sequence[PromptPair], row_ids: Sequence[str]
    ) -> list[tuple[Completion, Completion] | Refusal]:
        entailment = self.encode([pair.entailment for pair in pairs])
        contradiction = self.encode([pair.contradiction for pair in pairs])
        requests, refusals = [], []
        for e, c, row_id in zip(entailment, contradiction, row_ids, strict=True):
            refusals.append(self._too_long(max(e, c, key=len), self._rule.max_new_tokens))
            if refusals[-1] is None:
                requests.append(Request(e, c, self._omega, row_id, "entailment"))
                requests.append(Request(c, e, self._omega, row_id, "contradiction"))
        completions = self._complete(requests, self._rule)
        return [refusal or _pair(next(completions), next(completions)) for refusal in refusals]

    def label_probabilities(
        self, prompts: Sequence[str], labels: Sequence[str]
    ) -> list[NDArray[np.float64] | Refusal]:
        """Softmax over the label tokens alone, in multiples of `PROBABILITY_STEP`.

        Rounding hides what batching does to the last digits. A prompt for which it might not, because a
        probability lies next to a rounding edge, is read again alone.
        """
        encoded = self.encode(prompts)
        label_ids = self._label_ids(prompts[0], labels) if prompts else []
        refusals = [self._too_long(prompt, 1) for prompt in encoded]
        fitting = [prompt for prompt, refusal in zip(encoded, refusals, strict=True) if refusal is None]
        found = iter(self._probabilities(fitting, label_ids))
        results: list[NDArray[np.float64] | Refusal] = []
        for prompt, refusal in zip(encoded, refusals, strict=True):
            results.append(refusal or self._rounded(next(found), prompt, label_ids))
        return results

    def reply(
        self, prompts: Sequence[str], row_ids: Sequence[str], max_new_tokens: int
    ) -> list[Completion | Refusal]:
        rule = self._rule._replace(max_new_tokens=max_new_tokens, temperature=0.0, tie_gap=self._tie_gap)
        encoded = self.encode(prompts)
        refusals = [self._too_long(prompt, max_new_tokens) for prompt in encoded]
        requests = [
            Request(prompt, prompt, 0.0, row_id, "score")
            for prompt, row_id, refusal in zip(encoded, row_ids, refusals, strict=True)
            if refusal is None
        ]
        completions = self._complete(requests, rule)
        return [refusal or next(completions) for refusal in refusals]

    def _complete(self, requests: Sequence[Request], rule: Rule) -> Iterator[Completion | Refusal]:
        self.usage.prompt_tokens += sum(len(request.main) for request in requests)
        for written in decode(self._read, requests, rule, self._ends):
            if written.certain:
                text, num_tokens = self._ends.text(written.tokens)
                self.usage.generated_tokens += num_tokens
                yield Completion(text, num_tokens, written.finished)
            else:
                yield _NOT_NUMBERS

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompts, in the chat template if there is to be one."""
        if not prompts:
            return []
        texts = [self._in_chat(prompt) for prompt in prompts] if self._chat else list(prompts)
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=not self._chat)["input_ids"]
        return ids

    def _in_chat(self, prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        return str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    def _too_long(self, prompt: Sequence[int], max_new_tokens: int) -> Refusal | None:
        needed = len(prompt) + (0 if self._has_encoder else max_new_tokens)
        if self._context is None or needed <= self._context:
            return None
        return Refusal(
            Reason.PROMPT_TOO_LONG, f"{len(prompt)} + {max_new_tokens} tokens, context {self._context}"
        )

    def _label_ids(self, prompt: str, labels: Sequence[str]) -> list[int]:
        """The token that each label is after a prompt; the prompts of a set end alike, so one will do."""
        if self._has_encoder:
            continuations = self._tokenizer(list(labels), add_special_tokens=False)["input_ids"]
        else:
            text = self._in_chat(prompt) if self._chat else prompt
            special = not self._chat
            base = self._tokenizer(text, add_special_tokens=special)["input_ids"]
            whole = self._tokenizer([text + label for label in labels], add_special_tokens=special)[
                "input_ids"
            ]
            continuations = [ids[len(base) :] if ids[: len(base)] == base else [] for ids in whole]
        for label, ids in zip(labels, continuations, strict=True):
            if len(ids) != 1:
                raise ConfigError(
                    f"generate.prompts: score label {label!r} is not one token of this model after the "
                    "prompt; change score_labels, or set score.method to stated"
                )
        return [ids[0] for ids in continuations]

    def _probabilities(self, prompts: Sequence[list[int]], label_ids: Sequence[int]) -> NDArray[np.float64]:
        """[N, L]"""
        if not prompts:
            return np.empty((0, len(label_ids)))
        self.usage.prompt_tokens += sum(len(prompt) for prompt in prompts)
        with torch.inference_mode():
            logits_NL = self._read(prompts).first_PV[:, list(label_ids)].double()
            probabilities: NDArray[np.float64] = logits_NL.softmax(-1).cpu().numpy()
        return probabilities

    def _rounded(
        self, p_L: NDArray[np.float64], prompt: list[int], label_ids: Sequence[int]
    ) -> NDArray[np.float64] | Refusal:
        if not np.isfinite(p_L).all():
            return _NOT_NUMBERS
        # A shift of the logits below tie_gap / 2 moves p by less than this.
        slack_L = p_L * (1 - p_L) * np.expm1(self._tie_gap)
        to_edge_L = np.abs(p_L / PROBABILITY_STEP % 1 - 0.5) * PROBABILITY_STEP
        if (to_edge_L < slack_L).any():
            p_L = self._probabilities([prompt], label_ids)[0]
        return np.round(p_L / PROBABILITY_STEP) * PROBABILITY_STEP


def _pair(
    entailment: Completion | Refusal, contradiction: Completion | Refusal
) -> tuple[Completion, Completion] | Refusal:
    if isinstance(entailment, Refusal):
        return entailment
    return contradiction if isinstance(contradiction, Refusal) else (entailment, contradiction)


def _load(config: LLMConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """(Tokenizer, model in evaluation mode on its device)."""
    name = resolve_model(config.model, "llm.model")
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("llm.device is cuda, but there is no GPU here; set generate.gpus_per_actor to 1")
    try:
        with quiet_loading():
            shape = AutoConfig.from_pretrained(name, revision=config.revision)
            kind = AutoModelForSeq2SeqLM if shape.is_encoder_decoder else AutoModelForCausalLM
            dtype = getattr(torch, config.dtype)
            model = kind.from_pretrained(name, revision=config.revision, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(name, revision=config.revision)
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"llm.model: cannot load {config.model}: {reason}") from error
    return tokenizer, model.to(device).eval()


def _wants_chat(config: LLMConfig, tokenizer: PreTrainedTokenizerBase) -> bool:
    if config.chat_template and not tokenizer.chat_template:
        raise ConfigError(f"llm.chat_template: {config.model} has none; leave the setting out")
    return bool(tokenizer.chat_template) if config.chat_template is None else config.chat_template


def _context(model: PreTrainedModel) -> int | None:
    """Most tokens the model can take; None where positions are not bounded."""
    shape = model.config.get_text_config()
    return getattr(shape, "max_position_embeddings", None) or getattr(shape, "n_positions", None)
