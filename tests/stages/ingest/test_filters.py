"""One record alone: normalised, or refused for the first reason."""

import pytest
import sentencex

from multicsr.config import IngestConfig
from multicsr.errors import ConfigError
from multicsr.rows import Reason, normalise
from multicsr.stages.ingest.filters import examine, sentence_splitter
from multicsr.stages.ingest.language_detection import language_filter
from multicsr.stages.ingest.readers import Record

CONTROLS = "\x1c\x1d\x1e\x1f"


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


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("\ufeffThe cat\ufeff sat.", "The cat sat."),
        ("The c\u200bat s\u00adat\u2060.", "The cat sat."),
        ("\u200eThe cat\u202c sat.\u200f", "The cat sat."),
        ("Cafe\u200b\u0301 au lait", "Caf\u00e9 au lait"),
        ("\u200cThe cat \u200c sat.\u200c", "The cat sat."),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),
        (
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
        ),
    ],
)
def test_sentences_differ_by_joiners_but_not_by_other_invisible_characters(text, same):
    assert normalise(text) == same == normalise(same)


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


@pytest.mark.parametrize(
    "space", [chr(code) for code in range(0x110000) if chr(code).isspace() and chr(code) not in CONTROLS]
)
def test_white_space_of_any_kind_does_not_disturb_the_splitter(space):
    split = sentence_splitter("en")
    texts = [f"I eat much A{space}. They are good.", f"A{space}.B{space}.", f"So A.{space}{space}B."]
    for text in texts:
        parts = list(split(Record(text)))
        assert [part.reason for part in parts] == [None] * len(parts)
        joined = "".join(part.text for part in parts)
        assert "".join(joined.split()) == "".join(text.split())


def test_a_document_with_half_a_pair_is_one_reject():
    (seen,) = sentence_splitter("en")(Record("A broken \ud83d emoji. It was cut."))
    assert (seen.reason, seen.detail) == (Reason.UNDECODABLE, "half a surrogate pair")
    seen.text.encode()


class Panic(BaseException):
    __module__ = "pyo3_runtime"


@pytest.mark.parametrize("error", [Panic("index 10 \ud800"), ValueError("no"), RecursionError("deep")])
def test_a_document_on_which_the_splitter_fails_is_one_reject(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(sentencex, "segment", fail)
    document = Record("A document. It has sentences.")
    (seen,) = sentence_splitter("en")(document)
    assert (seen.text, seen.reason) == (document.text, Reason.MALFORMED)
    assert seen.detail.startswith(f"the sentence splitter fails: {type(error).__name__}: ")
    seen.detail.encode()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), MemoryError()])
def test_what_ends_a_process_is_no_reject(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(sentencex, "segment", fail)
    with pytest.raises(type(error)):
        list(sentence_splitter("en")(Record("A document.")))


def test_long_documents_are_split_as_short_ones_are():
    split = sentence_splitter("de")
    sentences = [f"Das ist Satz {i} von Bär Nr. {i}. " for i in range(1000)]
    assert [part.text.strip() for part in split(Record("".join(sentences)))] == [s.strip() for s in sentences]
    one = "«" * 20_000
    assert "".join(part.text for part in split(Record(one))) == one


def test_a_sentence_on_which_the_language_detector_fails_is_named(monkeypatch):
    import lingua

    class Failing:
        def detect_language_of(self, text):
            raise Panic("boom")

    builder = lingua.LanguageDetectorBuilder
    for name in ("from_all_languages", "with_low_accuracy_mode", "build"):
        monkeypatch.setattr(Failing, name, lambda self=None: Failing(), raising=False)
    monkeypatch.setattr(lingua, "LanguageDetectorBuilder", Failing())
    assert language_filter("en")(["A sentence."]) == ["unknown: the language detector fails: Panic: boom"]
    assert builder is not lingua.LanguageDetectorBuilder


def test_language_filter_distinguishes_tagalog_from_english():
    texts = [
        "Ang mga bata ay naglalaro sa labas ng bahay.",
        "Pupunta kami sa palengke bukas ng umaga.",
        "The children are playing outside the house.",
        "Two men and a frisbee",
        "12345 67890 2026",
    ]
    assert language_filter("en")(texts) == ["tl", "tl", None, None, None]
    assert language_filter("fil")(texts)[:3] == [None, None, "en"]
    with pytest.raises(ConfigError, match=r"ingest\.language_filter: xx is not supported; use one of af, ar"):
        language_filter("xx")
