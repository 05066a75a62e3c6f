"""Stop criteria of a hypothesis: an end-of-sequence token, or the first of the stop strings in its text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from multicsr.llm.stop_strings import cut_text

_PART_OF_A_CHARACTER = "\ufffd"
"""Replacement character: the text of a token that holds only some bytes of a character."""


class StopCriteria:
    """End-of-sequence tokens of a model, and stop strings in the text of its tokenizer."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        eos: int | Sequence[int] | None,
        vocab_size: int,
        stop: Sequence[str],
    ) -> None:
        """Find the tokens that may complete a stop string.

        Args:
            tokenizer: of the model.
            eos: end-of-sequence tokens in the model's generation settings; None: the tokenizer's.
            vocab_size: number of logits of the model.
            stop: strings that end the text; empty ones are ignored.
        """
        self._tokenizer = tokenizer
        self.stop = tuple(string for string in stop if string)
        eos = tokenizer.eos_token_id if eos is None else eos
        self.eos = frozenset({eos} if isinstance(eos, int) else eos or ())
        self._may_stop = self._find_stoppers(vocab_size)

    def ended(self, tokens: Sequence[int]) -> bool:
        """Return True if the last of these tokens ends the text; call it after each token."""
        if tokens[-1] in self.eos:
            return True
        if tokens[-1] not in self._may_stop:
            return False
        return cut_text(self._decode(tokens), self.stop)[1]

    def text(self, tokens: Sequence[int]) -> tuple[str, int]:
        """Return the text before its end, without leading white space, and the number of its tokens.

        The end-of-sequence token is not counted.
        """
        tokens = self._before_eos(tokens)
        return cut_text(self._decode(tokens), self.stop)[0], len(tokens)

    def shown(self, tokens: Sequence[int]) -> str:
        """Return the text before its end, with the white space in front of it."""
        text = self._decode(self._before_eos(tokens))
        before_end = cut_text(text, self.stop)[0]
        return text[: len(text) - len(text.lstrip())] + before_end

    def _before_eos(self, tokens: Sequence[int]) -> Sequence[int]:
        """Return the tokens without the end-of-sequence token."""
        return tokens[:-1] if tokens and tokens[-1] in self.eos else tokens

    def _decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special tokens."""
        text = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _find_stoppers(self, vocab_size: int) -> set[int]:
        """Return the tokens that may hold the last character of a stop string.

        The text is decoded and searched after these tokens only.
        """
        known = range(min(vocab_size, len(self._tokenizer)))
        last = {string[-1] for string in self.stop}
        if not last or " " in last:  # a decoder may strip a lone token's spaces
            return set(known) if last else set()
        pieces = self._tokenizer.batch_decode([[token] for token in known])
        last.add(_PART_OF_A_CHARACTER)
        return {token for token, piece in zip(known, pieces, strict=True) if last & set(piece)}


def bad_word_tokens(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the tokens of each word, at the start of a text and after a space, as vLLM reads `bad_words`."""
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        plain = tuple(tokenizer.encode(word.lstrip(), add_special_tokens=False))
        spaced = tuple(tokenizer.encode(" " + word.lstrip(), add_special_tokens=False))
        found[plain] = None
        if spaced[:1] != plain[:1] and len(spaced) == len(plain):
            found[spaced] = None
    return tuple(tokens for tokens in found if tokens)
