"""HTML in records: what counts as HTML, which text comes out, and what is left alone."""

import random
import re
from html.parser import HTMLParser

import pytest

from multicsr.errors import ConfigError
from multicsr.rows import Reason
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.html_text import has_markup, plain_texts, reject_left_markup, to_plain_text
from multicsr.stages.ingest.record import Placed, Record
from tests.support.placed_records import placed_records


def left(record):
    """The record after the check for markup that is left."""
    return next(reject_left_markup([Placed(0, record)])).record


def text_of(html, **options):
    return to_plain_text(Record(html), **options).text


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "if a<b and b>c: return <none>",
        "List<String> names = new ArrayList<>();",
        "Map<a, b> and Pair<B> and Box<P>inner",
        "std::vector<int> v; Vec<u8>; Promise<Label>",
        "Use the <br> tag to break lines, and <div> for blocks.",
        "Mail <joe@example.com> or see <https://example.com>.",
        "I <3 you & AT&T; x &c.",
        "->> --> <-- <= >= <> </>",
    ],
)
def test_text_that_is_no_html_is_the_same_record(text):
    record = Record(text)
    assert not has_markup(text)
    assert to_plain_text(record) is record
    assert next(plain_texts([Placed(0, record)], always=False)).record is record
    assert left(record) is record


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One.</p><div>Two.</div>", "One.\n\nTwo."),
        ("One.<br>Two.", "One.\n\nTwo."),
        ("One and<br/>so on.", "One and so on."),
        ("One.<p>Two.<p>Three.", "One.\n\nTwo.\n\nThree."),
        ("a<b>b</b>c <i>d</i>", "abc d"),
        ("<ul><li>x<li>y</ul>z", "x\n\ny\n\nz"),
        ("<td>x</td><td>y</td>", "xy"),  # cells outside a table are no elements
        ("<table><tr><td>x</td><td>y</td></tr></table>", "x\n\ny"),
        ("<script>if (a < b) {}</script><style>p {}</style><p>x</p><!-- y -->", "x"),
        ("<nav>Home</nav><p>x</p><footer>y</footer>", "x"),
        ("<p>Of <math><mi>x</mi></math>and <svg><path/></svg>so<script>a</script>on.</p>", "Of  and  so on."),
        ("<p>A\n   long\n line</p>", "A long line"),
        ("<pre>One.\nTwo.</pre>", "One.\n\nTwo."),
        ("<p>So:</p><pre><code>x = 1</code></pre><p>done</p>", "So:\n\ndone"),
        ("<a href='x'>Tom &amp; Jerry</a>", "Tom & Jerry"),
        ("R&amp;B, don&#39;t, &#x41;", "R&B, don't, A"),
        ("R&amp;amp;B", "R&B"),
        ("&lt;p&gt;Hello there&lt;/p&gt;", "Hello there"),
        ("<P ALIGN=left>Loud</P>", "Loud"),
        ("<p>x", "x"),
    ],
)
def test_text_of_html(html, text):
    assert text_of(html) == text


def test_no_block_boundary_glues_two_words():
    blocks = re.findall(r"\w+", "p div li td h1 blockquote section dd figcaption")
    for one in blocks:
        for other in blocks:
            html = f"<table><tr><{one}>left</{one}><{other}>right</{other}></tr></table>"
            assert sorted(text_of(html).split()) == ["left", "right"], html


class _Plain(HTMLParser):
    """The obviously right version for inline text: Python's own parser."""

    def __init__(self):
        super().__init__()
        self.text = ""

    def handle_data(self, data):
        self.text += data


def test_inline_text_is_that_of_another_parser():
    chooser = random.Random(0)
    pieces = ["word", " ", "<b>", "</b>", "<i>", "</i>", "&amp;", "&eacute;", "<a href='#'>", "</a>", "x < y"]
    for _ in range(500):
        html = "<span>" + "".join(chooser.choices(pieces, k=20)) + "</span>"
        plain = _Plain()
        plain.feed(html)
        plain.close()
        assert " ".join(text_of(html).split()) == " ".join(plain.text.split()), html


@pytest.mark.parametrize(
    "quote",
    [
        '<div class="gmail_quote">On Monday Joe wrote: <blockquote>old</blockquote></div>',
        '<blockquote type="cite"><p>old</p></blockquote>',
        '<p class="moz-cite-prefix">Am 1.1. um 1:10 schrieb Joe:</p><blockquote type="cite">old</blockquote>',
        '<div id="appendonsend"></div><hr><div id="divRplyFwdMsg">From: Joe</div><div>old</div>',
        '<aside class="quote">old</aside>',
        "<p>-----Original Message-----</p><p>old</p>",
        "<p>From: Joe<br>Sent: Monday<br>To: Ann<br>Subject: old</p><p>old</p>",
        "<p>On Mon, 3 Jan 2022 at 10:11, Joe wrote:</p><p>old</p>",
        '<div class="gmail_signature">old</div>',
        '<div class="sig">Best regards,<br>Ann <a href="mailto:a@b.c">a@b.c</a></div>',
        "<p>Best regards,<br>Ann Lee<br>old</p>",
    ],
)
def test_quotes_and_signatures_of_html_mails_are_left_out(quote):
    assert text_of(f"<p>The printer is broken.</p>{quote}") == "The printer is broken."


def test_answer_below_a_quote_is_kept():
    html = '<blockquote type="cite">old</blockquote><p>It works now.</p>'
    assert text_of(html) == "It works now."
    assert text_of("<blockquote>A saying.</blockquote><p>Mine.</p>") == "A saying.\n\nMine."


def test_html_that_is_a_quote_alone_is_empty():
    record = to_plain_text(Record('<blockquote type="cite">old</blockquote>'))
    assert (record.text, record.reason) == ("", Reason.EMPTY)


def test_tags_that_are_left_are_a_reject():
    record = to_plain_text(Record('<p>Write &lt;a href="x"&gt;y&lt;/a&gt; here.</p>'))
    assert record.text == 'Write <a href="x">y</a> here.'
    assert left(record) == Record(record.text, Reason.MARKUP)


def test_always_converts_text_without_tags():
    assert text_of("A line\nand more <unknown>") == "A line\nand more <unknown>"
    assert text_of("A line\nand more <unknown>", always=True) == "A line and more"


@pytest.mark.parametrize("tag", ["<div>", "<font color=%d><p>", "<table><td>", "<b id=%d><i>"])
def test_html_that_the_parser_would_take_quadratic_time_for_is_a_reject(tag):
    html = "".join(tag % i if "%" in tag else tag for i in range(100_000)) + "x"
    record = to_plain_text(Record(html))
    assert record.reason == Reason.MALFORMED
    assert record.detail == "HTML with more than 512 open elements"
    closed = "<div><font>x</font></div>" * 5_000
    assert to_plain_text(Record(closed)).reason is None


def test_damage_is_left_for_the_filter_that_rejects_it():
    half = Record("\ud800<p>x</p>")
    assert to_plain_text(half) is half
    malformed = Record("<p>x</p>", Reason.MALFORMED)
    assert to_plain_text(malformed) is malformed


def test_documents_end_sentences_at_blocks(tmp_path, config):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "<h1>A title</h1><p>One sentence. And another.</p><p>A third</p>"}\n')
    settings = config(path, documents=True)
    (file,) = find_files(settings.input).files
    texts = [record.text.strip() for _, record in placed_records(settings, file)]
    assert texts == ["A title", "One sentence.", "And another.", "A third"]


@pytest.mark.parametrize(
    ("html", "text"), [("auto", "One. Two."), (True, "One. Two."), (False, "<p>One.</p>Two.")]
)
def test_setting(tmp_path, config, html, text):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "<p>One.</p>Two."}\n')
    settings = config(path)
    settings = settings.model_copy(update={"input": settings.input.model_copy(update={"html": html})})
    (file,) = find_files(settings.input).files
    ((_, record),) = placed_records(settings, file)
    assert " ".join(record.text.split()) == text
    assert record.reason is None


def test_setting_without_effect_on_a_wiki_is_an_error(tmp_path, config):
    path = tmp_path / "a.xml"
    path.write_text("<mediawiki/>")
    settings = config(path, column=None, documents=True)
    given = settings.input.model_copy(update={"html": False})
    with pytest.raises(ConfigError, match=r"input\.html has no effect on wikipedia files"):
        find_files(given)
