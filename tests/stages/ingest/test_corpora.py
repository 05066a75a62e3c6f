"""Corpora that people name, in the forms in which they are distributed."""

import gzip
import json
import lzma
import re
from pathlib import Path

import pytest
import yaml

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.rows import Reason
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.readers import read_records
from tests.support.paths import ROOT
from tests.support.placed_records import placed_records

ENGLISH = ["Good morning to all.", 'He said "no" and left.', "The river was full."]
TAGALOG = ["Magandang umaga sa lahat.", 'Sinabi niyang "hindi" at umalis.', "Puno ang ilog."]
PAIRS = "".join(f"{one}\t{other}\n" for one, other in zip(ENGLISH, TAGALOG, strict=True))
TMX = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx version="1.4">'
    '<header srclang="en"/><body>%s</body></tmx>'
)


def unit(**texts):
    variants = (f'<tuv xml:lang="{tag}"><seg>{text}</seg></tuv>' for tag, text in texts.items())
    return f"<tu>{''.join(variants)}</tu>\n"


UNITS = "".join(unit(en=one, tl=other) for one, other in zip(ENGLISH, TAGALOG, strict=True))


def read(*paths, language="tl", **given):
    """The records of all files, as ingest reads them."""
    config = Config.model_validate(
        {
            "name": "t",
            "store": "t",
            "input": {"paths": [str(path) for path in paths], **given},
            "ingest": {"language": language},
        }
    )
    files = find_files(config.input, None, language).files
    return [record for file in files for _, record in placed_records(config, file)]


def texts(*paths, **given):
    return [record.text for record in read(*paths, **given) if record.reason is None]


@pytest.mark.parametrize("column", [2, "2"])
@pytest.mark.parametrize("blank", ["", "\n\r\n", "\ufeff"])
def test_a_column_by_its_number(tmp_path, column, blank):
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress((blank + PAIRS).encode()))
    assert texts(tmp_path / "a.tsv.gz", header=False, column=column) == TAGALOG
    assert texts(tmp_path / "a.tsv.gz", header=False, column=1) == ENGLISH


def test_a_csv_file_without_header(tmp_path):
    (tmp_path / "a.csv").write_text('1,"a ""b""\nc"\n2,"d\n3,e\n4,f,g\n')
    first, second, third, fourth = read(tmp_path / "a.csv", header=False, column=2)
    assert (first.text, third.text) == ('a "b"\nc', "e")
    assert second.detail == "line 3: a quote is not closed as it should be; it spans 3 lines"
    assert fourth.detail == "line 5: 3 fields, the first line has 2"


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "a.tsv",
            {"column": 2},
            r"no column '2'; .*; for a file without header set input\.header: false and",
        ),
        ("a.tsv", {"column": "text"}, r"no column 'text'; .*for a file without header set input\.header"),
        ("a.tsv", {"header": False, "column": 3}, "has no column 3; its first line has 2 columns"),
        ("a.txt", {"header": False, "column": 3}, "input.column has no effect on text files"),
        ("a.jsonl", {"header": False, "column": 3}, "input.header has no effect on jsonl files; remove it"),
        ("a.tmx", {"column": 3}, "input.column has no effect on tmx files"),
        ("a.en-tl.de", {}, r"cannot infer the format of .*a\.en-tl\.de .*or the code in ingest\.language"),
    ],
)
def test_settings_that_do_not_fit_the_file(tmp_path, name, given, message):
    (tmp_path / name).write_text(PAIRS)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / name, **given)


@pytest.mark.parametrize("column", [None, "text", 0, -1, "02", True, 10**7])
def test_no_header_takes_a_number(column):
    with pytest.raises(ValueError, match=r"header: false requires the number|valid string"):
        read("x", header=False, column=column)


def test_moses_text_of_the_language_alone_is_read(tmp_path):
    for name, lines in (("t.en-tl.tl", TAGALOG), ("t.en-tl.en", ENGLISH), ("t.en-pt_br.pt_BR", ["Bom dia."])):
        (tmp_path / name).write_text("\n".join(lines))
    assert texts(tmp_path) == texts(tmp_path, language="fil") == texts(tmp_path / "t.en-tl.tl") == TAGALOG
    assert texts(tmp_path, language="en") == ENGLISH
    assert texts(tmp_path, language="pt") == texts(tmp_path, language="pt-BR") == ["Bom dia."]
    with pytest.raises(ConfigError, match="matches no file of a known format"):
        read(tmp_path, language="pt-PT")


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16"])
def test_tmx(tmp_path, encoding):
    (tmp_path / "a.tmx").write_bytes((TMX % UNITS).replace("UTF-8", encoding).encode(encoding))
    assert texts(tmp_path / "a.tmx") == TAGALOG
    assert texts(tmp_path, language="en") == ENGLISH


def test_tmx_in_its_shapes(tmp_path):
    marked = 'A <bpt i="1">&lt;b></bpt>bold<ept i="1">&lt;/b></ept> <hi>w<ph/>ord</hi> &amp; end'
    old = '<tu><tuv lang="TL"><seg>Luma.</seg></tuv></tu>'
    body = unit(**{"en": "Colour", "tl-PH": marked}) + old + unit(en="Alone") + unit(tl="One", fil="Two")
    (tmp_path / "a.tmx").write_text(TMX % body)
    found = read(tmp_path / "a.tmx")
    assert [record.text for record in found] == ["A bold word & end", "Luma.", "", "One", "Two"]
    assert (found[2].reason, found[2].detail) == (Reason.MALFORMED, "unit 3: no segment in tl")


@pytest.mark.parametrize("times", [1, 600])
def test_a_tmx_without_the_language(tmp_path, times):
    (tmp_path / "a.tmx").write_text(TMX % (UNITS * times))
    with pytest.raises(
        ConfigError, match=r"ingest\.language: .*a\.tmx has no segment in 'de'; it has en, tl$"
    ):
        read(tmp_path / "a.tmx", language="de")


LEVELS = "".join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 12))
BOMB = f'<!DOCTYPE tmx [<!ENTITY x0 "ha">{LEVELS}]><tmx><body>{unit(tl="&x11;")}</body></tmx>'
OUTSIDE = f'<!DOCTYPE tmx [<!ENTITY x SYSTEM "secret">]><tmx><body>{unit(tl="&x;")}</body></tmx>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html/>", r"a\.tmx is no TMX \(it begins with <html>\); set input\.format"),
        ("no XML", "is no TMX .*syntax error"),
        ((TMX % UNITS)[:-30], r"cannot read .*a\.tmx: .*damaged or cut off"),
        (BOMB, r"cannot read .*a\.tmx: limit on input amplification"),
        (OUTSIDE, r"cannot read .*a\.tmx: undefined entity"),
    ],
)
def test_a_damaged_tmx(tmp_path, content, message):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "a.tmx").write_text(content)
    with pytest.raises(RunError, match=message):
        read(tmp_path / "a.tmx")


GUIDE = (ROOT / "docs/how-to/own-data.md").read_text(encoding="utf-8").partition("## Well-known corpora")[2]
ROWS = dict(re.findall(r"^\| (.+?) \| .*? \| `(\{.*\})` \|$", GUIDE.partition("\n## ")[0], re.M))
LINES = "\n".join(TAGALOG).encode()
NUMBERED = "".join(f"{number}\t{text}\n" for number, text in enumerate(TAGALOG, 1)).encode()
PAGE = "<page><title>A</title><ns>0</ns><id>1</id><revision><text>%s</text></revision></page>"
WIKI = f"<mediawiki>{PAGE}</mediawiki>"
DISTRIBUTED = {
    "TED2020, pairs": {"talks-en-tl-train.tsv.gz": gzip.compress(PAIRS.encode())},
    "OPUS, Moses": {
        "TED2020.en-tl.tl": LINES,
        "TED2020.en-tl.en": b"No.",
        "TED2020.en-tl.xml": b"<cesAlign/>",
    },
    "OPUS, TMX": {"en-tl.tmx.gz": gzip.compress((TMX % UNITS).encode())},
    "Leipzig": {"tgl_news_2020_10K-sentences.txt": NUMBERED, "tgl_news_2020_10K-words.txt": b"1\tng\t9\n"},
    "CC-100": {"tl.txt.xz": lzma.compress(LINES)},
    "OSCAR": {"tl_meta_part_1.jsonl.gz": gzip.compress(json.dumps({"content": LINES.decode()}).encode())},
    "wiki1m": {"wiki1m_for_simcse.txt": LINES},
    "Wikipedia": {"tlwiki-20260101-pages-articles.xml": (WIKI % "\n\n".join(TAGALOG)).encode()},
}


def test_the_guide_names_these_corpora():
    assert list(ROWS) == list(DISTRIBUTED)


@pytest.mark.parametrize("corpus", DISTRIBUTED)
def test_the_settings_of_the_guide_read_the_corpus(tmp_path: Path, corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = yaml.safe_load(ROWS[corpus])
    (pattern,) = given["paths"]
    folder = Path(pattern).parent
    folder.mkdir()
    for name, content in DISTRIBUTED[corpus].items():
        (folder / name).write_bytes(content)
    assert [text.strip() for text in texts(given.pop("paths")[0], **given)] == TAGALOG


def test_readers_have_defaults_for_a_file_with_header(tmp_path):
    (tmp_path / "a.tsv").write_text("en\ttl\n" + PAIRS)
    (file,) = find_files(
        Config.model_validate(
            {"name": "t", "store": "t", "input": {"paths": [str(tmp_path)], "column": "tl"}}
        ).input
    ).files
    assert [record.text for record in read_records(file, "tl")] == TAGALOG
