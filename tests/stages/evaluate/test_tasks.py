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
        ("premise\thypothesis\na\tb\n", "needs columns score, sentence1, sentence2, or columns anchor"),
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
    assert found.skipped == {"nli": "no kind of task has its columns (hypothesis, premise)"}


def test_nothing_usable_is_a_config_error(tmp_path):
    write(tmp_path / "nli.tsv", "premise\thypothesis\na\tb\n")
    table = write(tmp_path / "sts.csv", "score,sentence1,sentence2\n1,a,b\n")
    with pytest.raises(ConfigError, match="no evaluation file in") as raised:
        find_tasks([tmp_path, table])
    assert raised.value.args[1:] == (
        "not measured: nli: no kind of task has its columns (hypothesis, premise)",
        "not measured: sts.csv: its columns are separated by commas (score,sentence1,sentence2); "
        "convert it to TSV",
        "not measured: 1 file that does not end in .tsv, .tsv.gz, .jsonl or .jsonl.gz: sts.csv",
    )
    with pytest.raises(ConfigError, match="there is nothing to measure: give files or directories"):
        find_tasks([])


def test_two_tasks_of_one_name_are_a_config_error(tmp_path):
    data = [write(tmp_path / folder / "dev.tsv", STS).parent for folder in ("en", "fil")]
    with pytest.raises(ConfigError, match="two evaluation tasks are called 'dev'"):
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


@pytest.fixture
def mixed(tmp_path) -> Path:
    """A folder with one STS file and invalid files of several kinds."""
    write(tmp_path / "good.tsv", STS)
    write(tmp_path / "equal.tsv", "score\tsentence1\tsentence2\n3\ta\tb\n3\tc\td\n")
    write(tmp_path / "label.tsv", "label\tsentence1\tsentence2\nmaybe\ta\tb\n")
    (tmp_path / "bytes.tsv").write_bytes(b"score\t\xff\n")
    return tmp_path


def test_all_invalid_files_are_named_at_once(mixed):
    with pytest.raises(ConfigError) as caught:
        find_tasks([mixed])
    assert len(caught.value.args) == 3
    assert all(f"{name}.tsv" in str(caught.value) for name in ("bytes", "equal", "label"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.jsonl",
            '{"query": [], "positive": ["a"], "negative": ["b"]}\n',
            "line 1: query must be one text",
        ),
        ("a.tsv", "query\tpositive\tnegative\na\tb\tc\n", "needs JSON lines"),
    ],
)
def test_candidates_of_another_form_are_one_line(tmp_path, name, text, words):
    with pytest.raises(ConfigError, match=words):
        find_tasks([write(tmp_path / name, text)])


def test_a_relevance_that_would_take_gigabytes_is_refused(tmp_path):
    write(tmp_path / "s_corpus.tsv", "doc_id\ttext\n1\ta\n")
    write(tmp_path / "s_queries.tsv", "query_id\ttext\n1\ta\n")
    write(tmp_path / "s_qrels.tsv", "query_id\tdoc_id\tscore\n1\t1\t2000000000\n")
    with pytest.raises(ConfigError, match=r"line 2: score 2000000000 is above 1,000"):
        find_tasks([tmp_path])


@pytest.mark.parametrize("labels", [("0.0", "1.0"), ("False", "True"), ("false", "true")])
def test_labels_of_data_frames_are_labels(tmp_path, labels):
    rows = "".join(f"{label}\ta\t{label}\n" for label in labels)
    [task] = find_tasks([write(tmp_path / "a.tsv", f"label\tsentence1\tsentence2\n{rows}")]).tasks
    assert task.labels == [0, 1]


def test_invalid_files_pass_on_request_with_their_reasons(mixed):
    found = find_tasks([mixed], lets_invalid_pass=True)
    assert [task.name for task in found.tasks] == ["good"]
    assert found.unusable.keys() == {"bytes", "equal", "label"}
    assert any(
        line.startswith("not measured: equal: ") and "two different" in line for line in found.describe()
    )
    [line] = found.unusable_files()
    assert line.startswith("3 files were not measured: ")
    (mixed / "good.tsv").unlink()
    with pytest.raises(ConfigError, match=r"two different scores"):
        find_tasks([mixed], lets_invalid_pass=True)


def test_links_to_folders_are_entered_once_and_endings_may_be_capital(tmp_path):
    write(tmp_path / "there" / "a.TSV", STS)
    write(tmp_path / "there" / "b.JSONL", '{"score": 1, "sentence1": "a", "sentence2": "b"}\n' * 2)
    write(tmp_path / "there" / "readme.txt", "hello")
    (tmp_path / "there" / "loop").symlink_to(tmp_path / "there")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there")
    found = find_tasks([tmp_path / "here"], lets_invalid_pass=True)
    assert [task.name for task in found.tasks] == ["link/a"]
    assert found.unusable.keys() == {"link/b"}
    assert found.others == ("link/readme.txt",)
    assert found.describe()[-1].endswith("or .jsonl.gz: link/readme.txt")


def folder_of(tmp_path, text: str, *names: str) -> Path:
    for name in names:
        write(tmp_path / f"{name}.tsv", text)
    return tmp_path


@pytest.mark.parametrize("text", [STS, TRIPLETS], ids=["sts", "triplets"])
@pytest.mark.parametrize(
    ("names", "measured"),
    [
        (["x_train", "x_dev", "x_validation", "x_test", "other"], ["other", "x_test"]),
        (["x_train", "x_dev", "x_validation"], ["x_dev"]),
        (["x_train", "x_val"], ["x_val"]),
        (["x_train"], ["x_train"]),
        (["x/train", "x/validation", "x/test", "y/dev"], ["x/test", "y/dev"]),
        (["train", "trial", "test"], ["test"]),
    ],
)
def test_of_the_splits_of_a_set_one_is_measured(tmp_path, text, names, measured):
    found = find_tasks([folder_of(tmp_path, text, *names)])
    assert [task.name for task in found.tasks] == measured
    assert {*found.skipped} == {*names} - {*measured}
    best = measured[-1].replace("/", "_").rpartition("_")[2]
    if "x_train" in found.skipped:
        assert found.skipped["x_train"] == f"split train; split {best} of the same set is measured"


def test_files_of_other_columns_are_no_splits_of_the_same_set(tmp_path):
    folder_of(tmp_path, STS, "x_test")
    folder_of(tmp_path, TRIPLETS, "x_train")
    assert [task.name for task in find_tasks([tmp_path]).tasks] == ["x_test", "x_train"]


def test_a_join_may_name_splits_that_are_not_measured_otherwise(tmp_path):
    folder_of(tmp_path, STS, "x_train", "x_dev", "x_test")
    found = find_tasks([tmp_path], parse_joins(["x=x_train,x_test"]))
    assert [task.name for task in found.tasks] == ["x_test", "x_train", "x"]
    assert {*found.skipped} == {"x_dev"}


def test_a_second_validation_split_of_classes_is_no_task_of_its_own(tmp_path):
    rows = "".join(f"{label}\tword {n} {label}\n" for n in range(12) for label in "ab")
    folder_of(tmp_path, f"label\tsentence\n{rows}", "x_train", "x_dev", "x_validation", "x_test")
    found = find_tasks([tmp_path])
    assert [(task.kind, task.name) for task in found.tasks] == [("transfer", "x")]
    assert {*found.skipped} == {"x_validation"}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.tsv", STS.replace("\n", "\r").encode(), r"carriage return alone; write line feeds instead"),
        ("a.tsv", f"{STS}".encode("utf-16"), r"cannot read .*; convert it to UTF-8"),
        ("a.tsv", STS.replace("e", "\xe9").encode("latin-1"), r"cannot read .*; convert it to UTF-8"),
        (
            "a.tsv",
            b"score\tsentence1\tsentence1\tsentence2\n1\ta\tb\tc\n",
            r"2 columns 'sentence1'; rename one",
        ),
        (
            "a.jsonl",
            b'{"score": 1, "sentence1": "a", "sentence2": "b"}\n' + b"[" * 99_999,
            r"line 2: this is not JSON",
        ),
        (
            "a.jsonl",
            b'{"score": 1, "sentence1": "\\ud800", "sentence2": "b"}\n',
            r"line 1: this is not JSON: .*surrogates",
        ),
    ],
)
def test_odd_files_are_one_line_that_names_the_cause(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        find_tasks([tmp_path])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("deep.jsonl", b"[" * 99_999, "its first line is empty or no JSON object"),
        ("list.jsonl", b"[1, 2]\n", "its first line is empty or no JSON object"),
        ("none.tsv", b"", "its first line is empty"),
        ("wide.tsv", STS.encode("utf-16-le"), "it holds zero bytes, as UTF-16 does; convert it to UTF-8"),
        ("one.tsv", b"label\tsentence\na\tb\n", "its sentences have fewer than two labels"),
        (
            "x_corpus.tsv",
            b"doc_id\ttext\n1\ta\n",
            "a set of retrieval needs corpus, queries and qrels; one is missing, or has other columns",
        ),
    ],
)
def test_files_that_are_no_task_are_listed_with_the_cause(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    write(tmp_path / "good.tsv", STS)
    assert find_tasks([tmp_path]).skipped == {name.partition(".")[0]: words}


def test_columns_that_no_task_reads_may_occur_twice(tmp_path):
    write(tmp_path / "t.tsv", "id\tscore\tsentence1\tsentence2\tid\n1\t3\ta\tb\t1\n2\t4\tc\td\t2\n")
    assert [task.name for task in find_tasks([tmp_path]).tasks] == ["t"]


@pytest.mark.parametrize("text", [STS, TRIPLETS], ids=["sts", "triplets"])
def test_splits_are_one_set_however_their_files_are_named(tmp_path, monkeypatch, text):
    folder = folder_of(tmp_path, text, "x_Dev", "x_Test")
    monkeypatch.chdir(folder)
    found = find_tasks(["x_Dev.tsv", f"{folder}/../{folder.name}/x_Test.tsv"])
    assert [task.name for task in found.tasks] == ["x_Test"]
    assert {*found.skipped} == {"x_Dev"}


def test_splits_named_from_their_own_folder_have_its_name(tmp_path, monkeypatch):
    rows = "".join(f"{label}\tword {n} {label}\n" for n in range(12) for label in "ab")
    monkeypatch.chdir(folder_of(tmp_path / "mine", f"label\tsentence\n{rows}", "train", "test"))
    assert [task.name for task in find_tasks(["train.tsv", "test.tsv"]).tasks] == ["mine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (STS.replace("0.5", "0,5"), "line 3: score '0,5' is not a number; write a point, not a comma"),
        (STS.replace("score", " Score "), "write them in small letters and without blanks"),
        (STS.partition("\n")[2], "write a first line with the names of the columns"),
    ],
)
def test_a_file_that_is_nearly_one_shows_what_to_do(tmp_path, text, words):
    with pytest.raises(ConfigError) as raised:
        find_tasks([write(tmp_path / "a.tsv", text)])
    assert words in "; ".join(raised.value.args)
