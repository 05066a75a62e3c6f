import random
from pathlib import Path

import pytest

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.tasks import find_tasks
from multicsr.tools.task.make import make_task

CLICKS = """\
Search Query,clicked_title,Clicks
red shoes,"Red shoes, size 8",4
RED  shoes,Crimson trainers,1
blue hat,Blue hat,2
blue hat,Green hat,0
"""


@pytest.fixture
def made(tmp_path):
    """Makes a task of a table, and returns the line and the tasks that are found in the folder."""

    def make(table: str, name: str = "table.csv", test: float = 1.0, **given: str):
        (tmp_path / name).write_text(table, encoding="utf-8")
        line = make_task(tmp_path / name, tmp_path / "tasks" / "mine", given, test)
        return line, find_tasks([tmp_path / "tasks" / "mine"]).tasks

    return make


def test_clicks_are_a_retrieval_task_over_all_documents(made):
    line, (task,) = made(CLICKS)
    assert (task.kind, task.name) == ("retrieval", "mine")
    documents = {**task.documents}
    assert {*documents.values()} == {"Red shoes, size 8", "Crimson trainers", "Blue hat", "Green hat"}
    relevant = {
        task.queries[query]: {documents[document] for document, score in judged.items() if score > 0}
        for query, judged in task.judgements.items()
    }
    assert relevant == {"red shoes": {"Red shoes, size 8", "Crimson trainers"}, "blue hat": {"Blue hat"}}
    assert "retrieval, 2 queries, 4 documents, 3 of them relevant" in line
    assert "from the columns Search Query, clicked_title, Clicks" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("text\tgroup\nA b\t1\nc d\t1\nx y\t2\nz\t3\nzz\t3\na B\t1\n", "groups.tsv"),
        ("question1,question2\nA b,c d\nz,zz\nc d,a b\nx y,X Y\n", "pairs.csv"),
        ("a,b,is_duplicate\nA b,c d,1\nz,zz,true\nx y,x y,yes\n", "labels.csv"),
    ],
)
def test_duplicates_are_a_retrieval_task_in_which_no_query_is_a_document(made, text, name):
    _, (task,) = made(text, name)
    documents = {**task.documents}
    found = {
        (task.queries[query], documents[document])
        for query, judged in task.judgements.items()
        for document in judged
    }
    assert {(one.casefold(), other) for one, other in found} == {("a b", "c d"), ("z", "zz")}
    assert {text.casefold() for text in documents.values()} == {"c d", "x y", "zz"}


def test_labelled_pairs_are_a_task_of_pair_classification(made):
    _, (task,) = made("sentence1,sentence2,label\na,b,1\nc,d,0\ne,f,Different\n")
    assert (task.kind, task.labels, task.sentences1) == ("pair classification", [1, 0, 0], ["a", "c", "e"])


def test_columns_may_be_named(made):
    _, (task,) = made("x,y,z\n1,apple pie,a\n1,cake of apples,b\n2,bread,c\n", text="y", group="x")
    assert [*task.queries.values()] == ["apple pie"]
    assert {*task.documents.values()} == {"cake of apples", "bread"}


def test_nothing_of_the_test_is_among_the_pairs_to_train_on(made, tmp_path):
    draw = random.Random(1)
    words = [f"word{number}" for number in range(400)]
    queries = [" ".join(draw.sample(words, 7)) for _ in range(150)]
    near = [query.replace(query.split()[3], "other") for query in queries]
    rows = [f"{query},document {number % 40}" for number, query in enumerate([*queries, *near])]
    line, (task,) = made("query,document\n" + "\n".join(rows) + "\n", test=0.3)
    measured = {*task.queries.values()}
    assert 60 < len(measured) < 120
    pairs = [row.split("\t") for row in (tmp_path / "tasks" / "mine.train.tsv").read_text().splitlines()[1:]]
    trained = {query for query, _ in pairs}
    assert not trained & measured
    assert not any(
        sum(one != other for one, other in zip(query.split(), another.split(), strict=True)) <= 1
        for query in trained
        for another in measured
    )
    assert len(trained) > 50
    assert f"{len(pairs):,} pairs to train on in" in line
    assert "that have a query of the test" in line
    assert find_tasks([tmp_path / "tasks" / "mine"]).skipped == {}


def test_no_judged_text_of_duplicates_is_among_the_pairs_to_train_on_with_one_word_changed(made, tmp_path):
    draw = random.Random(2)
    words = [f"word{number}" for number in range(400)]
    texts = [[" ".join(draw.sample(words, 7)) for _ in range(2)] for _ in range(150)]
    near = [" ".join([*other.split()[:3], "changed", *other.split()[4:]]) for _, other in texts]
    rows = [*texts, *([text, f"unlike {number}"] for number, text in enumerate(near))]
    line, (task,) = made("text1,text2\n" + "\n".join(map(",".join, rows)) + "\n", test=0.3)
    documents = {**task.documents}
    judged = {documents[document] for relevant in task.judgements.values() for document in relevant}
    pairs = [row.split("\t") for row in (tmp_path / "tasks" / "mine.train.tsv").read_text().splitlines()[1:]]
    left_out = {text for text, (_, other) in zip(near, texts, strict=True) if other in judged}
    assert len(left_out) > 20
    assert not {first for first, _ in pairs} & left_out
    assert len(pairs) > 50
    assert "that have a text of the test" in line


def test_sets_of_duplicates_are_on_one_side(made, tmp_path):
    chain = "".join(f"t{number},t{number + 1}\n" for number in range(0, 300) if number % 4)
    _, (task,) = made("text1,text2\n" + chain, test=0.4)
    pairs = (tmp_path / "tasks" / "mine.train.tsv").read_text().splitlines()[1:]
    set_of = {f"t{number}": (number - 1) // 4 for number in range(301)}
    trained = {set_of[text] for pair in pairs for text in pair.split("\t")}
    measured = {set_of[text] for text in task.queries.values()}
    assert trained
    assert measured
    assert not trained & measured


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("a,c\n1,2\n", {}, "has the columns a, c; rename those of clicks to query and document"),
        ("query,document\nx,y\n", {"query": "q"}, "--query: .* has no column 'q'; it has query, document"),
        ("query,document,count\nx,y,many\n", {}, "line 2: count 'many' is not a number"),
        ("query,document,count\nx,y,0\n", {}, "no query has a click"),
        ("text,text2,label\nx,y,perhaps\n", {}, "line 2: label 'perhaps' is neither 1 nor 0"),
        ("text,group\nx,1\ny,2\n", {}, "no text has a duplicate"),
        ("query,document\n,\n", {}, "has no row with query and document"),
        ("", {}, "has the columns none"),
    ],
)
def test_a_table_that_gives_no_task_is_an_error_and_leaves_nothing(made, tmp_path, text, given, message):
    with pytest.raises(ConfigError, match=message):
        made(text, **given)
    assert not (tmp_path / "tasks").exists() or list((tmp_path / "tasks").iterdir()) == []


def test_an_existing_folder_is_not_replaced(made, tmp_path):
    made(CLICKS)
    with pytest.raises(ConfigError, match=r"--out: .*mine exists"):
        made(CLICKS)
    with pytest.raises(ConfigError, match=r"no file .*none\.csv"):
        make_task(tmp_path / "none.csv", tmp_path / "other", {})


def test_damaged_records_are_skipped_and_counted(made):
    line, (task,) = made('query,document\nx,y\nalone\n,z\nb,"line\nbreak\tand tab"\n')
    assert "2 records skipped" in line
    assert {*task.documents.values()} == {"y", "line break and tab"}


@pytest.mark.parametrize("out", ["/", ".", "..", "new/..", "file.csv/new", "a\nb"])
def test_a_place_where_no_folder_can_be_made_is_an_error(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.csv").write_text(CLICKS)
    with pytest.raises(ConfigError, match="--out: "):
        make_task(Path("file.csv"), Path(out), {})
    assert [path.name for path in tmp_path.iterdir()] == ["file.csv"]


@pytest.mark.parametrize(
    ("table", "given", "words"),
    [
        ("query,query,title\na,b,c\n", {}, "2 columns 'query'; rename one"),
        ("x,y\na,b\n", {"query": "x", "document": "x"}, "--query and --document name the same column 'x'"),
    ],
)
def test_a_column_that_is_named_twice_is_an_error(made, table, given, words):
    with pytest.raises(ConfigError, match=words):
        made(table, **given)
