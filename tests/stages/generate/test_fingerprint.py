"""Settings that decide the results of the LLM: those and no others."""

import pytest

from multicsr.config import Config, DemonstrationsConfig, GenerateConfig, LLMConfig, ScoreConfig, VllmConfig
from multicsr.stages.generate import fingerprint
from multicsr.stages.generate.fingerprint import scoring_settings, writing_settings
from tests.support.tiny_llms import make_config


def test_the_settings_follow_what_decides_the_rows_and_nothing_else(causal_dir, tmp_path):
    def settings(model, **sections):
        config = make_config(model, **sections)
        return writing_settings(config), scoring_settings(config)

    writing, scoring = settings(causal_dir)
    same = {
        "generate": {"actors": 3, "batch_size": 7, "cpus_per_actor": 2, "rows_per_shard": 9},
        "curate": {"alpha": 4},
    }
    assert settings(causal_dir, **same) == (writing, scoring)
    for change in (
        {"generate": {"omega": 0.2}},
        {"generate": {"max_new_tokens": 5}},
        {"generate": {"min_new_tokens": 2}},
        {"generate": {"bad_words": ["not"]}},
        {"llm": {"dtype": "bfloat16"}},
        {"llm": {"template_args": {"enable_thinking": False}}},
        {"seed": 5},
    ):
        assert settings(causal_dir, **change)[0] != writing, change
        assert settings(causal_dir, **change)[1] == scoring, change
    assert settings(causal_dir, score={"method": "both"})[0] == writing
    assert settings(causal_dir, score={"method": "both"})[1] != scoring
    endpoint = {"llm": {"engine": "openai", "base_url": "http://x/v1"}, "generate": {"omega": 0.0}}
    stated = {"score": {"method": "llm_stated"}}
    rules = [settings("m", **endpoint)[1]["rules"], settings(causal_dir, **stated)[1]["rules"]]
    assert [scoring["rules"].keys() - rule.keys() for rule in rules] == [{"labels"}] * 2
    pairs = {**endpoint, "generate": {"omega": 0.3}}
    assert settings("m", **pairs)[1]["rules"].keys() == scoring["rules"].keys()
    other = settings(causal_dir, generate={"prompts": "reference"})
    assert other[0] != writing
    assert other[1] != scoring
    copy = tmp_path / "model"
    copy.mkdir()
    for path in causal_dir.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = writing["weights"]
    assert settings(copy)[0]["weights"] == weights
    (copy / "model.safetensors").write_bytes(b"other")
    assert settings(copy)[0]["weights"] != weights


@pytest.mark.parametrize(
    ("section", "key", "others"),
    [
        (
            LLMConfig,
            fingerprint._LLM | fingerprint._LLM_IF_SET,
            {"device", "base_url", "concurrency", "timeout_s", "patience_s", "vllm"}
            | {"batch", "max_tokens", "max_cost"}
            | {"price_per_million_prompt_tokens", "price_per_million_completion_tokens"},
        ),
        (
            VllmConfig,
            fingerprint._VLLM,
            {"tokens_per_step", "kv_cache_gib", "gpu_memory", "prefix_caching", "eager"},
        ),
        (
            ScoreConfig,
            fingerprint._SCORING | fingerprint._SCORING_IF_SET,
            {"model", "calibrate", "trust_remote_code"},
        ),
        (
            DemonstrationsConfig,
            fingerprint._SHOWN | {"triplets", "encoder", "pooling"},
            {"trust_remote_code"},
        ),
        (
            GenerateConfig,
            fingerprint._DECODING | {"prompts", "reject_reasons", "demonstrations"},
            {"batch_size", "rows_per_shard", "actors", "cpus_per_actor", "gpus_per_actor", "nodes"}
            | {"max_rejected"},
        ),
    ],
)
def test_a_new_setting_is_decided_on(section, key, others):
    """Should this fail, decide: a setting that changes what the LLM writes enters the key, others do not."""
    assert key | others == section.model_fields.keys()
    assert not key & others


def test_a_new_setting_does_not_change_the_key_by_itself():
    class NewLLM(LLMConfig):
        novelty: int = 3

    class NewScore(ScoreConfig):
        novelty: int = 3

    sections = {"llm": {"engine": "fake"}, "input": {"paths": ["in.txt"]}}
    config = Config.model_validate({"name": "t", "store": "s", **sections})
    newer = config.model_copy(update={"llm": NewLLM(engine="fake"), "score": NewScore()})
    for settings in (writing_settings, scoring_settings):
        assert settings(newer) == settings(config)
