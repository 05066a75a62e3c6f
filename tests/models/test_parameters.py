"""Parameters of a model are counted from its configuration alone."""

from transformers import AutoConfig, AutoModelForCausalLM

from multicsr.models.parameters import count_parameters


def test_count_is_that_of_the_loaded_model(causal_dir):
    loaded = AutoModelForCausalLM.from_pretrained(causal_dir)
    counted = count_parameters(AutoConfig.from_pretrained(causal_dir), str(causal_dir))
    assert counted == sum(parameter.numel() for parameter in loaded.parameters())
