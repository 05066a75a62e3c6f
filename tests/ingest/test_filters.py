"""One record alone: normalised, or refused for the first reason."""

import pytest

from multicsr.config import IngestConfig
from multicsr.errors import ConfigError
from multicsr.ingest.filters import examine, language_filter, sentence_splitter
from multicsr.ingest.readers import Record
from multicsr.rows import Reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.EMPTY),
        (" \t\u00a0\u3000 ", Reason.EMPTY),
        ("two words", Reason.TOO_SHORT),
        ("w " * 10, None),
        ("w " * 11, Reason.TOO_LONG),
        ("a b c\x00", Reason.CONTROL_CHARACTERS),
        ("a b \x1b[31m red", Reason.CONTROL_CHARACTERS),
        ("a b \u0085 c", None),
        ("a b \u009b c", Reason.CONTROL_CHARACTERS),
        ("a b c \uffff", Reason.CONTROL_CHARACTERS),
        ("a b c \ufffd", Reason.UNDECODABLE),
        ("a b c " + chr(0xD800), Reason.UNDECODABLE),
        ("a b c \U0001f642", None),
    ],
)
def test_reasons(text, reason):
    seen = examine(Record(text), IngestConfig(max_words=10))
    assert seen.reason == reason
    seen.text.encode("utf-8")


def test_text_is_normalised():
    assert examine(Record("  Cafe\u0301\u00a0 au\n lait "), IngestConfig()).text == "Caf\u00e9 au lait"


def test_an_earlier_reason_stays():
    damaged = Record("x", Reason.MALFORMED, "why")
    assert examine(damaged, IngestConfig()) == damaged


def test_documents_are_split():
    split = sentence_splitter("en")
    document = Record('Dr. Smith left at 5 p.m. today. "Why?" she asked.\n\nNobody knew.')
    assert [record.text.strip() for record in split(document)] == [
        "Dr. Smith left at 5 p.m. today.",
        '"Why?" she asked.',
        "Nobody knew.",
    ]
    empty, damaged = Record("  "), Record("x", Reason.UNDECODABLE)
    assert list(split(empty)) == [empty]
    assert list(split(damaged)) == [damaged]


def test_language_filter_tells_tagalog_from_english():
    texts = [
        "Ang mga bata ay naglalaro sa labas ng bahay.",
        "Pupunta kami sa palengke bukas ng umaga.",
        "The children are playing outside the house.",
        "Two men and a frisbee",
        "12345 67890 2026",
    ]
    assert language_filter("en")(texts) == ["tl", "tl", None, None, None]
    assert language_filter("fil")(texts)[:3] == [None, None, "en"]
    with pytest.raises(ConfigError, match=r"ingest\.language_filter: cannot tell xx; it knows af, ar"):
        language_filter("xx")
