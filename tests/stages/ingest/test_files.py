"""Which files are found, and what they are called."""

import os
import pickle
from pathlib import Path

import pytest

from multicsr.errors import ConfigError, RunError
from multicsr.stages.ingest.files import find_files
from multicsr.stages.ingest.formats import HIDDEN
from multicsr.stages.ingest.readers import read_records
from multicsr.stages.ingest.record import Record


@pytest.fixture
def tree(tmp_path):
    for name in ("a/one.txt", "a/b/two.txt.gz", "a/b/notes.md", "a/.hidden.txt", "c/one.txt", "c/x.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\n")
    return tmp_path


@pytest.fixture
def odd_tree(tree):
    os.mkfifo(tree / "c/pipe")
    (tree / "c/x.tar.gz").write_text("")
    return tree


def names(config):
    return [(file.name, file.format) for file in find_files(config.input).files]


def test_names_do_not_depend_on_where_the_input_lies(tree, config):
    assert names(config(tree / "a", column=None)) == [("b/two.txt.gz", "text"), ("one.txt", "text")]
    assert names(config(tree / "a" / "one.txt", column=None)) == [("one.txt", "text")]
    assert names(config(tree / "*" / "*.txt", column=None)) == [("a/one.txt", "text"), ("c/one.txt", "text")]
    assert names(config(tree / "**" / "*.gz", column=None)) == [("a/b/two.txt.gz", "text")]
    assert names(config(tree / "c")) == [("one.txt", "text"), ("x.csv", "csv")]


ODD = {
    "B.TXT.GZ": "text",
    "a.json": "jsonl",
    "part-00000": "text",
    "part-r-00001.gz": "text",
    "d.txt.xz": "text",
    "e.txt.zstd": "text",
    "h.tab": "tsv",
    "x.csv/part-00000-1f.csv": "csv",
}
LEFT = {
    ".git/config.txt": "hidden",
    ".ipynb_checkpoints/a.csv": "hidden",
    "_temporary/0/part-00000": "hidden",
    "_SUCCESS": "hidden",
    "sub/._h.tab": "hidden",
    "notes.md": "of no known",
    "noending": "of no known",
    "a.txt.gz.gz": "of no known",
    "corpus.tar.gz": "archives",
    "corpus.ZIP": "archives",
    "tl-pages-articles-multistream-index.txt.bz2": "tables of contents",
}


def test_what_is_read_and_what_is_left_out(tmp_path, config):
    for name in [*ODD, *LEFT]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text\n")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nowhere.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find_files(config(tmp_path).input)
    assert {file.name: file.format for file in found.files} == ODD
    lines = "\n".join(found.lines())
    hidden = [".git/", ".ipynb_checkpoints/", "_temporary/", "_SUCCESS", "sub/._h.tab"]
    assert sorted(found.left_out[HIDDEN]) == sorted(hidden)
    assert "left out 5 files: hidden or temporary, as their names begin with . or _ (" in lines
    assert "left out 3 files: of no known ending; see input.format (" in lines
    assert "left out 2 files: archives; unpack them (" in lines
    assert "left out 2 files: no regular files" in lines
    assert "left out 1 file: links to what is read anyway (loop)" in lines


def test_links_to_directories_elsewhere_are_followed_once(tmp_path, config):
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.txt").write_text("text\n")
    (tmp_path / "in/sub/b.txt").write_text("text\n")
    (tmp_path / "in/one").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/two").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "in")
    assert names(config(tmp_path / "in", column=None)) == [("one/a.txt", "text"), ("sub/b.txt", "text")]


def test_a_glob_reads_a_file_once_and_reports_directories(tmp_path, config):
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/b.txt").write_text("text\n")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    assert names(config(tmp_path / "in/**/*.txt", column=None)) == [("sub/b.txt", "text")]
    with pytest.raises(ConfigError, match=r"folders that the glob matches; end it in /\*\* to read"):
        names(config(tmp_path / "in/*", column=None))


def test_what_a_user_names_is_read_though_its_name_is_hidden(tmp_path, config):
    (tmp_path / "_raw").mkdir()
    (tmp_path / "_raw/.a.txt").write_text("text\n")
    (tmp_path / "_raw/_b.txt").write_text("text\n")
    assert names(config(tmp_path / "_raw/.a.txt", column=None)) == [(".a.txt", "text")]
    assert names(config(tmp_path / "_raw/_*.txt", column=None)) == [("_b.txt", "text")]


def test_names_that_are_not_utf_8(tmp_path, config):
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.txt", "wb") as file:
        file.write(b"A sentence of a file.\n")
    (file,) = find_files(config(tmp_path / "in", column=None).input).files
    assert file.name == r"caf\xe9.txt"
    assert list(read_records(file, None)) == [Record("A sentence of a file.")]
    pickle.loads(pickle.dumps(file)).shown.encode()


def test_a_directory_that_cannot_be_read_is_named(tmp_path, config, monkeypatch):
    def reject(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", reject)
    with pytest.raises(RunError, match=rf"cannot read {tmp_path}: Permission denied"):
        find_files(config(tmp_path, column=None).input)


def test_format_may_be_given(tree, config):
    assert names(config(tree / "a" / "b", column=None, format="text")) == [
        ("notes.md", "text"),
        ("two.txt.gz", "text"),
    ]


@pytest.mark.parametrize(
    ("paths", "column", "message"),
    [
        (["c/pipe"], None, "pipe is no regular file"),
        (["c/x.tar.gz"], None, r"input\.paths: .*x\.tar\.gz is an archive; unpack it"),
        (["nowhere.txt"], None, "no file, directory or glob .*nowhere.txt"),
        (["*.parquet"], None, "matches no file of a known format"),
        (["a/b/notes.md"], None, r"input\.format: cannot infer the format of .*notes\.md"),
        (["c/x.csv"], None, r"input\.column: .*x\.csv is csv; name the column"),
        (["a/one.txt"], "text", r"input\.column has no effect on text files"),
        (["a/one.txt", "c/one.txt"], None, "would both be called one.txt"),
    ],
)
def test_bad_paths(odd_tree, config, paths, column, message):
    with pytest.raises(ConfigError, match=message):
        find_files(config(*(odd_tree / path for path in paths), column=column).input)
