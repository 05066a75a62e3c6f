"""Which files are found, and what they are called."""

import pytest

from multicsr.errors import ConfigError
from multicsr.ingest.files import find_files


@pytest.fixture
def tree(tmp_path):
    for name in ("a/one.txt", "a/b/two.txt.gz", "a/b/notes.md", "a/.hidden.txt", "c/one.txt", "c/x.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\n")
    return tmp_path


def names(config):
    return [(file.name, file.format) for file in find_files(config.input)]


def test_names_do_not_depend_on_where_the_input_lies(tree, config):
    assert names(config(tree / "a", column=None)) == [("b/two.txt.gz", "text"), ("one.txt", "text")]
    assert names(config(tree / "a" / "one.txt", column=None)) == [("one.txt", "text")]
    assert names(config(tree / "*" / "*.txt", column=None)) == [("a/one.txt", "text"), ("c/one.txt", "text")]
    assert names(config(tree / "**" / "*.gz", column=None)) == [("a/b/two.txt.gz", "text")]
    assert names(config(tree / "c")) == [("one.txt", "text"), ("x.csv", "csv")]


def test_format_may_be_given(tree, config):
    assert names(config(tree / "a" / "b", column=None, format="text")) == [
        ("notes.md", "text"),
        ("two.txt.gz", "text"),
    ]


@pytest.mark.parametrize(
    ("paths", "column", "message"),
    [
        (["nowhere.txt"], None, "no file, directory or glob .*nowhere.txt"),
        (["*.parquet"], None, "matches no file of a known format"),
        (["a/b/notes.md"], None, r"input\.format: cannot tell the format of .*notes\.md"),
        (["c/x.csv"], None, r"input\.column: .*x\.csv is csv; name the column"),
        (["a/one.txt"], "text", r"input\.column has no effect on text files"),
        (["a/one.txt", "c/one.txt"], None, "would both be called one.txt"),
    ],
)
def test_bad_paths(tree, config, paths, column, message):
    with pytest.raises(ConfigError, match=message):
        find_files(config(*(tree / path for path in paths), column=column).input)
