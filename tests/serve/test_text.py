"""Text in pieces: they are the whole text, and none is taken back."""

import pytest
from transformers import AutoTokenizer

from multicsr.llm.stopping import StopCriteria
from multicsr.models.resolve import ASSETS
from multicsr.serve.text import GrowingText

STOP = ("\n", " zzz.", "ab\u00e9c")


@pytest.fixture(scope="module")
def tokenizer(causal_dir):
    return AutoTokenizer.from_pretrained(causal_dir)


def pieces_of(ends, tokens):
    growing = GrowingText(ends)
    return [*(growing.grow(tokens[: n + 1]) for n in range(len(tokens))), growing.end(tokens)]


@pytest.mark.parametrize(
    "text",
    [
        " A man plays a guitar.",
        "\n\n A man.\nA woman.",
        "caf\u00e9 \U0001f600 ab\u00e9c more",
        "it zzzebra and zzz. gone",
        "ab\u00e9",
        "",
        "   ",
    ],
)
def test_pieces_are_the_whole_text(tokenizer, text):
    ends = StopCriteria(tokenizer, 1, len(tokenizer), STOP)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = pieces_of(ends, tokens)
    assert "".join(pieces) == ends.shown(tokens)
    assert all("\ufffd" not in piece for piece in pieces)


def test_stop_string_is_never_sent_in_part(tokenizer):
    ends = StopCriteria(tokenizer, 1, len(tokenizer), ["END"])
    tokens = [token for c in "So E EN END" for token in tokenizer(c, add_special_tokens=False)["input_ids"]]
    pieces = pieces_of(ends, tokens)
    assert "".join(pieces) == "So E EN "
    assert max(map(len, pieces)) <= 3


def test_text_is_shown_as_it_was_written():
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "tinylm")
    ends = StopCriteria(tokenizer, None, len(tokenizer), ["\n"])
    tokens = tokenizer("\n A dog.\nA cat.", add_special_tokens=False)["input_ids"]
    assert ends.shown(tokens) == "\n A dog."
    assert ends.text(tokens)[0] == "A dog."
