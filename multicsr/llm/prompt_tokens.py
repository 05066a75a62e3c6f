"""Conversion of prompts to token ids; shared by the engines that have a tokenizer."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from multicsr.config import Config, LLMConfig
from multicsr.errors import ConfigError
from multicsr.llm.base import Rejection
from multicsr.llm.label_tree import LabelTree, TokenPath
from multicsr.messages.error_chain import first_line
from multicsr.prompts import PromptSet, load_prompts
from multicsr.rows import Reason

_SAMPLE = ("A man plays a guitar.", "A man makes music.")
"""Sentences of the scoring prompt after which labels are tokenised. The labels must not depend on the rows,
and all scoring prompts of a set end alike, or with a sentence."""


Message = dict[str, str]
"""Message of a chat: `role` and `content`."""
TemplateArgs = Mapping[str, bool | int | float | str]
"""Variables of a chat template."""


class PromptText(NamedTuple):
    """Text that a model reads."""

    text: str
    is_chat: bool
    """True if a chat template has written it, with the special tokens."""


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
        self._tokenizer = tokenizer
        for name in config.template_args:
            if not (self._chat and self._template_uses(name)):
                raise ConfigError(f"llm.template_args: {name} has no effect: no chat template uses it")
        self._context = context
        self._has_encoder = has_encoder

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of the prompts, in the chat template if it is used."""
        return self._ids([self._text(prompt) for prompt in prompts], is_chat=self._chat)

    def chat(self, messages: Sequence[Message], template_args: TemplateArgs) -> PromptText:
        """Return the messages of a chat as the model reads them.

        A model that is not asked in its chat template, or has none, reads the one message as it is.

        Args:
            messages: the messages, the last one of the user.
            template_args: variables of the template; they come before `llm.template_args`.

        Raises:
            ValueError: there is no template and more than a message of the user, or the template uses no such
                variable or rejects the messages; one line.
        """
        if not self._chat:
            if template_args or len(messages) > 1 or messages[0]["role"] != "user":
                raise ValueError("this model has no chat template, so it takes one message of the user")
            return PromptText(messages[0]["content"], is_chat=False)
        for name in template_args:
            if not self._template_uses(name):
                raise ValueError(f"chat_template_kwargs: the chat template does not use {name!r}")
        try:
            return PromptText(self._in_template(messages, template_args), is_chat=True)
        except TemplateError as error:
            raise ValueError(f"messages: the chat template rejects them: {first_line(error)}") from error

    def ids(self, prompt: PromptText) -> list[int]:
        """Return the token ids of a prompt."""
        return self._ids([prompt.text], is_chat=prompt.is_chat)[0]

    def num_left(self, prompt: Sequence[int]) -> int | None:
        """Return the number of tokens that may follow a prompt; None if it is not bounded."""
        if self._context is None:
            return None
        return self._context - (0 if self._has_encoder else len(prompt))

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
        return self.labels_after(PromptText(self._text(prompts.scoring(*_SAMPLE)), self._chat), labels)

    def labels_after(self, prompt: PromptText, labels: Sequence[str]) -> LabelTree:
        """Return the tokens that the model writes for each label after this prompt; see `label_tree`."""
        names = [label.strip() for label in labels]
        spellings = [
            [path for text in (name, f" {name}") if self._is_known(path := self._continuation(prompt, text))]
            for name in names
        ]
        return LabelTree(names, spellings, self._is_blank)

    def _continuation(self, prompt: PromptText, text: str) -> TokenPath:
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
        base, whole = self._ids([prompt.text, prompt.text + text], is_chat=prompt.is_chat)
        return tuple(whole[len(base) :] if whole[: len(base)] == base else alone)

    def text_of(self, token: int) -> str:
        """Return the text of one token, special tokens included."""
        return str(self._tokenizer.decode([token]))

    def _is_known(self, path: TokenPath) -> bool:
        """Return True if tokens hold some text, and no character that the tokenizer lacks."""
        return self._tokenizer.unk_token_id not in path and not all(map(self._is_blank, path))

    def _is_blank(self, token: int) -> bool:
        """Return True for a token that holds nothing but white space."""
        return not self.text_of(token).strip()

    def _text(self, prompt: str) -> str:
        """Return the text that the model reads: the prompt, in the chat template if it is used."""
        message = {"role": "user", "content": prompt}
        return self._in_template([message], {}) if self._chat else prompt

    def _ids(self, texts: Sequence[str], *, is_chat: bool) -> list[list[int]]:
        """Return the token ids of texts; a chat template has written the special tokens itself."""
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=not is_chat)["input_ids"]
        return ids

    def _in_template(self, messages: Sequence[Message], template_args: TemplateArgs) -> str:
        """Return the text of messages in the chat template, up to where the answer begins."""
        args = {**self._template_args, **template_args}
        text = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, **args
        )
        return str(text)

    def _template_uses(self, name: str) -> bool:
        """Return True if the chat template uses a variable of this name."""
        return bool(re.search(rf"\b{re.escape(name)}\b", str(self._tokenizer.chat_template)))


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
