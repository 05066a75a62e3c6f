"""GGUF models: what is converted equals the model that the file was written from; bad files are one line."""

import os
import resource
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError
from multicsr.messages import extras
from multicsr.models import gguf_conversion
from multicsr.models.gguf_file import find_gguf
from multicsr.models.gguf_positions import llama3_factors
from multicsr.models.llm_weights import digest_llm, resolve_llm
from tests.support.gguf_files import llama_tensors, write_gguf
from tests.support.tiny_llms import CONTEXT, VOCAB_SIZE

gguf = pytest.importorskip("gguf", reason="the package gguf is absent")
TEXT = "Two dogs run.\n They don't stop: naïve 狗"
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(causal_dir):
    return AutoTokenizer.from_pretrained(causal_dir)


def make_llama(**settings):
    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            initializer_range=0.3,
            **settings,
        )
    ).eval()


@pytest.fixture(scope="module")
def llama():
    return make_llama()


@pytest.fixture(scope="module")
def file(llama, tokenizer, tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", llama, tokenizer)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """The folder of converted models."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf/multicsr/gguf"


def resolve(path, **settings) -> str:
    return resolve_llm(LLMConfig(model=str(path), **settings))


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def logits(model, length=40):
    ids = torch.arange(7, 7 + length * 11, 11)[None] % VOCAB_SIZE
    with torch.no_grad():
        return model(input_ids=ids).logits


def assert_same_logits(found, expected):
    assert torch.allclose(logits(found), logits(expected), atol=1e-4)


def fails(path) -> str:
    """Return the line with which a model is refused; nothing of it is left."""
    with pytest.raises(ConfigError) as raised:
        resolve(path)
    message = str(raised.value)
    assert message.startswith("llm.model: ")
    assert str(path) in message
    assert "\n" not in message
    return message


def left_in(home) -> list[str]:
    return sorted(os.listdir(home)) if home.exists() else []


def test_converted_model_and_tokenizer_are_those_of_the_file(file, llama, tokenizer, premises):
    folder = resolve(file)
    assert_same_logits(load(folder), llama)
    found = AutoTokenizer.from_pretrained(folder)
    for text in (TEXT, "<eos> in the text", *premises):
        assert found(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert found.decode(found(text)["input_ids"]) == text
    assert (found.eos_token, found.pad_token, found.bos_token) == ("<eos>", "<pad>", None)


def test_engine_writes_as_with_the_original(file, llama, tokenizer, premises, tmp_path):
    from multicsr.llm.transformers.engine import TransformersEngine
    from multicsr.prompts import load_prompts
    from tests.support.tiny_llms import make_config

    llama.generation_config.eos_token_id = tokenizer.eos_token_id
    llama.save_pretrained(tmp_path / "original")
    tokenizer.save_pretrained(tmp_path / "original")
    pairs = [load_prompts("syncse").pair(premise, premise, seed=1) for premise in premises[:8]]
    found, expected = (
        TransformersEngine(make_config(path)).generate_pairs(pairs, premises[:8])
        for path in (file, tmp_path / "original")
    )
    assert found == expected


def test_quantized_weights_are_those_that_gguf_unpacks(llama, tokenizer, tmp_path):
    path = write_gguf(tmp_path / "model.gguf", llama, tokenizer, quantization="Q8_0")
    expected = make_llama()
    kind = gguf.GGMLQuantizationType.Q8_0
    with torch.no_grad():
        for weight in expected.parameters():
            if weight.dim() == 2:  # blocks lie in rows, so the order of rows does not matter
                weight.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind)))
    assert not torch.allclose(logits(expected), logits(llama), atol=1e-3)
    assert_same_logits(load(resolve(path)), expected)


def test_each_data_type_has_a_directory(file, llama):
    narrow, wide = resolve(file, dtype="bfloat16"), resolve(file)
    assert narrow != wide
    found = load(narrow).state_dict()
    assert all(torch.equal(found[name], tensor.bfloat16()) for name, tensor in llama.state_dict().items())


@pytest.mark.parametrize(
    ("stated", "pre", "begins"),
    [(True, "default", True), (False, "llama-bpe", False), (None, "llama-bpe", True), (None, "gpt-2", False)],
)
def test_prompts_begin_with_bos_as_the_file_states(llama, tokenizer, tmp_path, stated, pre, begins):
    def add(writer):
        writer.add_bos_token_id(0)
        if stated is not None:
            writer.add_add_bos_token(stated)

    found = AutoTokenizer.from_pretrained(
        resolve(write_gguf(tmp_path / "m.gguf", llama, tokenizer, pre=pre, add=add))
    )
    expected = tokenizer("A dog.")["input_ids"]
    assert found("A dog.")["input_ids"] == [0] * begins + expected
    assert found("A dog.", add_special_tokens=False)["input_ids"] == expected


def test_prompts_end_with_eos_where_the_file_states_it(llama, tokenizer, tmp_path):
    path = write_gguf(
        tmp_path / "m.gguf", llama, tokenizer, add=lambda writer: writer.add_add_eos_token(True)
    )
    found = AutoTokenizer.from_pretrained(resolve(path))
    assert found("A dog.")["input_ids"] == [*tokenizer("A dog.")["input_ids"], tokenizer.eos_token_id]


def test_chat_template_and_what_ends_an_answer_come_from_the_file(llama, tokenizer, tmp_path):
    end = tokenizer.convert_tokens_to_ids("A")

    def add(writer):
        writer.add_chat_template(TEMPLATE)
        writer.add_eot_token_id(end)

    folder = resolve(write_gguf(tmp_path / "m.gguf", llama, tokenizer, add=add))
    found = AutoTokenizer.from_pretrained(folder)
    message = [{"role": "user", "content": "A dog."}]
    assert found.apply_chat_template(message, tokenize=False) == "<|im_start|>A dog.<|im_end|>"
    assert load(folder).generation_config.eos_token_id == [tokenizer.eos_token_id, end]


def scaled(**rule):
    return make_llama(rope_parameters={"rope_theta": 10_000.0, **rule})


def test_positions_of_llama_3_are_scaled(tokenizer, tmp_path):
    rule = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    original = scaled(rope_type="llama3", factor=8.0, **rule)
    plain = make_llama().model.rotary_emb.inv_freq
    factors = (plain / original.model.rotary_emb.inv_freq).numpy()
    assert factors.max() > 1  # or the test would show nothing
    assert np.allclose(factors, llama3_factors(8.0, 10_000.0, 16), rtol=1e-5)

    def add(writer):
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))

    found = load(resolve(write_gguf(tmp_path / "m.gguf", original, tokenizer, add=add)))
    assert torch.equal(found.model.rotary_emb.inv_freq, original.model.rotary_emb.inv_freq)
    assert_same_logits(found, original)


def test_positions_that_are_scaled_linearly(tokenizer, tmp_path):
    original = scaled(rope_type="linear", factor=8.0)

    def add(writer):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)

    found = load(resolve(write_gguf(tmp_path / "m.gguf", original, tokenizer, add=add)))
    assert not torch.allclose(logits(original), logits(make_llama()), atol=1e-2)
    assert_same_logits(found, original)


@pytest.mark.parametrize("kind", ["yarn", "longrope", "factors"])
def test_other_scaling_of_positions_is_one_line(llama, tokenizer, tmp_path, kind):
    def add(writer):
        if kind == "factors":
            writer.add_tensor("rope_freqs.weight", np.linspace(1, 5, 8, dtype=np.float32))
        elif kind == "longrope":
            writer.add_tensor("rope_factors_long.weight", np.ones(8, dtype=np.float32))
        else:
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)

    message = fails(write_gguf(tmp_path / "m.gguf", llama, tokenizer, add=add))
    assert "its positions are scaled by" in message


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.03, 0.1, 0.5, 0.999])
def test_file_that_was_cut_is_one_line(file, tmp_path, home, share):
    whole = file.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "is no GGUF file, or damaged or cut" in fails(path)
    assert left_in(home) == ["lock"]


def test_text_is_no_gguf(tmp_path):
    (tmp_path / "model.gguf").write_text("These are sentences, not weights.\n" * 9)
    assert "is no GGUF file, or damaged or cut (GGUF magic invalid); take" in fails(tmp_path / "model.gguf")


def test_file_that_lacks_tensors_is_one_line(llama, tokenizer, tmp_path, monkeypatch):
    lacking = {name: array for name, array in llama_tensors(llama).items() if "blk.1.ffn" not in name}
    monkeypatch.setattr("tests.support.gguf_files.llama_tensors", lambda model: lacking)
    message = fails(write_gguf(tmp_path / "m.gguf", llama, tokenizer))
    assert "lack 4 tensors that the model needs" in message


def test_architecture_that_transformers_does_not_read_is_one_line(llama, tokenizer, tmp_path, home):
    message = fails(write_gguf(tmp_path / "m.gguf", llama, tokenizer, architecture="rwkv6"))
    assert "architecture rwkv6 is not supported" in message
    assert left_in(home) == ["lock"]


def test_directory_with_one_file_is_that_file(file, tmp_path):
    for name in ("config.json", "tokenizer_config.json"):  # of another model: not read
        (tmp_path / name).write_text('{"model_type": "bert", "tokenizer_class": "BertTokenizer"}')
    shutil.copy(file, tmp_path / "model.gguf")
    assert resolve(tmp_path) == resolve(file)


def test_parts_are_the_whole(file, tmp_path):
    """In the directory, or in those beside it, as packages hold them."""
    whole = file.read_bytes()
    pieces = [whole[:1000], whole[1000:5000], whole[5000:]]
    for number, piece in enumerate(pieces):
        for folder in (tmp_path / "all", tmp_path / f"package_part{number + 1}/data"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"m.gguf.part0{number}").write_bytes(piece)
    (tmp_path / "package").mkdir()
    assert resolve(tmp_path / "all") == resolve(tmp_path / "package") == resolve(file)
    (tmp_path / "all/m.gguf.part01").unlink()
    assert "lacks part 1 of m.gguf" in fails(tmp_path / "all")
    shutil.rmtree(tmp_path / "package_part3")
    assert "damaged or cut" in fails(tmp_path / "package")


def test_directory_with_weights_is_no_gguf(causal_dir, file, tmp_path):
    shutil.copytree(causal_dir, tmp_path / "model")
    shutil.copy(file, tmp_path / "model/model.gguf")
    assert resolve(tmp_path / "model") == str(tmp_path / "model")


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["a.gguf", "b.gguf"], "holds 2 GGUF files (a.gguf, b.gguf); give the path of one"),
        (["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"], "join them with llama-gguf-split --merge"),
        (["a.gguf.part0", "b.gguf.part0"], "holds parts of 2 GGUF files"),
    ],
)
def test_directory_with_several_models_is_one_line(tmp_path, names, complaint):
    for name in names:
        (tmp_path / name).write_bytes(b"GGUF")
    assert complaint in fails(tmp_path)


def test_converted_model_is_used_again(file, monkeypatch):
    folder = resolve(file)

    def convert(*_):
        raise AssertionError("converted twice")

    monkeypatch.setattr(gguf_conversion, "_convert", convert)
    monkeypatch.setattr(extras, "_is_installed", lambda package: False)
    assert resolve(file) == folder


def test_processes_that_start_together_convert_once(file, home, monkeypatch):
    """A lock on a file excludes threads like processes, because each opens the file."""
    convert, calls, found = gguf_conversion._convert, [], []

    def counted(*arguments):
        calls.append(arguments)
        return convert(*arguments)

    monkeypatch.setattr(gguf_conversion, "_convert", counted)
    threads = [threading.Thread(target=lambda: found.append(resolve(file))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(calls) == len(set(found)) == 1
    assert left_in(home) == sorted(["lock", Path(found[0]).name])


def test_what_a_killed_process_left_is_deleted(file, home):
    (home / "unfinished-x/model").mkdir(parents=True)
    (home / "unfinished-x/model/model.safetensors").write_bytes(b"half")
    folder = resolve(file)
    assert left_in(home) == sorted(["lock", Path(folder).name])


def test_full_disk_is_one_line_and_leaves_nothing(file, home):
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        message = fails(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert "cannot write the converted" in message
    assert "File too large" in message
    assert "HF_HOME" in message
    assert left_in(home) == ["lock"]


def test_disk_without_room_is_found_out_before_the_work(file, home, monkeypatch):
    usage = shutil.disk_usage(file)
    monkeypatch.setattr(gguf_conversion.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "0.0 GiB are free in" in fails(file)
    assert left_in(home) == ["lock"]


def test_missing_package_is_named(file, monkeypatch):
    monkeypatch.setattr(extras, "_is_installed", lambda package: package != "gguf")
    assert fails(file).endswith("needs gguf, which is not installed: pip install 'multicsr[gguf]'")


def test_digest_is_of_the_bytes_and_of_the_conversion(file, tmp_path, monkeypatch):
    copy = Path(shutil.copy(file, tmp_path / "other.gguf"))
    first = digest_llm(LLMConfig(model=str(file)))
    assert digest_llm(LLMConfig(model=str(copy))) == first
    copy.write_bytes(copy.read_bytes()[:-1] + b"\x01")
    assert digest_llm(LLMConfig(model=str(copy))) != first
    monkeypatch.setattr(gguf_conversion, "CONVERSION", gguf_conversion.CONVERSION + 1)
    assert digest_llm(LLMConfig(model=str(file))) != first


def test_name_of_another_model_is_no_gguf(causal_dir, tmp_path):
    assert find_gguf("Qwen/Qwen3-8B", "llm.model") is None
    assert find_gguf(str(causal_dir), "llm.model") is None
    assert find_gguf(str(tmp_path), "llm.model") is None
