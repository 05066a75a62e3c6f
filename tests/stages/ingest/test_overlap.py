import gzip
import random
import unicodedata
from math import log2

import pytest

from multicsr.stages.ingest.overlap import LEAST_BITS, LEAST_WORDS, KnownTexts, words_of

KNOWN = [
    "A brown dog is running through the deep snow.",
    "The committee didn't accept the proposal of the minister yesterday.",
    "Three children build a castle of sand near the water",
    "Ein großer Hund läuft heute durch den tiefen Schnee.",
    "वह आज बाज़ार से ताज़ी सब्ज़ियाँ लेकर घर आया",
    "Мужчина медленно идёт по пустой улице домой",
    "我今天早上在公園裡看到一隻黑色的大狗在跑步。",
    "เมื่อเช้านี้ฉันเห็นสุนัขสีดำตัวใหญ่วิ่งอยู่ในสวนสาธารณะ",
    "Yes.",
]


def find(text: str, known=tuple(KNOWN)):
    return KnownTexts({"set": known}).find([text])[0].get("set")


@pytest.mark.parametrize("text", KNOWN)
def test_a_text_is_found_without_case_punctuation_space_and_unicode_form(text):
    for changed in (
        text.upper(),
        text.title(),
        f"  «{text.rstrip('.。')}» !",
        text.replace(" ", " \u00a0"),
        unicodedata.normalize("NFD", text),
        text.replace("'", "\u2019"),
        text.replace(" ", ", "),
        text[:5] + "\u00ad" + text[5:],
    ):
        match = find(changed)
        assert match is not None, changed
        assert (match.known, match.is_exact) == (text, True)


def test_a_text_in_the_form_of_tokenisers_is_found():
    match = find("The committee did n't accept the proposal of the minister yesterday .")
    assert match is not None
    assert match.is_exact


@pytest.mark.parametrize("text", [text for text in KNOWN if " " in text])
def test_a_text_is_found_with_any_word_changed_removed_or_inserted(text):
    words = text.split()
    for place in range(len(words)):
        for changed in (
            [*words[:place], "zebra", *words[place + 1 :]],
            [*words[:place], *words[place + 1 :]],
            [*words[:place], "zebra", *words[place:]],
        ):
            match = find(" ".join(changed))
            assert match is not None, changed
            assert (match.known, match.is_exact) == (text, False)


@pytest.mark.parametrize("text", [text for text in KNOWN if text[0] in "我เ"])
def test_a_text_without_blanks_is_found_with_any_characters_of_a_word_changed(text):
    for place in range(len(text) - 2):
        for changed in (text[:place] + "猫鼠" + text[place + 2 :], text[:place] + text[place + 2 :]):
            match = find(changed)
            assert match is not None, changed
            assert match.known == text


@pytest.mark.parametrize(
    "text",
    [
        "A brown cat is running through the deep water.",
        "Three children build a castle",
        "Is a brown dog running through the deep snow?",
        "Yes, of course.",
        "",
        "!!!",
        "\ud800",
    ],
)
def test_other_texts_are_not_found(text):
    assert find(text) is None


def test_a_text_of_no_letters_is_no_known_text():
    known = KnownTexts({"set": ["...", "", "\U0001f600"]})
    assert len(known) == 0
    assert known.find(["...", "!", "A dog."]) == [{}, {}, {}]


def test_each_set_that_has_a_text_is_named_and_an_exact_match_comes_first():
    near, exact = KNOWN[0].replace("brown", "black"), KNOWN[0].lower()
    known = KnownTexts({"one": [KNOWN[1], near], "two": [near, exact], "three": [KNOWN[2]]})
    found = known.find([KNOWN[0]])[0]
    assert {name: (match.known, match.is_exact) for name, match in found.items()} == {
        "one": (near, False),
        "two": (exact, True),
    }


def test_the_digest_depends_on_the_texts_and_not_on_their_order_or_sets():
    one = KnownTexts({"a": KNOWN[:4], "b": KNOWN[4:]}).digest()
    assert KnownTexts({"c": KNOWN[::-1]}).digest() == one
    assert KnownTexts({"a": KNOWN[1:]}).digest() != one


def distance(one: list[str], other: list[str]) -> int:
    """Levenshtein's distance in words."""
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, another in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != another))
    return row[-1]


def test_what_is_found_is_what_is_one_word_apart_with_enough_information_around():
    """Texts of few words, so that many are near one another, against a comparison of all with all."""
    draw = random.Random(7)
    vocabulary = [f"w{number}" for number in range(9)] + [f"rare{number}" for number in range(60)]
    weights = [8] * 9 + [1] * 60
    texts = [draw.choices(vocabulary, weights, k=draw.randrange(5, 9)) for _ in range(400)]
    looked_up = [[*text] for text in texts[:200]]
    for words in looked_up:
        if draw.random() < 0.8:
            words[draw.randrange(len(words))] = draw.choice(vocabulary)
        if draw.random() < 0.3:
            words.insert(draw.randrange(len(words)), "new")
    distinct = list(dict.fromkeys(map(tuple, texts)))
    bits = {
        word: log2((len(distinct) + 1000) / (1 + sum(word in text for text in distinct)))
        for text in distinct
        for word in text
    }

    def is_near(one: tuple[str, ...], other: list[str]) -> bool:
        if distance([*one], other) != 1:
            return False
        # Of the places where the texts may differ, the one around which most is left.
        common = []
        for start in range(len(one) + 1):
            for end in (start, start + 1):
                rest = [*one[:start], *one[end:]]
                frames = [[*other[:start], *other[start + width :]] for width in (0, 1)]
                if rest in frames and start + len(other) >= len(rest):
                    common.append((len(rest), sum(bits[word] for word in rest)))
        return any(words >= LEAST_WORDS and enough >= LEAST_BITS for words, enough in common)

    found = KnownTexts({"set": [" ".join(text) for text in texts]}).find(
        [" ".join(words) for words in looked_up]
    )
    num_near = 0
    for words, matches in zip(looked_up, found, strict=True):
        exact = any([*text] == words for text in distinct)
        near = any(is_near(text, words) for text in distinct)
        match = matches.get("set")
        assert (match is not None) == (exact or near), words
        assert match is None or match.is_exact == exact
        num_near += near and not exact
    assert num_near > 20


@pytest.mark.shared
def test_planted_leaks_are_found_and_clean_sentences_are_not(shared_data):
    """STS and SICK against Wikipedia, MNLI-style hypotheses, and sentences of learners."""
    sets = {
        name: column(shared_data / f"sts/{name}.tsv.gz", "sentence1", "sentence2")
        for name in ("stsb_dev", "sts12_test", "sts13_test", "sts14_test", "sts15_test", "sick_test")
    }
    known = KnownTexts(sets)
    clean = [
        *column(shared_data / "mono/wiki_sentences_en.tsv.gz", "sentence")[:6_000],
        *column(shared_data / "nli/litl_mnli_style_train.tsv.gz", "hypothesis")[:12_000],
        *column(shared_data / "tatoeba/tatoeba_tgl_eng.tsv.gz", "eng"),
        *column(shared_data / "tatoeba/tatoeba_war_eng.tsv.gz", "eng"),
    ]
    assert len(clean) >= 20_000, "two for each of 10,000 pairs"
    assert [text for text, found in zip(clean, known.find(clean), strict=True) if found] == []
    draw = random.Random(0)
    texts = [text for text in sets["stsb_dev"][::10] if len(words_of(text)) > LEAST_WORDS]
    assert all(known.find(texts))
    assert all(known.find([text.swapcase() for text in texts]))
    changed = [text.split() for text in texts]
    for words in changed:
        words[draw.randrange(len(words))] = "zebra"
    assert sum(map(bool, known.find(list(map(" ".join, changed))))) >= 0.95 * len(changed)


def column(path, *names: str) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        header, *rows = [line.rstrip("\n").split("\t") for line in lines]
    return list(dict.fromkeys(row[header.index(name)] for row in rows for name in names))
