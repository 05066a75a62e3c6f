"""The number of words, in scripts with and without blanks."""

import random

import pytest

from multicsr.config import IngestConfig
from multicsr.rows import Reason
from multicsr.stages.ingest.filters import examine
from multicsr.stages.ingest.record import Record
from multicsr.stages.ingest.words import count_words

COUNTS = {
    "Hello world.": 2,
    "안녕하세요 세계 여러분": 3,
    "Привет, мир - снова": 4,
    "مرحبا بكم في المدينة": 4,
    "今天天气很好、我们去公园散步。": 7,
    "北京是中国的首都。": 4,
    "昨日、新しい車を買いました。": 6,
    "วันนี้อากาศดีมาก เราไปเดินเล่นที่สวนสาธารณะ": 9,
    "我用 Python 写程序。": 4,
    "她": 1,
}


@pytest.mark.parametrize(("text", "words"), COUNTS.items())
def test_words_are_what_a_reader_would_count(text, words):
    assert count_words(text) == words


def test_with_blanks_words_are_what_they_separate():
    draw = random.Random(4)
    for _ in range(300):
        parts = ["".join(draw.choices("abcäöüßжшλ한글ع-…'1", k=draw.randint(1, 6))) for _ in range(9)]
        assert count_words(" ".join(parts)) == len(parts)


def test_a_longer_text_has_no_fewer_words():
    draw = random.Random(5)
    for _ in range(300):
        text = "".join(draw.choices("今天ก็ ab、", k=draw.randint(1, 30))).strip() or "今"
        assert count_words(text + "今") >= count_words(text)


@pytest.mark.parametrize("text", ["今天天气很好、我们去公园散步。", "北京是中国的首都。", "ฉันชอบกินข้าวผัด"])
def test_sentences_without_blanks_are_kept(text):
    assert examine(Record(text), IngestConfig()) == Record(text)


def test_bounds_hold_without_blanks_too():
    assert examine(Record("她来。"), IngestConfig()) == Record("她来。", Reason.TOO_SHORT, "1 words")
    long = "今天天气很好" * 30
    assert examine(Record(long), IngestConfig()) == Record(long, Reason.TOO_LONG, "90 words")
