"""Where a text ends: at a stop string after its first character, or at an end-of-sequence token."""

import pytest
from transformers import AutoTokenizer

from multicsr.llm.stopping import StopCriteria
from multicsr.models.resolve import ASSETS


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ASSETS / "tinylm")


def written(tokenizer, text, stop):
    """(The text that is left of a model's tokens for `text`, the number of tokens until it ended)."""
    ends = StopCriteria(tokenizer, None, len(tokenizer), stop)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    number = next((n for n in range(1, len(tokens) + 1) if ends.ended(tokens[:n])), None)
    return ends.text(tokens[:number])[0], None if number is None else number == len(tokens)


@pytest.mark.parametrize(
    ("text", "stop", "expected", "is_last"),
    [
        ("A dog runs.\n", ["\n"], "A dog runs.", True),
        ("A dog runs.\nIt barks.", ["\n"], "A dog runs.", False),
        ("A dog runs.", ["\n"], "A dog runs.", None),
        ("\nA dog runs.\nIt", ["\n"], "A dog runs.", False),
        ("\n\n A dog runs.", ["\n"], "A dog runs.", None),
        ("\n", ["\n"], "", None),
        (" A dog. Sentence: B", ["Sentence:"], "A dog. ", False),
        ("\nSentence: B", ["Sentence:"], "", False),
        ("A dog.\n\nB", ["\n\n"], "A dog.", False),
    ],
)
def test_white_space_at_the_beginning_is_no_stop(tokenizer, text, stop, expected, is_last):
    assert written(tokenizer, text, stop) == (expected, is_last)
