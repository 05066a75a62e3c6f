"""What is left of a page of wikitext, and what is not."""

# ruff: noqa: RUF001 - punctuation of other scripts is the matter here
import mwparserfromhell
import pytest
from mwparserfromhell.parser import ParserError

from multicsr.stages.ingest.filters import sentence_splitter
from multicsr.stages.ingest.readers import Record
from multicsr.stages.ingest.unclosed_markup import BrokenMarkup, without_unclosed
from multicsr.stages.ingest.wikitext import prose

HIDDEN = frozenset({"file", "image", "category", "talaksan", "kategorya"})


def paragraphs(wikitext):
    return [paragraph for paragraph in prose(wikitext, HIDDEN).split("\n\n") if paragraph]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        (
            "{{Infobox|a={{small|b}}\n|c=[[d]]\n}}\nThe '''bold''' and ''slanted'' cat.",
            "The bold and slanted cat.",
        ),
        ("A [[cat|black cat]]s [[sat]]. [http://a.b It] [http://a.b] did.", "A black cats sat. It  did."),
        ("It is so.<ref>{{cite|a}} Not here.</ref><ref name=x/> <ref name='y'>No</ref>", "It is so."),
        ("Some<!-- a\n\nb --> text. __NOTOC__ __KEININHALTSVERZEICHNIS__", "Some text."),
        ("Water is H<sub>2</sub>O <math>x</math>, <nowiki>''so''</nowiki>.", "Water is H2O, so."),
        ("Salt &amp; pepper, 5&nbsp;km &ndash; &#x41;.", "Salt & pepper, 5\u00a0km \u2013 A."),
        ("L'''amour'' est l'''eau''.", "L'amour est l'eau."),
        ("The ''Eagle'''s wing.", "The Eagle's wing."),
        (
            "[[File:a.jpg|thumb|A [[cat]] here.]]A [[:File:a.jpg|file]] of [[:Category:B]].",
            "A file of Category:B.",
        ),
        ("Text.[[Talaksan:a|thumb|b]] [[kategorya:B c]] [[Bild:Foo.JPG|mini|Nicht da.]]", "Text."),
        (
            "Text.\n[[Kaurian:Ibang bagay]]\n[[Category:B|*]] [[fr:Une autre chose]]\n[[zh-min-nan:A b c]]",
            "Text.",
        ),
        (
            "[[Star Wars: A New Hope]] is seen at [[re:publica]].",
            "Star Wars: A New Hope is seen at re:publica.",
        ),
        ("Manila ({{IPA|m}}; {{lang|tl|M}}) is {{x}}, so ({{y}}; a [[city]]).", "Manila is, so (a city)."),
        ("Stray </div>tags <center>are <small>gone.", "Stray tags are gone."),
        ("{{{1|default}}}A page.", "A page."),
        ("One line\nand its second.", "One line\nand its second."),
        ("L{{'}}Andalousie, 5{{Nbsp}}km {{=}} a [[city{{!}}town]].", "L'Andalousie, 5\u00a0km = a town."),
        ("电脑（{{lang-en|Computer}}）是机器【】，（{{x}}，甲）「、」。", "电脑是机器，（甲）。"),
        ("'''-{zh-hans:计算机; zh-hant:電腦}-'''按-{程序}-运行。", "计算机按程序运行。"),
        ("-{H|zh-cn:甲;zh-tw:乙}--{T|zh:丙}-A -{A|zh-cn:甲;zh-tw:乙;}-.", "A 甲."),
        ("[[Град|-{sr-ec:Град; sr-el:Grad}-]] -{R|a:b}- -{zh;zh-tw|c}-.", "Град a:b c."),
        ("-{-{zh-cn:甲;\nzh-tw:乙}- http://a.b;c}- x-{.", "甲 http://a.b;c x-{."),
    ],
)
def test_plain_text(wikitext, text):
    assert prose(wikitext, HIDDEN) == text


@pytest.mark.parametrize(
    "between",
    [
        "\n\n",
        "\n \t\n",
        "\n== A heading ==\n",
        "\n===Deep=== <!-- c -->\n",
        "\n<!-- c -->== Not parsed as a heading ==\n",
        "<h2>A heading</h2>",
        "<br><br />",
        "\n----\n",
        "\n{|\n! a\n|-\n| b || c\n|}\n",
        "\n<gallery>\nFile:a.jpg|A caption of four words.\n</gallery>\n",
        "\n<syntaxhighlight lang=c>\nint main\n</syntaxhighlight>\n",
    ],
)
def test_no_paragraph_spans_what_lies_between(between):
    assert paragraphs(f"Before it and{between}after it.") == ["Before it and", "after it."]


def test_items_of_lists_are_paragraphs():
    wiki = "Lead:\n* one\n** two [[b]]\n# three<br>more\n;term : meaning\n:: quoted\nAfter."
    html = "<ul><li>x</li><li>y</li></ul>z"
    expected = ["Lead:", "one", "two b", "three\u2028more", "term", "meaning", "quoted", "After."]
    assert paragraphs(wiki) == expected
    assert paragraphs(html) == ["x", "y", "z"]


def test_no_sentence_spans_a_heading_or_two_paragraphs():
    text = prose('He said "so, e.g.\n\nand (then\n== A heading ==\nit ended).\n* one\n* two', HIDDEN)
    sentences = [part.text.strip() for part in sentence_splitter("en")(Record(text)) if part.text.strip()]
    assert sentences == ['He said "so, e.g.', "and (then", "it ended).", "one", "two"]


def test_sections_at_the_end_that_are_lists_are_left_out():
    end = "== Tingnan din ==\n* [[Isa pa]]<br>at ito\n== Sanggunian ==\n{{reflist}}\n"
    end += "== Kawing ==\n* [http://a.b Site]\n{{Navbox"
    middle = "== Mga lungsod ==\n* Isang lungsod.\n== Kasaysayan ==\nMatagal na.\n"
    assert paragraphs(f"Simula.\n{middle}{end}") == ["Simula.", "Isang lungsod.", "Matagal na."]
    assert paragraphs("* a list\n* alone\n" + end) == ["a list", "alone"]


def test_paragraphs_with_markup_that_does_not_end_are_left_out():
    table = "{|\n! a\n| b\n\n! c\n\n| d"
    wikitext = f"{{{{Infobox\n| a = b\n\nGood.\n\nBad [[link.\n\nBad<ref>one.\n\n{table}\n\nGood too."
    assert paragraphs(wikitext) == ["Good.", "Good too."]


@pytest.mark.parametrize(
    ("wikitext", "why"),
    [
        ("{{Infobox\n| a = b\n| c = d\n", r"markup that does not end: '\{\{Infobox"),
        ("{{a|" * 20_000, "more than 100 templates do not end"),
    ],
)
def test_a_page_of_broken_markup_is_rejected(wikitext, why):
    with pytest.raises(BrokenMarkup, match=why):
        prose(wikitext, HIDDEN)


def test_a_page_the_parser_fails_on_is_rejected(monkeypatch):
    def fail(_):
        raise ParserError("bad route")

    monkeypatch.setattr(mwparserfromhell, "parse", fail)
    with pytest.raises(BrokenMarkup, match="bad route"):
        prose("A page.", HIDDEN)


def test_an_empty_page_is_empty():
    assert prose("", HIDDEN) == prose("{{stub}}\n[[Category:A b c]]\n{|\n| a\n|}", HIDDEN) == ""


UNCLOSED = [
    *("[[a|<b>x]] ", "[[a|<ref>x]] ", "[[a|<div>x]] ", "[[File:a.jpg|thumb|<span>x]] ", "[[a|b "),
    *("<b>x ", "<ref>x ", "<nowiki>x ", "<!-- x ", "* <b>x\n", "= x <b>\n", ";a:b<b>\n", "<b>{{x}} "),
    *("{{a|<b>x}} ", "[[a|{{b}} ", "{|\n|x\n", "[http://a x ", "[http://a <b>x] ", "<b a='x ", "<b a=x "),
    *("   ", "[[a|<b>x "),
]


@pytest.mark.parametrize("piece", UNCLOSED)
def test_markup_that_never_ends_takes_no_quadratic_time(piece):
    """Each of these took minutes, some hours."""
    try:
        text = prose("A sentence before it.\n\n" + piece * 20_000, frozenset({"file"}))
    except BrokenMarkup as error:
        text = str(error)
    assert "<" not in text


def test_ends_far_behind_their_beginnings_take_no_quadratic_time():
    assert prose("[[a|<b>x]] " * 20_000 + "</b>" * 20_000, frozenset()).split() == ["x"] * 20_000


@pytest.mark.parametrize("piece", ["<p>", "<li>", "<div>"])
def test_content_of_unclosed_elements_is_kept(piece):
    assert paragraphs(f"{piece}One line. " * 200) == ["One line."] * 200
    assert paragraphs("<b>One <i>word</i> " * 200) == [" ".join(["One word"] * 200)]


def test_sound_markup_is_left_as_it_is():
    page = (
        "{{a|<b>x</b>}} [[a|<i>b</i>]] <ref name=a /> <ref>x</ref> <br> <br/> [http://a b] <!-- c -->\n" * 500
    )
    assert without_unclosed(page) is page
