"""Documents of nasty characters and markup: none of them raises, and every one is accounted for."""

# ruff: noqa: RUF001 - ambiguous characters are the matter here
import random
import unicodedata

import pytest
import sentencex

from multicsr.config import IngestConfig
from multicsr.rows import normalise
from multicsr.stages.ingest import filters
from multicsr.stages.ingest.filters import examine, sentence_splitter
from multicsr.stages.ingest.html_text import to_plain_text
from multicsr.stages.ingest.readers import Record
from multicsr.stages.ingest.unclosed_markup import BrokenMarkup
from multicsr.stages.ingest.wikitext import prose

DOCUMENTS = 2_000
LANGUAGES = ["en", "de", "tl", "zh", "ja", "ar", "hi", "th", "nb", "xx"]
WORDS = [
    "The",
    "cat",
    "A",
    "Dr.",
    "e.g.",
    "U.S.",
    "5.3",
    "said",
    "Ünïcode",
    "日本語",
    "你好",
    "مرحبا",
    "नमस्ते",
]
ENDS = [".", "!", "?", "。", "！", "?!", "...", "…", '."', ".)", ".»", "۔", "।", ";", ":", ". . ."]
SPACES = [c for c in map(chr, range(0x110000)) if c.isspace()] + ["\n\n", "\r\n", "\r", "\n \n"]
ODD = [
    *"\ud83d\ude00\ud800\udfff\x00\x07\x1b\x7f\x9b\ufeff\ufffe\uffff\ufffd\u200b\u200c\u200d\u2060\u00ad",
    *"\u202e\u2066\u180e\u3164\U0001f468\u200d\U000e0067\U0010ffff\u0301\u0345\u1ab0\ufe0f\u20e3«»„“”‘’()[]{}",
    "e" + "\u0301" * 50,
]
HTML = [
    "<p>",
    "</p>",
    "<br>",
    "&nbsp;",
    "&#xD83D;",
    "&#x110000;",
    "&#0;",
    "&amp;amp;",
    "<!--",
    "-->",
    "<",
    "<a href='",
]
TAGS = [
    *(
        "<p>",
        "</p>",
        "<div class='gmail_quote quote sig signature' id='divRplyFwdMsg'>",
        "</div>",
        "<br>",
        "<td>",
    ),
    *(
        "<table>",
        "</table>",
        "<blockquote type=cite>",
        "</blockquote>",
        "<script>",
        "</script>",
        "<nav>",
        "</nav>",
    ),
    *(
        "<template>",
        "</template>",
        "<svg>",
        "</svg>",
        "<select>",
        "<option>",
        "<frameset>",
        "<body>",
        "<head>",
    ),
    *(
        "</body>",
        "</html>",
        "<pre>",
        "<code>",
        "</pre>",
        "<textarea>",
        "<plaintext>",
        "<![CDATA[",
        "<!doctype x>",
    ),
    *(
        "<b id=x>",
        "</b>",
        "<a href=x>",
        "</a>",
        "<form>",
        "<button>",
        "<li>",
        "<ul>",
        "<span class=moz-cite-prefix>",
    ),
]
MAIL = [
    *(
        "\n",
        "\nOn 10:11 a@b.c ",
        "wrote:\n",
        "> ",
        "\n-- \n",
        "\nFrom: x\n",
        "Sent: x\n",
        "To: x\n",
        "Best regards,\n",
    ),
    "\n-----Original Message-----\n",
]
WIKI = [
    *[
        "{{",
        "}}",
        "[[",
        "]]",
        "{|",
        "|}",
        "|",
        "||",
        "==",
        "'''",
        "''",
        "<ref",
        "<ref>",
        "</ref>",
        "<nowiki>",
        "*",
        "#",
    ],
    *[
        ":",
        ";",
        "----",
        "{{{",
        "}}}",
        "[http://a.b ",
        "]",
        "-{",
        "}-",
        "__TOC__",
        "~~~~",
        "<br/>",
        "<math>",
        "[[File:a|",
    ],
]


def documents(seed, pieces):
    draw = random.Random(seed)
    for _ in range(DOCUMENTS):
        number = draw.choice([0, 1, 3, 10, 40, 150])
        odd = "".join(chr(draw.randrange(0x110000)) for _ in range(draw.choice([0, 0, 1, 5])))
        kinds = [WORDS, WORDS, SPACES, [" "], ENDS, ODD if draw.random() < 0.3 else WORDS, *pieces]
        yield odd + "".join(draw.choice(draw.choice(kinds)) for _ in range(number)) + odd


def account(document, split):
    """Take one document through split and examine; check that nothing raises or vanishes."""
    parts = list(split(Record(document)))
    assert parts
    if all(part.reason is None for part in parts) and parts != [Record(document)]:
        kept = "".join("".join(part.text.split()) for part in parts)
        assert kept == "".join(document.split())
    for part in parts:
        seen = examine(part, IngestConfig())
        f"{seen.text}{seen.detail}".encode()
        if seen.reason is None:
            assert normalise(seen.text) == seen.text
            assert unicodedata.is_normalized("NFC", seen.text)


@pytest.mark.parametrize("pieces", [[], [HTML], [HTML, WIKI]], ids=["plain", "html", "wikitext"])
def test_documents_never_raise(pieces):
    splitters = [sentence_splitter(language) for language in LANGUAGES]
    for number, document in enumerate(documents(len(pieces), pieces)):
        if WIKI in pieces:
            try:
                document = prose(document, frozenset({"file", "category"}))
            except BrokenMarkup as error:
                str(error).encode()
                continue
        account(document, splitters[number % len(splitters)])


def test_html_and_mails_never_raise():
    split = sentence_splitter("en")
    for number, document in enumerate(documents(7, [TAGS, TAGS, MAIL, HTML])):
        record = to_plain_text(Record(document), always=number % 2 == 0)
        if record.reason is None:
            for sentence in split(record):
                examine(sentence, IngestConfig())
        f"{examine(record, IngestConfig()).text}{record.detail}".encode()


@pytest.mark.parametrize(
    "piece", [*TAGS, *HTML, *MAIL, "<pre> ", "&nbsp;", "\n ", " \n", "Am 10:11 schrieb "]
)
def test_html_and_mails_take_no_quadratic_time(piece):
    """Each of these would take minutes or more."""
    for text in (f"<p>x</p>{piece * 20_000}", f"{piece * 20_000}<p>x</p>", f"<pre>x{piece * 20_000}x</pre>"):
        to_plain_text(Record(text))


def test_the_splitter_is_never_given_more_than_it_can_bear(monkeypatch):
    """Its time grows with the square of such a text: minutes to hours for the longest record that is read."""
    given = []
    segment = sentencex.segment
    monkeypatch.setattr(
        sentencex, "segment", lambda language, text: given.append(len(text)) or segment(language, text)
    )
    split = sentence_splitter("en")
    for unit in ("«", "你好。", "é. ", "\u3000É.", "“x” "):
        account(unit * 10_000, split)
    assert sum(given) > 50_000
    assert max(given) <= 2 * filters._WINDOW_CHARACTERS
