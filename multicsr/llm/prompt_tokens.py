"""Conversion of prompts to token ids; shared by the engines that have a tokenizer."""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError
from multicsr.llm.base import Rejection
from multicsr.rows import Reason


class PromptTokens:
    """Tokenizer, its chat template if it is used, and the context length of the model.

    Raises:
        ConfigError: `llm.chat_template` is true, but the tokenizer has no chat template, or the template does
            not use one of `llm.template_args`.
    """

    def __init__(
        self, config: LLMConfig, tokenizer: PreTrainedTokenizerBase, context: int | None, *, has_encoder: bool
    ) -> None:
        """Keep the tokenizer and decide whether prompts use the chat template.

        Args:
            config: settings of the LLM.
            tokenizer: of the model.
            context: the maximum number of tokens of the model; None if positions are not bounded.
            has_encoder: True for an encoder-decoder model, whose output does not share the prompt's context.
        """
        self._chat = wants_chat(config, tokenizer)
        self._template_args = config.template_args
        for name in config.template_args:
            if not (self._chat and re.search(rf"\b{re.escape(name)}\b", str(tokenizer.chat_template))):
                raise ConfigError(f"llm.template_args: {name} has no effect: no chat template uses it")
        self._tokenizer = tokenizer
        self._context = context
        self._has_encoder = has_encoder

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of the prompts, in the chat template if it is used."""
        if not prompts:
            return []
        texts = [self._in_chat(prompt) for prompt in prompts] if self._chat else list(prompts)
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=not self._chat)["input_ids"]
        return ids

    def too_long(self, prompt: Sequence[int], max_new_tokens: int) -> Rejection | None:
        """Return the reason to reject a row whose prompt and continuation exceed the context, or None."""
        needed = len(prompt) + (0 if self._has_encoder else max_new_tokens)
        if self._context is None or needed <= self._context:
            return None
        return Rejection(
            Reason.PROMPT_TOO_LONG, f"{len(prompt)} + {max_new_tokens} tokens, context {self._context}"
        )

    def label_ids(self, prompt: str, labels: Sequence[str]) -> list[int]:
        """Return the token of each label after a prompt.

        All prompts of a prompt set end with the same text, so any one of them can be used.

        Raises:
            ConfigError: a label is not exactly one token.
        """
        if self._has_encoder:
            continuations = self._tokenizer(list(labels), add_special_tokens=False)["input_ids"]
        else:
            text = self._in_chat(prompt) if self._chat else prompt
            special = not self._chat
            base = self._tokenizer(text, add_special_tokens=special)["input_ids"]
            texts = [text + label for label in labels]
            whole = self._tokenizer(texts, add_special_tokens=special)["input_ids"]
            continuations = [ids[len(base) :] if ids[: len(base)] == base else [] for ids in whole]
        for label, ids in zip(labels, continuations, strict=True):
            if len(ids) != 1:
                raise ConfigError(
                    f"generate.prompts: score label {label!r} is not one token of this model after the "
                    "prompt; change score_labels, or set score.method to stated"
                )
        return [ids[0] for ids in continuations]

    def _in_chat(self, prompt: str) -> str:
        """Return a prompt as the user's message in the chat template."""
        message = [{"role": "user", "content": prompt}]
        text = self._tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, **self._template_args
        )
        return str(text)


def wants_chat(config: LLMConfig, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return True if prompts are put into the chat template.

    Raises:
        ConfigError: `llm.chat_template` is true, but the tokenizer has no chat template.
    """
    if config.chat_template and not tokenizer.chat_template:
        raise ConfigError(f"llm.chat_template: {config.model} has none; leave the setting out")
    return bool(tokenizer.chat_template) if config.chat_template is None else config.chat_template
