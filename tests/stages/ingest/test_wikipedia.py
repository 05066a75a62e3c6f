"""Dumps as dumps.wikimedia.org publishes them: what is read, how much of it at once, what damage says."""

import bz2
import gzip
import io
import itertools
import sys
import tracemalloc
from xml.sax.saxutils import escape

import pyarrow as pa
import pytest
import zstandard

from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.rows import Reason
from multicsr.stages.ingest import ingest, streams
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.readers import Record, read_records
from multicsr.stages.ingest.wikipedia import articles
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.tools.audit import audit
from tests.support.versions import publish

HEAD = """\
<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://www.mediawiki.org/xml/export-0.11/ http://www.mediawiki.org/xml/export-0.11.xsd" \
version="0.11" xml:lang="tl">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>tlwiki</dbname>
    <base>https://tl.wikipedia.org/wiki/Unang_Pahina</base>
    <generator>MediaWiki 1.45.0-wmf.4</generator>
    <case>first-letter</case>
    <namespaces>
      <namespace key="-2" case="first-letter">Midya</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Usapan</namespace>
      <namespace key="6" case="first-letter">Talaksan</namespace>
      <namespace key="10" case="first-letter">Padron</namespace>
      <namespace key="14" case="first-letter">Kategorya</namespace>
    </namespaces>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"
REVISION = """\
    <revision>
      <id>{id}00</id>
      <parentid>{id}</parentid>
      <timestamp>2026-01-02T03:04:05Z</timestamp>
      <contributor>
        <username>Juan</username>
        <id>7</id>
      </contributor>
      <comment>/* Kasaysayan */</comment>
      <origin>{id}00</origin>
      <model>{model}</model>
      <format>text/x-wiki</format>
      <text bytes="9" sha1="abc" xml:space="preserve">{text}</text>
      <sha1>abc</sha1>
    </revision>
"""
MANILA = """\
{{Infobox lungsod
| pangalan = Maynila
| laki = {{convert|42|km2}}
}}
[[Talaksan:Manila.jpg|thumb|Ang [[Maynila]] sa gabi ng isang araw.]]
Ang '''Maynila''' ({{IPA|tl|m}}) ay ang [[kabisera|punong lungsod]] ng [[Pilipinas]].<ref>{{cite|url=x}}</ref>
Malaki ito &amp; masikip, sabi nila.[[kategorya:Mga bagay na malaki]]

{| class="wikitable"
! Taon !! Bilang ng mga tao
|-
| 1903 || Isa dalawa tatlo apat
|}
== Kasaysayan ng lungsod ==
Itinatag ito noong 1571 ni [[Miguel López de Legazpi]].
* Isang mahabang bagay sa listahan.

== Mga sanggunian ==
{{reflist}}
* [http://a.b Opisyal na websayt nito]
[[Kategorya:Mga lungsod sa Pilipinas]]
[[en:The City of Manila]]
"""


def page(id, title, *texts, ns=0, redirect="", model="wikitext"):
    revisions = "".join(REVISION.format(id=id, model=model, text=escape(text)) for text in texts)
    target = f'    <redirect title="{redirect}" />\n' if redirect else ""
    return (
        f"  <page>\n    <title>{escape(title)}</title>\n    <ns>{ns}</ns>\n    <id>{id}</id>\n"
        f"{target}{revisions}  </page>\n"
    )


PAGES = [
    page(1, "Maynila", MANILA),
    page(2, "Usapan:Maynila", "Ito ay isang usapan lamang.", ns=1),
    page(3, "Padron:Infobox", "Ito ay isang padron lamang.", ns=10),
    page(4, "Manila", "#REDIRECT [[Maynila]] ito ay isa.", redirect="Maynila"),
    page(5, "AT&T", "A page in English is here. It has <small>two</small> sentences."),
    page(6, "Sira", "{{Infobox\n| a = b\n"),
    page(7, "Datos", '{"text": "this is no wikitext"}', model="json"),
    page(8, "Wala", "{{stub}}"),
    page(9, "Matagal", "Ang unang bersyon nito ay luma.", "Ang huling bersyon nito ay bago."),
    page(10, "Walang rebisyon"),
]


@pytest.fixture
def dump(tmp_path):
    """Writes a dump, with what the ending of its name asks for; bz2 as a multistream."""

    def write(name, pages=PAGES):
        path = tmp_path / name
        streams = [part.encode() for part in (HEAD, *pages, TAIL)]
        if path.suffix == ".bz2":
            path.write_bytes(b"".join(map(bz2.compress, streams)))
        else:
            compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
            path.write_bytes(compress(b"".join(streams)))
        return path

    return write


@pytest.fixture
def settings(config):
    def make(*paths, documents=True, column=None, **more):
        return config(*paths, column=column, documents=documents, **more)

    return make


@pytest.fixture
def read(settings):
    def stream(path):
        (file,) = find_files(settings(path).input).files
        return read_records(file, None)

    return stream


@pytest.mark.parametrize(
    "name",
    [
        "a.xml",
        "a.xml.gz",
        "a.xml.zst",
        "tlwiki-latest-pages-articles-multistream.xml.bz2",
        "a1.xml-p1p41242.bz2",
    ],
)
def test_articles_are_records(dump, read, name):
    manila, att, broken, empty, history = read(dump(name))
    assert manila.text.split("\n\n") == [
        "Ang Maynila ay ang punong lungsod ng Pilipinas.\nMalaki ito & masikip, sabi nila.",
        "Itinatag ito noong 1571 ni Miguel López de Legazpi.",
        "Isang mahabang bagay sa listahan.",
    ]
    assert att == Record("A page in English is here. It has two sentences.")
    assert (broken.reason, broken.text) == (Reason.MALFORMED, "{{Infobox\n| a = b\n")
    assert broken.detail.startswith("page 6, Sira: markup that does not end")
    assert empty == Record("", Reason.EMPTY, "page 8, Wala")
    assert history == Record("Ang huling bersyon nito ay bago.")


def test_ingest_of_a_dump(dump, settings):
    configured = settings(dump("tlwiki.xml.bz2"), language="tl")
    store = Store.open(configured.store)
    manifest = ingest(configured, store, SilentProgress())
    rows = pa.concat_tables(iter_tables(store, manifest)).to_pylist()
    assert {(row["source"], row["position"], row["text"]) for row in rows} == {
        ("tlwiki.xml.bz2", 0, "Ang Maynila ay ang punong lungsod ng Pilipinas."),
        ("tlwiki.xml.bz2", 0, "Malaki ito & masikip, sabi nila."),
        ("tlwiki.xml.bz2", 0, "Itinatag ito noong 1571 ni Miguel López de Legazpi."),
        ("tlwiki.xml.bz2", 0, "Isang mahabang bagay sa listahan."),
        ("tlwiki.xml.bz2", 1, "A page in English is here."),
        ("tlwiki.xml.bz2", 1, "It has two sentences."),
        ("tlwiki.xml.bz2", 4, "Ang huling bersyon nito ay bago."),
    }
    rejected = pa.concat_tables(iter_rejects(store, manifest)).to_pylist()
    assert {(row["position"], row["reason"], row["detail"].partition(":")[0]) for row in rejected} == {
        (2, Reason.MALFORMED, "page 6, Sira"),
        (3, Reason.EMPTY, "page 8, Wala"),
    }
    assert audit(publish(store, "sentences", manifest)) == []


class Parts(io.RawIOBase):
    """A dump made while it is read, as far as it is read."""

    def __init__(self, parts):
        self.parts = itertools.chain([HEAD], parts)
        self.rest, self.taken = b"", 0

    def read(self, size=-1):
        while len(self.rest) < size:
            self.rest += next(self.parts).encode()
        data, self.rest = self.rest[:size], self.rest[size:]
        self.taken += len(data)
        return data


def test_no_more_is_read_than_the_articles_that_are_taken():
    stream = Parts(page(id, f"A{id}", MANILA) for id in itertools.count(1))
    names = [article.name for article in itertools.islice(articles(stream, "x"), 3)]
    assert names == ["page 1, A1", "page 2, A2", "page 3, A3"]
    assert stream.taken < 100_000


@pytest.mark.parametrize("between", [page(2, "Usapan:A", "Text.", ns=1), page(3, "A", "Text.")])
def test_memory_does_not_grow_with_the_pages(between):
    def peak_bytes(num_pages):
        parts = itertools.chain(
            itertools.repeat(between, num_pages), itertools.repeat(page(4, "Last", "Text."))
        )
        return _peak_bytes(
            article for article in articles(Parts(parts), "x") if article.name == "page 4, Last"
        )

    assert peak_bytes(5000) < 1.5 * peak_bytes(500)


def test_memory_does_not_grow_with_the_revisions():
    revision = REVISION.format(id=1, model="wikitext", text="A revision. " * 100)
    begin, end = page(1, "Last", "Text.").split(REVISION.format(id=1, model="wikitext", text="Text."))
    parts = itertools.chain([begin], itertools.repeat(revision, 2000), [end], itertools.repeat(PAGES[0]))
    assert _peak_bytes(articles(Parts(parts), "x")) < 600_000


def _peak_bytes(taken):
    """Memory until the first is there."""
    tracemalloc.start()
    next(taken)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_a_dump_that_is_cut_off_or_damaged_is_named(tmp_path, dump, read):
    whole = dump("whole.xml").read_bytes()
    packed = dump("whole.xml.bz2").read_bytes()
    damaged = {
        "cut.xml": whole[:-100],
        "between.xml": whole[: -len(TAIL)],
        "bytes.xml": whole.replace(b"AT&amp;T", b"AT\xff"),
        "ampersand.xml": whole.replace(b"AT&amp;T", b"AT&T"),
        "cut.xml.bz2": packed[:-10],
        "stream.xml.bz2": packed.removesuffix(bz2.compress(TAIL.encode())),
        "flipped.xml.bz2": packed[:900] + bytes(50) + packed[950:],
        "cut.xml.gz": gzip.compress(whole)[:-20],
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RunError, match=f"cannot read .*{name}: ") as caught:
            list(read(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert next(read(tmp_path / "stream.xml.bz2")).text.startswith("Ang Maynila")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<html><body/></html>", r"it begins with <html>"),
        (b"Just text.\n", "syntax error"),
        (b"", "no element found"),
        (b'<?xml version="1.0" encoding="x-none"?><mediawiki/>', "unknown encoding: x-none"),
        (b'<?xml version="1.0" encoding="big5"?><mediawiki/>', "multi-byte encodings are not supported"),
        (b'<?xml version="1.0" encoding="hex"?><mediawiki/>', "'hex' is not a text encoding"),
        # Another message in other releases of Python.
        (b'<?xml version="1.0" encoding="idna"?><mediawiki/>', "(decoding with 'idna'|Unsupported error)"),
    ],
)
def test_no_mediawiki_export(tmp_path, read, content, found):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(RunError, match=rf"a\.xml is no MediaWiki export \({found}.*set input\.format"):
        list(read(tmp_path / "a.xml"))


def test_a_page_above_the_limit_is_rejected(dump, read, monkeypatch):
    monkeypatch.setattr(streams, "MAX_RECORD_BYTES", 100)
    path = dump("a.xml", [page(1, "Mahaba", "x " * 51), page(2, "Maikli", "x " * 50)])
    first, second = read(path)
    assert (first.reason, first.detail) == (Reason.TOO_LONG, "page 1, Mahaba: more than 100 characters")
    assert second.reason is None


def test_settings_that_do_not_fit(dump, settings):
    path = dump("a.xml")
    with pytest.raises(ConfigError, match=r"input\.documents: .*a\.xml are whole articles; set it to true"):
        find_files(settings(path, documents=False).input)
    with pytest.raises(ConfigError, match=r"input\.column has no effect on wikipedia files"):
        find_files(settings(path, column="text").input)


def test_without_the_extra(dump, read, monkeypatch):
    monkeypatch.delitem(sys.modules, "multicsr.stages.ingest.wikitext", raising=False)
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    with pytest.raises(ConfigError, match=r"input\.format: wikipedia needs pip install 'multicsr\[ingest\]'"):
        list(read(dump("a.xml")))


def test_what_lies_beside_a_dump_is_no_text(tmp_path, dump, settings):
    path = dump("tlwiki-pages-articles-multistream.xml.bz2")
    for index in ("index.txt.bz2", "index1.txt-p1p41242.bz2"):
        (tmp_path / f"tlwiki-pages-articles-multistream-{index}").write_bytes(bz2.compress(b"600:10:A b c\n"))
    (file,) = find_files(settings(tmp_path).input).files
    assert (file.path, file.format) == (str(path), "wikipedia")
