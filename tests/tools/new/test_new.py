"""`multicsr new`: corpora as people have them, and the configuration that is right for each."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multicsr.config_file import load_config
from multicsr.errors import ConfigError
from multicsr.pipeline.preflight import find_problems
from multicsr.tools.new import write as write_module
from multicsr.tools.new import write_config
from multicsr.tools.new.columns import has_header
from multicsr.tools.new.look import sniff
from multicsr.tools.new.write import Choices
from tests.support.paths import ROOT

CAPTIONS = [
    line.split("\t")[0]
    for line in (ROOT / "multicsr/assets/demo/sentences.tsv").read_text().splitlines()[1:401]
]
CHINESE = [
    "他昨天去北京参加了一个重要的会议。",
    "这家餐厅的服务很好，但是价格有点贵。",
    "我觉得这本书非常有意思，推荐给大家。",
]
LETTER = "My printer does not print since Monday. I have tried another cable. Please help me soon."


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(write_module, "num_gpus", lambda: 0)


def new(folder: Path, *paths: Path, **choices):
    """Write a configuration and return its settings and its text; it must pass the preflight."""
    given = Choices("legal", [str(path) for path in paths], store=str(folder / "store"), **choices)
    out = write_config(given, folder / "new.yaml")
    config = load_config(out)
    assert find_problems(("ingest", "generate", "curate"), config) == []
    return config, out.read_text(encoding="utf-8")


def test_tsv_with_header(tmp_path):
    path = tmp_path / "a.tsv"
    rows = [f"{number}\tflickr\t{text}" for number, text in enumerate(CAPTIONS)]
    path.write_text("\n".join(["id\tsource\tcaption", *rows]) + "\n")
    config, text = new(tmp_path, path)
    assert (config.input.column, config.input.header, config.input.documents) == ("caption", True, False)
    assert config.ingest.language == "en"
    assert (config.ingest.min_words, config.ingest.max_words) == (3, 64)
    assert "# Another column: source" in text


def test_jsonl_with_several_columns(tmp_path):
    path = tmp_path / "tickets.jsonl"
    records = [
        {
            "id": n,
            "title": f"Printer number {n} is broken",
            "url": f"https://host/ticket/{n}/a/b/c",
            "body": LETTER,
        }
        for n in range(50)
    ]
    for number, record in enumerate(records):
        record["body"] += f" This is ticket {number}."
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    config, text = new(tmp_path, path)
    assert config.input.column == "body"
    assert config.input.documents, "several sentences a record"
    assert "# Another column: title" in text


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(400)), "label": ["x"] * 400, "sentence": CAPTIONS}), path)
    config, _ = new(tmp_path, path)
    assert config.input.column == "sentence"


def test_plain_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(CAPTIONS))
    config, _ = new(tmp_path, path)
    assert (config.input.column, config.input.format) == (None, "auto")


def test_folder_of_compressed_text(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(30):
        part = "\n".join(CAPTIONS[number::30]).encode()
        (tmp_path / f"in/{number}.txt.gz").write_bytes(gzip.compress(part))
    (tmp_path / "in/readme.pdf").write_bytes(b"%PDF")
    config, text = new(tmp_path, tmp_path / "in")
    assert config.input.paths == [str(tmp_path / "in")]
    assert "30 files: text" in text
    assert "left out 1 file" in text


def test_chinese(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"{number}{text}" for number in range(40) for text in CHINESE))
    config, text = new(tmp_path, path)
    assert config.ingest.language == "zh"
    assert "English encoder" in text
    assert config.generate.prompts == "fewshot"
    assert "its examples are in zh, too" in text


BURMESE = ["ငါ သူ့ကို စကား ထပ်မပြောဖြစ်ဘူး။", "သူတို့က ကျောင်းကို သွားနေကြတယ်။"]


def test_language_that_no_detector_knows(tmp_path):
    path = tmp_path / "a.tsv"
    rows = [f"{number}{text}\tnews of the day and the week" for number in range(30) for text in BURMESE]
    path.write_text("\n".join(["text\tgenre", *rows]))
    config, text = new(tmp_path, path)
    assert (config.input.column, config.ingest.language) == ("text", "en")
    assert "not detected: set it" in text


def test_mixed_languages_are_mentioned(tmp_path):
    path = tmp_path / "a.txt"
    german = [f"Der Zug um {n} Uhr hat heute leider wieder eine halbe Stunde Verspätung." for n in range(100)]
    path.write_text("\n".join([*CAPTIONS[:250], *german]))
    config, text = new(tmp_path, path)
    assert config.ingest.language == "en"
    assert "Other languages may be among them" in text


def test_corpus_of_several_languages_is_mentioned(tmp_path):
    path = tmp_path / "a.txt"
    german = [f"Der Zug um {n} Uhr hat heute leider wieder eine halbe Stunde Verspätung." for n in range(60)]
    chinese = [f"{text}{n}" for text in CHINESE for n in range(20)]
    path.write_text("\n".join([*CAPTIONS[:60], *german, *chinese]))
    config, text = new(tmp_path, path)
    assert config.ingest.language == "en"
    for words in ("de 33%", "en 33%", "zh 33%", "or auto for several"):
        assert words in text


def test_csv_without_header(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([n, "2024-01-01", text] for n, text in enumerate(CAPTIONS))
    config, _ = new(tmp_path, path)
    assert (config.input.header, config.input.column) == (False, "3")


def test_file_without_an_ending(tmp_path):
    path = tmp_path / "dump"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in CAPTIONS))
    config, _ = new(tmp_path, path)
    assert (config.input.format, config.input.column) == ("jsonl", "text")


def test_html_is_mentioned(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"<p>{text}</p>" for text in CAPTIONS))
    _, text = new(tmp_path, path)
    assert "100% of the records hold HTML" in text


def test_greetings_that_repeat_do_not_lower_the_limits(tmp_path):
    path = tmp_path / "mails.txt"
    path.write_text("\n".join(f"Hello team,\n{text}" for text in CAPTIONS))
    config, text = new(tmp_path, path)
    assert config.ingest.min_words == 3
    assert "suit them" in text


def test_limits_follow_the_lengths(tmp_path):
    path = tmp_path / "titles.txt"
    path.write_text("\n".join(" ".join(text.split()[:2]) for text in CAPTIONS))
    config, _ = new(tmp_path, path)
    assert config.ingest.min_words in (1, 2)
    long = tmp_path / "long.txt"
    long.write_text(
        "\n".join(" and ".join(text.rstrip(".") for text in CAPTIONS[n : n + 8]) for n in range(300))
    )
    (tmp_path / "new.yaml").unlink()
    config, _ = new(tmp_path, long)
    assert config.ingest.max_words > 100


def test_choices_are_taken(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(CAPTIONS))
    config, _ = new(tmp_path, path, llm="tinylm", encoder="all-MiniLM-L6-v2", language="de")
    assert (config.llm.model, config.train.encoder, config.ingest.language) == (
        "tinylm",
        "all-MiniLM-L6-v2",
        "de",
    )


@pytest.mark.parametrize(("has_vllm", "engine"), [(True, "vllm"), (False, "transformers")])
def test_engine_is_one_that_is_there(tmp_path, monkeypatch, has_vllm, engine):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(CAPTIONS))
    monkeypatch.setattr(write_module, "num_gpus", lambda: 1)
    monkeypatch.setattr(write_module.importlib.util, "find_spec", lambda name: has_vllm or None)
    given = Choices("legal", [str(path)], llm="some/model")
    config = load_config(write_config(given, tmp_path / "gpu.yaml"))
    assert (config.llm.engine, config.generate.gpus_per_actor, config.train.gpus_per_worker) == (engine, 1, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,text\n1,Über den Wolken ist es schön.\n".encode("latin-1"), r"id, text\. .*UTF-8"),
        ("a.csv", b"a,b\n1,2\n3,4\n", r"no column of .* holds text that can be read; it has a, b"),
        ("a.csv", b"id;text\n1;2\n", "id;text. See that fields are separated by commas"),
        ("a.jsonl", b'"A sentence is here."\n', "it has none. See that each record is an object"),
        (
            "a.csv",
            b"id;text\n1;A dog runs in the park.\n2;A cat sleeps.\n",
            "a.csv are separated by ';'; save it",
        ),
        ("a.txt", "Über ä.\nÜber ö.\n".encode("latin-1"), "no record of .* holds text; .* UTF-8"),
        ("a.txt", b"1\n2\n3\n", "no record of .* holds text"),
        ("a.txt", b"", "no record of .* holds text"),
    ],
)
def test_no_column_of_numbers_stands_for_one_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        write_config(Choices("x", [str(tmp_path / name)]), tmp_path / "new.yaml")
    assert not (tmp_path / "new.yaml").exists()


def test_language_of_short_texts(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"This is the row {i} of it." for i in range(200)))
    config, _ = new(tmp_path, tmp_path / "a.txt")
    assert config.ingest.language == "en"


def test_existing_file_is_kept(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(CAPTIONS))
    (tmp_path / "new.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        new(tmp_path, path)
    assert (tmp_path / "new.yaml").read_text() == "mine"


def test_text_that_could_end_a_comment_is_escaped(tmp_path):
    path = tmp_path / "a.jsonl"
    texts = [f"one\u2028input: [x]\x85 and {text}" for text in CAPTIONS]
    path.write_text("".join(json.dumps({"na: me #": text}) + "\n" for text in texts))
    config, _ = new(tmp_path, path)
    assert config.input.column == "na: me #"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"paths": ["no/such"]}, "input.paths: no file, directory or glob"),
        ({"name": "a b"}, "name"),
    ],
)
def test_wrong_choices_are_one_line_and_leave_no_file(tmp_path, choices, message):
    (tmp_path / "a.txt").write_text("\n".join(CAPTIONS))
    given = Choices(**({"name": "legal", "paths": [str(tmp_path / "a.txt")]} | choices))
    with pytest.raises(ConfigError, match=message):
        write_config(given, tmp_path / "new.yaml")
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize(
    ("first", "is_header"),
    [
        (["id", "text"], True),
        (["1", "text"], False),
        (["A man is walking in the park.", "x"], False),
        (["a", "a"], False),
        (["标题", "正文"], True),
        (["2024-01-02", "hello"], False),
        (["", "text"], False),
    ],
)
def test_header_is_told_from_a_record(first, is_header):
    assert has_header(first) is is_header


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b"PAR1....", "parquet"),
        (b'{"a": 1}\n', "jsonl"),
        (b'[{"a": 1}]', "jsonl"),
        (b"a\tb\nc\td\n", "tsv"),
        (b"a,b\nc,d\n", "csv"),
        (b"One, two.\nThree, four, five.\n", "text"),
        (b"Just text.\n", "text"),
    ],
)
def test_format_is_seen_in_the_content(head, format):
    assert sniff(head) == format
