"""What travels: the configuration as given, with its data files; what would not be found is refused."""

import pytest
import yaml

from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.deploy.submit.bundle import pack
from multicsr.errors import ConfigError
from multicsr.stages.evaluate import find_tasks

TREE = {
    "name": "t",
    "store": "s3://b/t",
    "input": {"paths": ["s3://b/in.txt"]},
    "llm": {"engine": "fake"},
    "curate": {"rule": "reference"},
}


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sts").mkdir()
    for name in ("dev.tsv", "pairs.tsv", "sts/a.tsv", "sts/b.tsv.gz", "prompts.yaml"):
        (tmp_path / name).write_bytes(name.encode())

    def config(**sections) -> Config:
        return Config.model_validate({**TREE, **sections})

    return config


def test_the_configuration_stays_as_it_was_given(make):
    bundle = pack(make(), "curate")
    assert yaml.safe_load(bundle.text("/etc/x")) == TREE
    assert bundle.files == {}


def test_what_arrives_can_be_loaded(make, tmp_path):
    config = make(train={"dev": "dev.tsv"}, ingest={"min_words": 2})
    (tmp_path / "arrived.yaml").write_text(pack(config, "train").text("/etc/x"))
    arrived = load_config(tmp_path / "arrived.yaml")
    assert arrived.train.dev == "/etc/x/dev.tsv"
    assert arrived.ingest == config.ingest


def test_data_files_travel_with_the_job_that_reads_them(make):
    config = make(
        train={"dev": "dev.tsv"},
        evaluate={"data": ["sts", "/mnt/all"]},
        generate={"prompts": "prompts.yaml"},
        score={"calibrate": "pairs.tsv"},
    )
    assert set(pack(config, "ingest").files) == set()
    assert set(pack(config, "generate").files) == {"prompts.yaml", "pairs.tsv"}
    for name in ("syncse", "auto"):
        assert set(pack(make(generate={"prompts": name}), "generate").files) == set()
    assert set(pack(config, "curate").files) == {"pairs.tsv"}
    assert set(pack(config, "train").files) == {"dev.tsv"}
    assert set(pack(config, "evaluate").files) == {"a.tsv", "b.tsv.gz"}
    refresh_bundle = pack(config, "refresh")
    assert refresh_bundle.files["dev.tsv"] == b"dev.tsv"
    sent = yaml.safe_load(refresh_bundle.text("s3://b/jobs/x"))
    assert sent["evaluate"]["data"] == ["/mnt/all", "s3://b/jobs/x/a.tsv", "s3://b/jobs/x/b.tsv.gz"]
    assert sent["score"]["calibrate"] == "s3://b/jobs/x/pairs.tsv"
    assert sent["train"]["dev"] == "s3://b/jobs/x/dev.tsv"
    assert sent["generate"]["prompts"] == "s3://b/jobs/x/prompts.yaml"


def test_files_of_labelled_triplets_travel_with_their_settings(make, tmp_path):
    files = ["dev.tsv", {"path": "s3://b/nli.csv"}, {"path": "pairs.tsv", "weight": 0.5, "columns": [1, 2]}]
    config = make(train={"extra_triplets": files})
    for job in ("train", "refresh"):
        assert {"dev.tsv", "pairs.tsv"} <= set(pack(config, job).files)
    assert set(pack(config, "generate").files) == set()
    (tmp_path / "arrived.yaml").write_text(pack(config, "train").text("/etc/x"))
    arrived = load_config(tmp_path / "arrived.yaml").train.extra_triplets
    assert [file.path for file in arrived] == ["/etc/x/dev.tsv", "s3://b/nli.csv", "/etc/x/pairs.tsv"]
    assert [file.weight for file in arrived] == [1.0, 1.0, 0.5]
    assert arrived[2].columns == ["1", "2"]


def test_labelled_triplets_for_prompts_travel_with_a_generation(make, tmp_path):
    shown = {"triplets": ["dev.tsv", {"path": "/mnt/nli.csv"}, {"path": "pairs.tsv", "header": False}]}
    config = make(generate={"demonstrations": {**shown, "count": 3}})
    for job in ("generate", "refresh"):
        assert {"dev.tsv", "pairs.tsv"} <= set(pack(config, job).files)
    assert set(pack(config, "train").files) == set()
    (tmp_path / "arrived.yaml").write_text(pack(config, "generate").text("/etc/x"))
    arrived = load_config(tmp_path / "arrived.yaml").generate.demonstrations
    assert [file.path for file in arrived.triplets] == ["/etc/x/dev.tsv", "/mnt/nli.csv", "/etc/x/pairs.tsv"]
    assert (arrived.count, arrived.triplets[2].header) == (3, False)


def test_tasks_to_keep_travel_with_a_training(make):
    config = make(train={"dev": "dev.tsv", "keep": ["sts", "/mnt/all"]})
    bundle = pack(config, "train")
    assert {"dev.tsv", "a.tsv", "b.tsv.gz"} == set(bundle.files)
    assert yaml.safe_load(bundle.text("/x"))["train"]["keep"] == ["/mnt/all", "/x/a.tsv", "/x/b.tsv.gz"]


def test_retrieval_sets_lie_in_one_folder_and_are_the_same_tasks_there(make, tmp_path):
    pytest.importorskip("pytrec_eval")
    pytest.importorskip("bm25s")
    qrels = "query_id\tdoc_id\tscore\nq\td\t1\n"
    files = {
        "retrieval/x_corpus.tsv": "doc_id\ttext\nd\ta text\n",
        "retrieval/x_queries.tsv": "query_id\ttext\nq\ta query\n",
        "retrieval/x_qrels_test.tsv": qrels,
        "retrieval/beir/corpus.jsonl": '{"_id": "d", "text": "a text"}\n',
        "retrieval/beir/queries.jsonl": '{"_id": "q", "text": "another query"}\n',
        "retrieval/beir/qrels/test.tsv": qrels.replace("query_id", "query-id").replace("doc_id", "corpus-id"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    bundle = pack(make(evaluate={"data": ["retrieval"]}), "evaluate")
    for name, data in bundle.files.items():
        (tmp_path / "there").mkdir(exist_ok=True)
        (tmp_path / "there" / name).write_bytes(data)
    sent = yaml.safe_load(bundle.text(str(tmp_path / "there")))
    here, there = find_tasks([tmp_path / "retrieval"]), find_tasks(sent["evaluate"]["data"])
    assert {*here.digests} == {*there.digests} == {"x", "beir"}
    assert here.digests == there.digests


def test_the_digest_is_of_all_that_decides(make, tmp_path):
    config = make(train={"dev": "dev.tsv"})
    first = pack(config, "train").digest
    assert pack(make(train={"dev": "dev.tsv", "temperature": 0.05}), "train").digest == first, "the default"
    assert pack(config, "refresh").digest != first
    assert pack(make(train={"dev": "dev.tsv"}, seed=7), "train").digest != first
    (tmp_path / "dev.tsv").write_text("changed")
    assert pack(config, "train").digest != first


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"dev": "absent.tsv"}}, "train.dev: no file absent.tsv here"),
        ({"train": {"extra_triplets": "absent.tsv"}}, "train.extra_triplets: no file absent.tsv here"),
        (
            {"generate": {"demonstrations": {"triplets": "absent.tsv"}}},
            "generate.demonstrations.triplets: no file absent.tsv here",
        ),
        ({"evaluate": {"data": ["sts/a.tsv", "other/a.tsv"]}}, "other/a.tsv: another file that is sent has"),
        ({"generate": {"prompts": "config.yaml"}}, "rename one of them"),
        ({"train": {"encoder": "sts"}}, "train.encoder: sts is a directory of this machine"),
        ({"llm": {"model": "dev.tsv"}}, "llm.model: dev.tsv is a file of this machine"),
    ],
)
def test_what_would_not_be_found_there_is_rejected(make, tmp_path, sections, message):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.tsv").write_text("other")
    (tmp_path / "config.yaml").write_text("a prompt set")
    with pytest.raises(ConfigError, match=message):
        pack(make(**sections), "refresh")
