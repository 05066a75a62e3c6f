"""Conversion of prompts to token ids; shared by the engines that have a tokenizer."""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from multicsr.config import Config, LLMConfig
from multicsr.errors import ConfigError
from multicsr.llm.base import Rejection
from multicsr.llm.label_tree import LabelTree, TokenPath
from multicsr.prompts import PromptSet, load_prompts
from multicsr.rows import Reason

_SAMPLE = ("A man plays a guitar.", "A man makes music.")
"""Sentences of the scoring prompt after which labels are tokenised. The labels must not depend on the rows,
and all scoring prompts of a set end alike, or with a sentence."""


class PromptTokens:
    """Tokenizer, its chat template if it is used, and the context length of the model.

    Raises:
        ConfigError: `llm.chat_template` is true, but the tokenizer has no chat template, or the template does
            not use one of `llm.template_args`.
    """

    def __init__(
        self,
        config: LLMConfig,
        tokenizer: PreTrainedTokenizerBase,
        context: int | None,
        *,
        has_encoder: bool,
        is_for_chat: bool = True,
    ) -> None:
        """Keep the tokenizer and decide whether prompts use the chat template.

        Args:
            config: settings of the LLM.
            tokenizer: of the model.
            context: the maximum number of tokens of the model; None if positions are not bounded.
            has_encoder: True for an encoder-decoder model, whose output does not share the prompt's context.
            is_for_chat: `chat` of the prompt set.
        """
        self._chat = wants_chat(config, tokenizer) and (is_for_chat or config.chat_template is True)
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
        return self._ids([self._text(prompt) for prompt in prompts])

    def too_long(self, prompt: Sequence[int], max_new_tokens: int) -> Rejection | None:
        """Return the reason to reject a row whose prompt and continuation exceed the context, or None."""
        needed = len(prompt) + (0 if self._has_encoder else max_new_tokens)
        if self._context is None or needed <= self._context:
            return None
        return Rejection(
            Reason.PROMPT_TOO_LONG, f"{len(prompt)} + {max_new_tokens} tokens, context {self._context}"
        )

    def label_tree(self, prompts: PromptSet, labels: Sequence[str]) -> LabelTree:
        """Return the tokens that the model writes for each label after a scoring prompt.

        A label is spelled without and with a leading blank; blanks around it in the prompt set do not matter.
        A spelling is left out if the tokenizer lacks a character of it: it then has a token for what is
        unknown, or nothing but blanks.

        Raises:
            ConfigError: a label cannot be written, or two labels have the same tokens.
        """
        prompt = prompts.scoring(*_SAMPLE)
        names = [label.strip() for label in labels]
        spellings = [
            [path for text in (name, f" {name}") if self._is_known(path := self._continuation(prompt, text))]
            for name in names
        ]
        return LabelTree(names, spellings, self._is_blank)

    def _continuation(self, prompt: str, text: str) -> TokenPath:
        """Return the tokens by which a model writes a text after a prompt.

        They are the tokens that follow those of the prompt when both are tokenised together. If the last
        token of the prompt would change, they are the tokens of the text alone: the model has been given the
        tokens of the prompt and cannot take them back. An encoder-decoder model writes the text as a whole,
        after the special tokens that its tokenizer sets in front.
        """
        alone: list[int] = self._tokenizer(text_target=text, add_special_tokens=False)["input_ids"]
        if self._has_encoder:
            target: list[int] = self._tokenizer(text_target=text)["input_ids"]
            starts = (i for i in range(len(target)) if target[i : i + len(alone)] == alone)
            return tuple([*target[: next(starts, 0)], *alone])
        before = self._text(prompt)
        base, whole = self._ids([before, before + text])
        return tuple(whole[len(base) :] if whole[: len(base)] == base else alone)

    def _is_known(self, path: TokenPath) -> bool:
        """Return True if tokens hold some text, and no character that the tokenizer lacks."""
        return self._tokenizer.unk_token_id not in path and not all(map(self._is_blank, path))

    def _is_blank(self, token: int) -> bool:
        """Return True for a token that holds nothing but white space."""
        return not self._tokenizer.decode([token]).strip()

    def _text(self, prompt: str) -> str:
        """Return the text that the model reads: the prompt, in the chat template if it is used."""
        return self._in_chat(prompt) if self._chat else prompt

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts; a chat template has written the special tokens itself."""
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=not self._chat)["input_ids"]
        return ids

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


def check_prompts(config: Config, tokenizer: PreTrainedTokenizerBase, *, has_encoder: bool) -> None:
    """Raise if the tokenizer does not fit the prompts; the weights need not be loaded for that.

    Raises:
        ConfigError: there is no such prompt set, `llm.chat_template` is true without a template, or the score
            labels cannot be written.
    """
    prompts = load_prompts(config.generate.prompts)
    tokens = PromptTokens(config.llm, tokenizer, None, has_encoder=has_encoder, is_for_chat=prompts.chat)
    if config.writer_reads_labels:
        tokens.label_tree(prompts, prompts.score_labels)
