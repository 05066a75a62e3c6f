import gzip
from pathlib import Path

import pytest

from multicsr.errors import ConfigError
from multicsr.stages.evaluate import StsTask, TripletTask, find_tasks, parse_joins, read_task

STS = "score\tsentence1\tsentence2\n5\tA cat sits.\tA cat is sitting.\n0.5\tA cat sits.\tStocks fell.\n"
TRIPLETS = "anchor\tpositive\tnegative\nA cat sits.\tA cat is sitting.\tNo cat sits.\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["dev.tsv", "dev.tsv.gz"])
def test_sts_is_known_by_its_columns(tmp_path, name):
    task = read_task(write(tmp_path / name, STS))
    assert task == StsTask(
        "dev",
        [5.0, 0.5],
        ["A cat sits.", "A cat sits."],
        ["A cat is sitting.", "Stocks fell."],
        ["", ""],
    )


def test_triplets_are_known_by_their_columns(tmp_path):
    task = read_task(write(tmp_path / "t.tsv", TRIPLETS))
    assert task == TripletTask("t", ["A cat sits."], ["A cat is sitting."], ["No cat sits."])


def test_columns_in_any_order_others_ignored_subset_kept(tmp_path):
    text = "id\tsentence2\tsubset\tscore\tsentence1\n1\tb\tx\t3\ta\n2\td\ty\t4\tc\n"
    task = read_task(write(tmp_path / "t.tsv", text))
    assert task == StsTask("t", [3.0, 4.0], ["a", "c"], ["b", "d"], ["x", "y"])


def test_quotes_and_odd_line_separators_are_text(tmp_path):
    text = '\ufeffscore\tsentence1\tsentence2\r\n1\t"Hi, she said.\ta\u2028b\r\n2\tc\x0bd\te\r\n\r\n'
    task = read_task(write(tmp_path / "t.tsv", text))
    assert isinstance(task, StsTask)
    assert task.sentences1 == ['"Hi, she said.', "c\x0bd"]
    assert task.sentences2 == ["a\u2028b", "e"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STS + "high\ta\tb\n", "line 4: score 'high' is not a number"),
        (STS + "nan\ta\tb\n", "line 4: score 'nan' is not a number"),
        (STS + "3\ta\n", "line 4: 2 fields, the header has 3"),
        ("score\tsentence1\tsentence2\n", "at least two different scores"),
        ("score\tsentence1\tsentence2\n3\ta\tb\n3\tc\td\n", "at least two different scores"),
        ("anchor\tpositive\tnegative\n", "has no rows"),
        ("premise\thypothesis\na\tb\n", "needs the columns score, sentence1, sentence2, or anchor"),
        ("", "is no evaluation file"),
    ],
)
def test_broken_files_name_file_and_place(tmp_path, text, message):
    path = write(tmp_path / "bad.tsv", text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_task(path)
    assert str(path) in str(caught.value)


def test_unreadable_bytes_are_a_config_error(tmp_path):
    whole = gzip.compress((STS + "1\ta\tb\n" * 5000).encode())
    for name, data in {
        "cut.tsv.gz": whole[:-20],
        "plain.tsv.gz": STS.encode(),
        "l.tsv": b"score\t\xff\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=f"cannot read evaluation file .*{name}"):
            read_task(tmp_path / name)


def test_missing_paths_are_config_errors(tmp_path):
    with pytest.raises(ConfigError, match="no evaluation file"):
        read_task(tmp_path / "none.tsv")
    with pytest.raises(ConfigError, match="no evaluation file or directory"):
        find_tasks([tmp_path / "none"])


def test_directories_are_searched_to_the_bottom(tmp_path):
    write(tmp_path / "en" / "dev.tsv.gz", STS)
    write(tmp_path / "fil" / "dev.tsv", STS)
    write(tmp_path / "t.tsv", TRIPLETS)
    write(tmp_path / "nli.tsv", "premise\thypothesis\na\tb\n")
    write(tmp_path / "notes.txt", "hello")
    found = find_tasks([tmp_path, tmp_path / "t.tsv"])
    assert [task.name for task in found.tasks] == ["en/dev", "fil/dev", "t"]
    assert found.skipped == ["nli"]


def test_nothing_usable_is_a_config_error(tmp_path):
    write(tmp_path / "nli.tsv", "premise\thypothesis\na\tb\n")
    for data in ([tmp_path], []):
        with pytest.raises(ConfigError, match="no evaluation file in"):
            find_tasks(data)


def test_two_tasks_of_one_name_are_a_config_error(tmp_path):
    data = [write(tmp_path / folder / "dev.tsv", STS).parent for folder in ("en", "fil")]
    with pytest.raises(ConfigError, match="two evaluation files are called 'dev'"):
        find_tasks(data)


def test_join_puts_the_pairs_of_its_tasks_together(tmp_path):
    write(tmp_path / "a.tsv", STS)
    write(tmp_path / "b.tsv", "subset\tscore\tsentence1\tsentence2\nx\t1\tp\tq\n\t2\tr\ts\n")
    joined = find_tasks([tmp_path], parse_joins(["ab=a, b"])).tasks[-1]
    assert isinstance(joined, StsTask)
    assert joined.name == "ab"
    assert joined.scores == [5.0, 0.5, 1.0, 2.0]
    assert joined.sentences2 == ["A cat is sitting.", "Stocks fell.", "q", "s"]
    assert joined.subsets == ["a", "a", "x", "b"]


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ("ab=a,t", "no STS task 't'"),
        ("ab=a,c", "no STS task 'c'; there are a"),
        ("a=a", "called that already"),
    ],
)
def test_joins_of_what_is_not_there_are_config_errors(tmp_path, join, message):
    write(tmp_path / "a.tsv", STS)
    write(tmp_path / "t.tsv", TRIPLETS)
    with pytest.raises(ConfigError, match=message):
        find_tasks([tmp_path], parse_joins([join]))


@pytest.mark.parametrize(
    ("joins", "message"),
    [(["x=a", "x=b"], "another joined task is called x"), (["x=a,b,a"], "a task is named twice")],
)
def test_what_is_named_twice_in_joins_is_a_config_error(joins, message):
    with pytest.raises(ConfigError, match=message):
        parse_joins(joins)


@pytest.mark.parametrize("text", ["", "ab", "=a,b", "ab=", "ab=a,,b"])
def test_malformed_joins_are_config_errors(text):
    with pytest.raises(ConfigError, match="write name=task"):
        parse_joins([text])


def test_files_whose_names_begin_with_a_dot_are_left_out(tmp_path):
    (tmp_path / "sts.tsv").write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n")
    for name in ("._sts.tsv", "__MACOSX/._sts.tsv", ".cache/old.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xb0\xff")
    assert [task.name for task in find_tasks([tmp_path]).tasks] == ["sts"]
