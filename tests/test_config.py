"""Configuration: what is refused, in which words, and what every shipped file parses to."""

from pathlib import Path

import pytest
import yaml

from multicsr.config import Config
from multicsr.config_file import load_config
from multicsr.errors import ConfigError, RunError
from multicsr.stages.evaluate import read_task
from tests.support.paths import ROOT

MINIMAL = {"name": "test", "store": "runs/test", "input": {"paths": ["in.txt"]}}


@pytest.fixture
def write(tmp_path):
    def _write(**sections) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**MINIMAL, **sections}))
        return path

    return _write


def test_defaults_are_the_papers(write):
    config = load_config(write())
    assert config.generate.omega == 0.3
    assert (config.curate.alpha, config.curate.beta, config.curate.gamma) == (3, 3, 1)
    assert config.train.mask is not None
    assert config.train.mask.sigma == 0.9
    assert (config.train.temperature, config.train.global_batch) == (0.05, 256)
    assert (config.train.epochs, config.train.learning_rate) == (3, 5e-5)


def test_defaults_take_pooling_length_and_prompt_from_the_encoder(write):
    train = load_config(write()).train
    assert (train.pooling, train.max_length, train.prompt, train.mlp_head) == (None, None, None, False)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trian": {}}, "unknown key 'trian'; did you mean 'train'?"),
        (
            {"train": {"mask": {"sgma": 0.9}}},
            "unknown key 'train.mask.sgma'; did you mean 'train.mask.sigma'?",
        ),
        ({"train": {"mask": {"sigma": 1.5}}}, "train.mask.sigma: must be at most 1 (given: 1.5)"),
        ({"generate": {"omega": 1}}, "generate.omega: must be below 1"),
        ({"generate": {"top_p": 0.9}}, "top_p has no effect at temperature 0"),
        (
            {"generate": {"demonstrations": {"triplets": "a.tsv", "similarity": 1.01}}},
            "generate.demonstrations.similarity: must be at most 1",
        ),
        (
            {"generate": {"demonstrations": {"triplets": "a.tsv", "count": 0}}},
            "generate.demonstrations.count: must be at least 1",
        ),
        ({"generate": {"demonstrations": {"count": 3}}}, "generate.demonstrations.triplets is missing"),
        (
            {"generate": {"demonstrations": {"triplets": []}}},
            "generate.demonstrations.triplets: the list is empty",
        ),
        (
            {"generate": {"demonstrations": {"triplets": [{"path": "a.tsv", "weight": 2}]}}},
            "weight has no effect on triplets that are shown in prompts",
        ),
        (
            {"generate": {"demonstrations": {"triplets": "a.tsv", "pooling": "cls"}}},
            "pooling has no effect without encoder; set it at train.mask",
        ),
        ({"ingest": {"min_words": 9, "max_words": 3}}, "min_words is above max_words"),
        ({"ingest": {"near_duplicate_similarity": 0.7}}, "has no effect without near_duplicates"),
        (
            {"curate": {"score": "llm_stated"}},
            "curate.score is llm_stated, which score.method llm_expected does not",
        ),
        ({"score": {"trust_remote_code": True}}, "trust_remote_code has no effect without model"),
        ({"score": {"method": "expected"}}, "score.method: expected is called llm_expected now"),
        ({"curate": {"score": "stated"}}, "stated is called llm_stated now; write that"),
        (
            {
                "llm": {"engine": "openai", "base_url": "http://host/v1", "max_tokens": 9},
                "generate": {"omega": 0},
                "score": {"model": "other"},
            },
            "cannot limit the requests of score.model",
        ),
        ({"score": {"method": "nli"}}, "method: nli needs model, a sequence classifier; set score.model"),
        ({"score": {"method": "encoder", "max_new_tokens": 4}}, "max_new_tokens has no effect with method"),
        (
            {"input": {"paths": ["a"], "format": "wikipedia", "documents": True, "html": True}},
            "html has no effect with format: wikipedia",
        ),
        ({"score": {"max_new_tokens": 4}}, "max_new_tokens has no effect with method: llm_expected"),
        (
            {"llm": {"engine": "openai", "base_url": "http://a/v1", "dtype": "bfloat16"}},
            "dtype has no effect with engine: openai",
        ),
        (
            {"score": {"method": "encoder"}, "curate": {"score": "llm_expected"}},
            "score.method encoder does not",
        ),
        (
            {"score": {"model": "m"}, "llm": {"engine": "fake"}},
            "score.model has no effect with llm.engine: fake",
        ),
        ({"score": {"model": "m"}, "llm": {"engine": "vllm"}}, "vLLM runs one model in an actor"),
        (
            {
                "llm": {"engine": "openai", "base_url": "http://x", "max_tokens": 9},
                "generate": {"omega": 0},
                "score": {"model": "m"},
            },
            "it cannot limit the requests of score.model, so leave one of the two out",
        ),
        ({"score": {"calibrate": "-"}}, "standard input cannot be read"),
        ({"curate": {"max_word_ratio": 0.5}}, "max_word_ratio: must be at least 1"),
        ({"curate": {"rule": "reference", "gamma": 2}}, "gamma has no effect with rule: reference"),
        ({"train": {"objective": "simcse_unsup"}}, "set train.mask to null"),
        ({"train": {"global_batch": 2, "workers": 4}}, "workers is above global_batch"),
        ({"train": {"workers": 2, "min_workers": 4}}, "min_workers is above workers"),
        ({"train": {"grad_cache": True}}, "grad_cache needs micro_batch"),
        ({"train": {"dtype": "float16"}}, "float16 needs loss scaling; set train.deepspeed"),
        (
            {"train": {"dtype": "bfloat16", "deepspeed": {"zero": 0}}},
            "bfloat16 needs train.deepspeed.zero 1, 2 or 3, not 0",
        ),
        ({"train": {"dtype": "float16", "deepspeed": {"zero": 0}}}, "float16 needs train.deepspeed.zero"),
        ({"train": {"matryoshka": [8, 8]}}, "matryoshka names a width twice"),
        ({"train": {"deepspeed": {"zero": 0, "offload": True}}}, "offload has no effect with zero: 0"),
        ({"train": {"objective": "clhaif"}}, "mask has no effect with objective: clhaif"),
        ({"train": {"objective": "multicsr_reference", "mask": None}}, "needs a mask"),
        ({"train": {"objective": "claif", "mask": None, "temperature": 0.1}}, "temperature has no effect"),
        ({"train": {"objective": "gist", "mask": None}}, "objective: gist needs a mask"),
        ({"train": {"objective": "gist", "mask": {"sigma": 0.9}}}, "mask.sigma has no effect"),
        ({"train": {"rows": "sentences"}}, "objective: masked_infonce reads triplets"),
        ({"score": {"forms": "reference"}}, "forms has no effect with method: llm_expected"),
        (
            {
                "train": {"rows": "sentences", "objective": "simcse_unsup", "mask": None},
                "llm": {"model": "tinylm"},
            },
            "llm has no effect with train.rows: sentences",
        ),
        (
            {
                "train": {"rows": "sentences", "objective": "simcse_unsup", "mask": None},
                "evaluate": {"held_out": 0.1},
            },
            "evaluate.held_out holds out triplets",
        ),
        ({"curate": {"gamma": -5.1}}, "curate.gamma"),
        ({"train": {"random_pairs": 1}}, "random_pairs has no effect with objective: masked_infonce"),
        ({"train": {"label_smoothing": 0.2}}, "label_smoothing has no effect with objective"),
        (
            {"train": {"objective": "claif", "mask": None, "random_pairs": 8, "global_batch": 8}},
            "random_pairs is not below global_batch",
        ),
        (
            {"train": {"extra_triplets": [{"path": "a.tsv", "colums": [1]}]}},
            "unknown key 'train.extra_triplets.0.colums'; did you mean 'train.extra_triplets.0.columns'?",
        ),
        ({"train": {"extra_triplets": [{"weight": 2}]}}, "train.extra_triplets.0.path is missing"),
        (
            {"train": {"extra_triplets": [3]}},
            "train.extra_triplets: item 1: is a section; write settings below",
        ),
        (
            {"train": {"extra_triplets": {"path": "a.tsv", "weight": 0}}},
            "train.extra_triplets.0.weight: must be above 0 (given: 0)",
        ),
        (
            {"train": {"extra_triplets": {"path": "a.tsv", "columns": ["a"]}}},
            "train.extra_triplets.0.columns: ",
        ),
        (
            {"train": {"extra_triplets": {"path": "a.tsv", "columns": ["a", "b"], "header": False}}},
            "header: false needs numbers from 1 as columns, not a",
        ),
        (
            {"train": {"extra_triplets": {"path": "a.tsv", "columns": [1, 1]}}},
            "columns names a column twice",
        ),
        ({"train": {"extra_triplets": ["a.tsv", "a.tsv"]}}, "extra_triplets names a.tsv twice"),
        ({"train": {"extra_triplets": "hdfs://n/a"}}, "cannot read hdfs://n/a"),
        (
            {"train": {"extra_triplets": "a.tsv", "objective": "claif", "mask": None}},
            "extra_triplets: objective: claif trains on scores, which labelled triplets lack",
        ),
        (
            {"train": {"extra_triplets": "a.tsv", "objective": "simcse_unsup", "mask": None}},
            "extra_triplets has no effect with objective: simcse_unsup, which reads premises",
        ),
        ({"train": {"merge": [0.5]}}, "train.merge has no effect without train.dev or evaluate.held_out"),
        ({"train": {"keep": ["a"]}}, "train.keep has no effect without train.dev or evaluate.held_out"),
        ({"train": {"dev": "a", "keep": ["a"], "merge": []}}, "keep has no effect with merge: []"),
        ({"train": {"dev": "a", "keep_tolerance": 1}}, "keep_tolerance has no effect without keep"),
        ({"train": {"dev": "a", "merge": [0.5, 1.0]}}, "train.merge: item 2: must be below 1"),
        ({"train": {"patience": 3}}, "patience has no effect without dev"),
        ({"train": {"evaluate_every": 5}}, "evaluate_every has no effect without dev"),
        ({"llm": {"engine": "openai"}}, "base_url belongs to engine: openai"),
        (
            {"llm": {"engine": "openai", "base_url": "http://x", "batch": True}},
            "generate.omega above 0 needs an endpoint that offers contrast, and no batch API does",
        ),
        ({"llm": {"max_tokens": 9}}, "llm: max_tokens has no effect with engine: transformers"),
        (
            {"llm": {"engine": "openai", "base_url": "http://x", "max_cost": 9}, "generate": {"omega": 0}},
            "llm: max_cost needs price_per_million_prompt_tokens and price_per_million_completion_tokens",
        ),
        (
            {
                "llm": {"engine": "openai", "base_url": "http://x", "price_per_million_prompt_tokens": 1},
                "generate": {"omega": 0},
            },
            "price_per_million_prompt_tokens and price_per_million_completion_tokens need each other",
        ),
        ({"llm": {"vllm": {"eager": True}}}, "section vllm has no effect with engine: transformers"),
        (
            {"llm": {"engine": "vllm", "device": "cuda"}},
            "llm: device has no effect with engine: vllm; the installed vLLM is for GPU or for CPU",
        ),
        (
            {"llm": {"engine": "vllm", "vllm": {"tensor_parallel": 4}}, "generate": {"gpus_per_actor": 2}},
            "generate.gpus_per_actor is 2, llm.vllm.tensor_parallel 4: make them equal",
        ),
        ({"llm": {"engine": "vllm", "vllm": {"gpu_memory": 1}}}, "llm.vllm.gpu_memory: must be below 1"),
        ({"generate": {"bad_words": ["not", " "]}}, "generate: bad_words holds an empty word"),
        ({"generate": {"min_new_tokens": 9, "max_new_tokens": 8}}, "min_new_tokens is above max_new_tokens"),
        (
            {
                "llm": {"engine": "openai", "base_url": "http://x"},
                "generate": {"omega": 0, "bad_words": ["a"]},
            },
            "generate.min_new_tokens and generate.bad_words have no effect at an endpoint",
        ),
        (
            {
                "llm": {"engine": "openai", "base_url": "http://x"},
                "generate": {"omega": 0, "min_new_tokens": 1},
            },
            "generate.min_new_tokens and generate.bad_words have no effect at an endpoint",
        ),
        ({"input": {}}, "input.paths is missing"),
        (
            {"train": {"objective": "multicsr_reference", "mask": {"sigma": 1}}},
            "mask.sigma 1 masks nothing with objective: multicsr_reference",
        ),
        ({"train": {"gather": "without_gradient"}}, "unknown key 'train.gather'"),
        ({"seed": "many"}, "seed: write a whole number"),
        ({"seed": -1}, "seed: must be at least 0"),
        ({"seed": 2**63}, "seed: must be below 9223372036854775808"),
        ({"lease_s": 1e308}, "lease_s: must be at most 86400"),
        (
            {"generate": {"temperature": float("inf")}},
            "generate.temperature: write a finite number",
        ),
        ({"refresh": {"tolerances": {"a": float("nan")}}}, "refresh.tolerances.a: write a finite"),
        ({"generate": {"max_new_tokens": 10**20}}, "generate.max_new_tokens: must be below"),
        ({"store": ""}, "store: must not be empty"),
    ],
)
def test_bad_settings_are_one_line_with_the_remedy(write, sections, message):
    with pytest.raises(ConfigError) as caught:
        load_config(write(**sections))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_reported_at_once_a_line_each(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "name: t\nstore: s\ninput:\n  paths: [a.txt, '-']\ningest:\n  min_words: 2\n  min_wrods: 3\n"
        "  min_words: 0\ntrian: {}\nstore: s2\ngenerate: {omega: 1}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["seed=many", "name.x=1"])
    lines = str(caught.value).split("\n")
    expected = [
        "ingest.min_words is given twice, in lines 6 and 8; keep one of them",
        "store is given twice, in lines 2 and 10; keep one of them",
        "--set 'name.x=1': name is not a section",
        "input.paths: standard input cannot be read by several workers",
        "ingest.min_words: must be at least 1 (given: 0)",
        "unknown key 'ingest.min_wrods'; did you mean 'ingest.min_words'?",
        "unknown key 'trian'; did you mean 'train'?",
        "generate.omega: must be below 1",
        "seed: write a whole number",
    ]
    assert len(lines) == len(expected)
    for message in expected:
        assert sum(message in line for line in lines) == 1, message


def test_a_repeated_key_alone_is_a_mistake_and_a_merged_one_is_none(tmp_path):
    path = tmp_path / "config.yaml"
    text = "name: t\nstore: s\ninput: {paths: [a.txt]}\n"
    path.write_text(
        text + "generate: &g {omega: 0.1}\nscore: {method: both}\ngenerate:\n  <<: *g\n  omega: 0.2\n"
    )
    with pytest.raises(ConfigError, match="generate is given twice, in lines 4 and 6"):
        load_config(path)
    path.write_text(text + "curate: &c {alpha: 2}\n")
    assert load_config(path).curate.alpha == 2


@pytest.mark.parametrize("word", ["no", "No", "off", "on", "yes", "y", "n", "2026-01-01"])
def test_words_that_yaml_takes_for_something_else_are_strings(write, tmp_path, word):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"name: {word}\nstore: s\ninput: {{paths: [a.txt], documents: yes}}\ntrain: {{mlp_head: Off}}\n"
    )
    config = load_config(path, [f"train.encoder={word}"])
    assert (config.name, config.train.encoder) == (word, word)
    assert (config.input.documents, config.train.mlp_head) == (True, False)


@pytest.mark.parametrize(("given", "meant"), [("no", "nb"), ("no-NO", "nb-NO"), ("nn", "nn"), ("nog", "nog")])
def test_norwegian(tmp_path, given, meant):
    path = tmp_path / "config.yaml"
    path.write_text(f"name: t\nstore: s\ninput: {{paths: [a.txt]}}\ningest:\n  language: {given}\n")
    assert load_config(path).ingest.language == meant
    assert load_config(path, [f"ingest.language={given}"]).ingest.language == meant


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a/b.txt", "a/b.txt"),
        ("s3a://b/c", "s3://b/c"),
        ("S3N://b/c", "s3://b/c"),
        ("file:///a/b%20c.txt", "/a/b c.txt"),
        ("file://localhost/a", "/a"),
    ],
)
def test_input_places_in_other_spellings(write, given, meant):
    config = load_config(write(input={"paths": [given]}, train={"dev": given}, evaluate={"data": [given]}))
    assert (config.input.paths, config.train.dev, config.evaluate.data) == ([meant], meant, [meant])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("-", "standard input cannot be read by several workers; write it to a file"),
        ("hdfs://n/a", r"cannot read hdfs://n/a; copy it to a directory or to a bucket"),
        ("https://x/a.txt", "cannot read https://x/a.txt"),
        ("file://host/a", "names another machine"),
    ],
)
def test_input_places_that_cannot_be_read(write, given, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(input={"paths": [given]}))


def test_evaluation_data_that_cannot_be_read(write):
    with pytest.raises(ConfigError, match=r"train\.dev.*cannot read hdfs://n/a"):
        load_config(write(train={"dev": "hdfs://n/a"}))
    with pytest.raises(ConfigError, match=r"evaluate\.data.*cannot read hdfs://n/a"):
        load_config(write(evaluate={"data": ["hdfs://n/a"]}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 2000, "nested too deep"),
        (b"a: [1", r"is not YAML: .*line 1"),
        (b"a: \x00", "is not YAML"),
        (b"a: \xe9", "is not YAML"),
        (b"{[a]: b}: c", "is not YAML"),
        (b"a: 1\n---\nb: 2", "is not YAML"),
        (b"a: !!python/object/apply:os.system [ls]", "is not YAML"),
        (b"input: &a {x: *a}", "is not YAML: an alias puts what begins in line 1 into itself"),
        (b"input: {paths: &p [a.txt, *p]}", "is not YAML: an alias puts what begins in line 1 into itself"),
        (b"", "expected sections"),
        (b"1: 2\nname: t", "1: write text as the name of a setting"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, content, message):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("ingest", "message"),
    [
        ({"language": "AUTO"}, r"language: AUTO is no language tag; write auto"),
        ({"language": "auto", "languages": ["en", "EN"]}, "one language leaves nothing to detect"),
    ],
)
def test_case_of_a_language(write, ingest, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(ingest=ingest))


def test_a_configuration_may_be_utf_16(tmp_path, write):
    text = write().read_text()
    (tmp_path / "a.yaml").write_text(text, encoding="utf-16")
    (tmp_path / "b.yaml").write_text(text, encoding="utf-8-sig")
    assert load_config(tmp_path / "a.yaml") == load_config(tmp_path / "b.yaml") == load_config(write())


@pytest.mark.parametrize("gpus", [0, 4])
def test_a_model_over_several_gpus_may_ask_for_as_many_or_leave_it_open(write, gpus):
    llm = {"engine": "vllm", "vllm": {"tensor_parallel": 4}}
    config = load_config(write(llm=llm, generate={"gpus_per_actor": gpus, "min_new_tokens": 48}))
    assert config.llm.vllm.tensor_parallel == 4
    assert config.llm.device == "auto"


@pytest.mark.parametrize("threshold", ["alpha=5", "beta=0", "gamma=5"])
def test_thresholds_that_keep_nothing_are_rejected(write, threshold):
    with pytest.raises(ConfigError, match="keep nothing"):
        load_config(write(), [f"curate.{threshold}"])
    stated = ["score.method=llm_stated", "curate.score=llm_stated"]
    assert load_config(write(), [f"curate.{threshold}", *stated])


def test_the_score_that_decides_follows_the_method(write):
    for method, decides in (
        ("llm_expected", "llm_expected"),
        ("llm_stated", "llm_stated"),
        ("both", "llm_expected"),
        ("encoder", "encoder"),
    ):
        assert load_config(write(score={"method": method})).deciding_score == decides
    both = load_config(write(score={"method": "both"}, curate={"score": "llm_stated"}))
    assert both.deciding_score == "llm_stated"


def test_the_models_that_score_follow_the_settings(write):
    lora = {"engine": "openai", "base_url": "http://x/v1", "model": "writer"}
    config = load_config(write(llm=lora, generate={"omega": 0}, score={"model": "judge"}))
    assert (config.llm.model, config.scoring_llm.model) == ("writer", "judge")
    assert config.scoring_llm.base_url == config.llm.base_url
    assert not config.writer_reads_labels
    assert load_config(write()).scoring_llm == load_config(write()).llm
    assert load_config(write()).writer_reads_labels
    mask = {"mask": {"model": "p", "prompt": "query: "}}
    encoder = load_config(write(score={"method": "encoder"}, train=mask))
    assert (encoder.scoring_encoder, encoder.scoring_prompt) == (("p", "train.mask.model"), "query: ")
    encoder = load_config(write(score={"method": "encoder", "model": "q"}, train=mask))
    assert (encoder.scoring_encoder, encoder.scoring_prompt) == (("q", "score.model"), None)
    encoder = load_config(write(score={"method": "encoder"}, train={"mask": None, "encoder": "g"}))
    assert (encoder.scoring_encoder, encoder.scoring_prompt) == (("g", "train.encoder"), None)


def test_overrides_reach_nested_settings(write):
    config = load_config(write(), ["train.mask.sigma=0.8", "input.paths=[a, b]", "train.dev=null"])
    assert config.train.mask is not None
    assert config.train.mask.sigma == 0.8
    assert config.input.paths == ["a", "b"]


@pytest.mark.parametrize(
    "override", ["seed", "name.x=1", "=3", ".a=3", "llm..model=x", "name=[unclosed", "gnerate.omega=0.2"]
)
def test_bad_overrides_are_rejected(write, override):
    with pytest.raises(ConfigError, match="--set"):
        load_config(write(), [override])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no configuration file .*absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_a_configuration_is_frozen(write):
    with pytest.raises(ValueError, match="frozen"):
        load_config(write()).seed = 1


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_parses(path):
    assert isinstance(load_config(path), Config)


def test_every_field_is_documented():
    pending: list = [Config]
    while pending:
        model = pending.pop()
        for name, field in model.model_fields.items():
            nested = [
                a
                for a in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if isinstance(a, type)
            ]
            sections = [a for a in nested if hasattr(a, "model_fields")]
            pending.extend(sections)
            assert field.description or sections, f"{model.__name__}.{name}"


def test_a_configuration_and_its_data_files_may_lie_in_a_bucket(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    bucket.put("jobs/x/config.yaml", b"name: t\nstore: s3://b/t\ninput: {paths: [in.txt]}\n")
    bucket.put("jobs/x/dev.tsv", b"anchor\tpositive\tnegative\na\tb\tc\n")
    uri = f"{bucket.uri}/jobs/x/config.yaml"
    for path in (uri, Path(uri)):
        assert load_config(path, ["seed=7"]).seed == 7
    assert read_task(f"{bucket.uri}/jobs/x/dev.tsv").name == "dev"
    with pytest.raises(RunError, match=r"cannot read s3://.*/absent.yaml: no such file"):
        load_config(f"{bucket.uri}/jobs/x/absent.yaml")
