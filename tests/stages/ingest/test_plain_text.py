"""Plain texts, which pass 1 takes as they are: nothing else in ingest would have changed them."""

# ruff: noqa: RUF001 - ambiguous characters are the matter here
import random
import unicodedata

import numpy as np
import pytest

from multicsr.rows import normalise
from multicsr.stages.ingest import plain_text, reading
from multicsr.stages.ingest.chunks import RecordChunk
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.plain_text import _plain_codes, plain_test
from multicsr.stages.ingest.reading import read_chunks
from multicsr.stages.ingest.record import Placed, Record
from multicsr.stages.ingest.redaction import Redactor

SENTENCES = [
    "A plain line of words.",
    "  Two  blanks here . ",
    "Übergröße für München ist da — „nötig“.",
    "Привет, мир, как дела?",
    "مرحبا بكم في العالم",
    "안녕하세요 여러분 반갑습니다 오늘",
    "\u1112\u1161\u11ab글 자모 조합 시험",
    "e\u0301te\u0301 est la\u0300 bas",
    "half \u0300 combining first here",
    "日本語の文章ですね、とても長い。",
    "ภาษาไทย ไม่มี ช่อง ว่าง",
    "\u09c7\u09be bengali vowel signs here",
    "K kelvin \u212a and \u2126 ohm signs",
    "<p>Some html text here</p> and more",
    "a < b and c > d here",
    "Fish &amp; chips are good",
    "x\x00 nul in it",
    "\x7f delete character here now",
    "\x85 next line character here",
    "tab\tin the line here",
    "a\u2028b line separator c",
    "soft\u00adhyphen in the word",
    "zero\u200bwidth space is here",
    "می\u200cخواهم بروم خانه الان",
    "\u3000ideographic space here ok",
    "\ufeffmark at the start here",
    "\ufffd was undecodable once here",
    "non\uffffcharacter is here too",
    "mail me@example.com or call now",
    "see HTTPS://example.com for the rest",
    "see WWW.example.com for the rest",
    "call ٠١٢٣٤٥٦٧٨٩٠ in digits",
    "",
    "   ",
    "two words",
    "w " * 63 + "w",
    "w " * 64 + "w",
    "x" * 3000 + " long words are here",
]
BYTES = [
    *(text.encode("utf-8", "surrogatepass") for text in [*SENTENCES, "half a \ud800 pair here"]),
    b"invalid \xff bytes here now",
    b"half of \xe2\x82 here is it",
    b"overlong \xc0\xaf here is it",
]


@pytest.fixture
def lines(tmp_path):
    """A file of lines of every kind, many of them equal, with every end of line; the last one has none."""
    draw = random.Random(0)
    ends = [b"\n", b"\n", b"\r\n", b"\r", b"\n\r"]
    path = tmp_path / "a.txt"
    path.write_bytes(
        b"".join(draw.choice(BYTES) + draw.choice(ends) for _ in range(2_000)) + b"the last line"
    )
    return path


def as_if_nothing_were_plain(monkeypatch):
    monkeypatch.setattr(reading, "plain_test", lambda *_, **__: lambda raw: np.zeros(len(raw), dtype=bool))


@pytest.mark.parametrize("html", ["auto", True, False])
@pytest.mark.parametrize("redact", [[], ["email", "phone", "url"]])
def test_chunks_are_those_of_records_examined_one_by_one(config, lines, monkeypatch, html, redact):
    settings = config(lines, column=None, redact=redact)
    settings = settings.model_copy(update={"input": settings.input.model_copy(update={"html": html})})
    (file,) = find_files(settings.input).files

    def read():
        redactor = Redactor(redact)
        return [*read_chunks(settings, file, redactor)], redactor.counts

    fast, replaced = read()
    as_if_nothing_were_plain(monkeypatch)
    slow, replaced_slowly = read()
    assert replaced == replaced_slowly
    for tables in zip(fast, slow, strict=True):
        for one, other in zip(*tables, strict=True):
            assert one.num_rows
            assert one.equals(other)


def test_most_lines_of_european_languages_are_plain(config, lines):
    settings = config(lines, column=None, min_words=4)
    found = plain_test(settings, has_html=True)(BYTES)
    assert [*np.flatnonzero(found)] == [0, 2, 3, 4, 5, 28, 29, 30, 31, 35, 37]


@pytest.mark.parametrize("size", [1, 3, 4096])
def test_batches_have_no_effect(config, lines, monkeypatch, size):
    settings = config(lines, column=None)
    expected = plain_test(settings, has_html=False)(BYTES * 3)
    monkeypatch.setattr(plain_text, "_BATCH_ROWS", size)
    assert (plain_test(settings, has_html=False)(BYTES * 3) == expected).all()
    assert not len(plain_test(settings, has_html=False)([]))


def test_long_texts_are_not_joined(config, lines, monkeypatch):
    """A batch of them would take as much memory again; they are examined one by one."""
    settings = config(lines, column=None, min_words=1, max_words=10**6)
    long = b"word " * plain_text.MAX_PLAIN_BYTES + b"word"
    joined = []
    monkeypatch.setattr(
        plain_text,
        "_num_words",
        lambda raw, spaced, left_out: joined.append(spaced) or np.ones(len(raw), int),
    )
    plain_test(settings, has_html=False)([long, b"a short one", long])
    assert [len(spaced) for spaced in joined] == [len("  a short one  ")]
    monkeypatch.undo()
    assert [*plain_test(settings, has_html=False)([long, b"a short one", long])] == [False, True, False]
    records = [Placed(0, Record("word " * plain_text.MAX_PLAIN_BYTES)), Placed(1, Record("a short one"))]
    assert RecordChunk(records).raw() == [b"", b"a short one"]


def test_plain_characters_compose_with_no_character():
    """A text is in NFC if no character of it changes alone and none combines with those before it."""
    plain = set(_plain_codes("<"))
    assert ord("<") not in plain
    assert {*map(ord, "aßж中א안—€’")} - plain == {ord("中")}
    for code in range(0x110000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            assert int(parts[1], 16) not in plain
    assert all(normalise(chr(code)) == chr(code) and not unicodedata.combining(chr(code)) for code in plain)
    assert not plain & {*range(0x1100, 0x1200)}, "Hangul composes by rule"
