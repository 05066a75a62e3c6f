"""What stages need is looked at before the first one starts, all problems at once."""

import json

import pytest

from multicsr.config import Config
from multicsr.config_file import load_with_mistakes
from multicsr.errors import ConfigError, RunError
from multicsr.messages import extras
from multicsr.models.resolve import require_on_hub
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run, preflight
from multicsr.pipeline.preflight import find_problems, require_no_problems
from multicsr.stages.evaluate import tasks
from multicsr.storage.store import Store
from multicsr.storage.versions import versions
from tests.support.hub_answers import httpx, hub_answers

TRIPLETS = "anchor\tpositive\tnegative\na\tb\tc\n"


@pytest.fixture
def settings(tmp_path):
    """A function that returns a configuration that can run, with some sections replaced."""
    (tmp_path / "a.txt").write_text("A sentence that is long enough to be read.\n")
    (tmp_path / "dev.tsv").write_text(TRIPLETS)

    def make(**sections):
        tree = {
            "name": "t",
            "store": str(tmp_path / "store"),
            "input": {"paths": [str(tmp_path / "a.txt")]},
            "llm": {"engine": "fake", "model": "fake"},
            "train": {"encoder": "tinylm", "mask": None, "dev": str(tmp_path / "dev.tsv")},
            "evaluate": {"data": [str(tmp_path / "dev.tsv")]},
        }
        return Config.model_validate(tree | sections)

    return make


def lines(config, stages=tuple(full_run.STAGES)):
    return [str(problem) for problem in find_problems(stages, config)]


def test_a_run_that_can_work_has_no_problem(settings):
    assert lines(settings()) == []
    require_no_problems(full_run.STAGES, settings())
    assert lines(settings(generate={"prompts": "auto"})) == []  # the set is chosen when the stage begins


@pytest.mark.parametrize(
    ("stage", "sections", "words"),
    [
        ("ingest", {"input": {"paths": ["./nowhere.txt"]}}, "input.paths: no file"),
        ("train", {"train": {"layers": 7}}, "train.layers: 7 asked for, all-MiniLM-L6-v2 has 6"),
        (
            "train",
            {"train": {"max_length": 512}},
            "train.max_length: 512 asked for, all-MiniLM-L6-v2 takes 256",
        ),
        ("generate", {"generate": {"prompts": "./nowhere.yaml"}}, "generate.prompts"),
        ("generate", {"llm": {"model": "./nowhere"}}, "llm.model: no directory ./nowhere"),
        (
            "generate",
            {"generate": {"gpus_per_actor": 1}},
            "generate.gpus_per_actor: 1, and this machine has 0",
        ),
        ("generate", {"score": {"method": "encoder", "model": "./nowhere"}}, "score.model: no directory"),
        (
            "generate",
            {"llm": {"model": "tinylm"}, "score": {"model": "./nowhere"}},
            "score.model: no directory",
        ),
        (
            "generate",
            {"score": {"method": "nli", "model": "tinylm"}},
            "score.model: tinylm has the labels LABEL_0, LABEL_1; it needs entailment",
        ),
        ("generate", {"score": {"calibrate": "./nowhere.tsv"}}, "score.calibrate: no evaluation file"),
        ("train", {"train": {"encoder": "./nowhere"}}, "train.encoder: no directory"),
        ("train", {"train": {"mask": {"model": "./nowhere"}}}, "train.mask.model: no directory"),
        ("train", {"train": {"dev": "./nowhere.tsv"}}, "train.dev: no evaluation file"),
        (
            "train",
            {"train": {"extra_triplets": ["./nowhere.tsv"]}},
            "train.extra_triplets: no file ./nowhere.tsv",
        ),
        ("train", {"train": {"gpus_per_worker": 1}}, "train.gpus_per_worker: 1, and this machine has 0"),
        ("evaluate", {"evaluate": {"data": ["./nowhere.tsv"]}}, "evaluate.data: "),
    ],
)
def test_each_stage_looks_at_what_it_needs(settings, monkeypatch, stage, sections, words):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = settings(**sections)
    assert [line for line in lines(config, [stage]) if words in line]
    others = [name for name in full_run.STAGES if name != stage]
    assert not [line for line in lines(config, others) if words in line]


def test_modules_with_code_of_their_own_are_found_before_anything_is_loaded(settings, tmp_path):
    folder = tmp_path / "with-code"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    train = {"encoder": str(folder), "mask": {"model": str(folder)}}
    [one, two] = lines(settings(train=train), ["train"])
    assert one.startswith(f"train.encoder: {folder} needs code that comes with it;")
    assert "set train.trust_remote_code: true" in one
    assert two.startswith("train.mask.model: ")
    assert "set train.mask.trust_remote_code: true" in two
    train = {
        "encoder": str(folder),
        "trust_remote_code": True,
        "mask": {"model": str(folder), "trust_remote_code": True},
    }
    assert lines(settings(train=train), ["train"]) == []
    (folder / "modules.json").write_text("[{}]")
    [line] = lines(settings(train={"encoder": str(folder), "mask": None}), ["train"])
    assert line.startswith(f"train.encoder: {folder / 'modules.json'} is damaged")


def test_pairs_that_are_measured_calibrate_nothing(settings, tmp_path):
    rows = [f"{index % 6}\ta {index}\tb {index}" for index in range(60)]
    for name in ("pairs.tsv", "test.tsv"):
        (tmp_path / name).write_text("\n".join(["score\tsentence1\tsentence2", *rows]) + "\n")
    pairs, same = str(tmp_path / "pairs.tsv"), str(tmp_path / "test.tsv")
    assert lines(settings(score={"calibrate": pairs})) == []
    [line] = lines(settings(score={"calibrate": pairs}, evaluate={"data": [same]}))
    assert line.startswith("score.calibrate: evaluate.data has the same pairs, as test; calibrate on")
    assert lines(settings(score={"calibrate": pairs}, evaluate={"data": ["./no.tsv"]}), ["generate"]) == []


def test_every_labelled_set_is_read_once(settings, tmp_path, monkeypatch):
    rows = [f"{index % 6}\ta {index}\tb {index}" for index in range(60)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *rows]) + "\n")
    (tmp_path / "keep.tsv").write_text(TRIPLETS)
    read, find, reads = tasks.read_task, tasks.find_tasks, []
    monkeypatch.setattr(tasks, "read_task", lambda path: reads.append(path) or read(path))
    monkeypatch.setattr(tasks, "find_tasks", lambda data, kinds: reads.extend(data) or find(data))
    names = [str(tmp_path / name) for name in ("keep.tsv", "test.tsv", "dev.tsv")]
    (tmp_path / "test.tsv").write_text(TRIPLETS)
    config = settings(
        score={"calibrate": str(tmp_path / "pairs.tsv")},
        evaluate={"data": [names[1]], "drop_leaks": True},
        train={"encoder": "tinylm", "mask": None, "dev": names[2], "keep": [names[0]], "merge": [0.5]},
    )
    assert lines(config) == []
    assert sorted(reads) == sorted(names)


def test_a_column_that_no_record_has_is_found(settings, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "A printer."}\n' * 3)
    found = lines(settings(input={"paths": [str(tmp_path / "a.jsonl")], "column": "bodi"}))
    assert found == [f"input.column: {tmp_path / 'a.jsonl'} has no column 'bodi'; did you mean 'body'?"]


def test_a_first_record_that_is_damaged_is_no_problem(settings, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body"\n{"body": "A printer."}\n')
    assert lines(settings(input={"paths": [str(tmp_path / "a.jsonl")], "column": "body"})) == []


def test_all_problems_are_one_error_before_anything_is_written(settings, tmp_path):
    config = settings(input={"paths": ["./no.txt"]}, evaluate={"data": ["./no.tsv"]})
    with pytest.raises(ConfigError) as raised:
        full_run.run(config, SilentProgress())
    assert len(raised.value.args) == 2
    assert versions(Store.of(config)) == []


def test_places_that_cannot_be_reached_are_errors_of_the_world(settings, monkeypatch):
    def fail(config):
        raise RunError("no bucket")

    monkeypatch.setitem(preflight.LOOKS, "ingest", (fail,))
    with pytest.raises(RunError, match="no bucket"):
        require_no_problems(["ingest"], settings())
    with pytest.raises(ConfigError, match=r"no bucket\n.*llm"):
        require_no_problems(["ingest", "generate"], settings(llm={"model": "./nowhere"}))


def test_packages_of_a_stage_are_looked_for_once(settings, monkeypatch):
    monkeypatch.setattr(extras, "_is_installed", lambda package: package != "deepspeed")
    found = lines(settings(), ["train"])
    assert len([line for line in found if "pip install 'multicsr[train]'" in line]) == 1
    assert lines(settings(), ["ingest", "generate", "curate"]) == []


def test_gpus_are_those_that_ray_would_see(monkeypatch):
    for visible, number in (("", 0), ("0", 1), ("0,3", 2), ("-1", 0), ("NoDevFiles", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert preflight.num_gpus() == number


def test_a_cluster_may_have_gpus(settings, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert lines(settings(generate={"gpus_per_actor": 1})) == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, "cannot be reached from here"),
        (503, "cannot be reached"),
        (404, "no such model"),
        (401, "HF_TOKEN"),
    ],
)
def test_a_hub_without_the_model(status, words):
    def answer(request):
        if status is None:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(status, request=request, headers={"X-Request-Id": "1"})

    with (
        hub_answers(answer),
        pytest.raises(ConfigError, match=rf"^llm\.model: no directory some/model, .*{words}"),
    ):
        require_on_hub("some/model", "llm.model")


def test_a_model_that_the_hub_has():
    def answer(request):
        assert "/api/models/some/model" in str(request.url)
        return httpx.Response(200, request=request, json={"id": "some/model", "siblings": []})

    with hub_answers(answer):
        require_on_hub("some/model", "llm.model")


def test_a_name_that_is_no_id():
    with pytest.raises(ConfigError, match="neither a directory nor an id"):
        require_on_hub("my model", "train.encoder")


def test_settings_are_read_as_far_as_they_are_valid(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        f"name: t\nstore: {tmp_path}\ninput: {{paths: [a.txt]}}\n"
        "generate: {omega: 9, actors: 3}\ncurate: {alpha: 1, keep_share: 0.5}\ntrain: {layer: 2}\n"
    )
    config, mistakes = load_with_mistakes(path)
    assert len(mistakes) == 3
    assert config is not None
    assert (config.generate.actors, config.generate.omega) == (3, 0.3)
    path.write_text("store: x\n")
    config, mistakes = load_with_mistakes(path)
    assert config is None
    assert len(mistakes) == 2
