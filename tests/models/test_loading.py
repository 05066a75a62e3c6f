"""Models whose weight files are incomplete or damaged are refused when they are loaded, by every loader."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from multicsr.config import Config, MaskConfig
from multicsr.errors import ConfigError
from multicsr.models.encoder import load_encoder
from multicsr.stages.evaluate import saved
from multicsr.stages.train.mask_model.model import MaskModel

Tensors = dict[str, torch.Tensor]
NORM = "encoder.layer.1.output.LayerNorm.weight"
LOADERS: dict[str, Callable[[str], object]] = {
    "train.encoder": lambda path: load_encoder(path, pooling="cls"),
    "train.mask.model": lambda path: MaskModel(MaskConfig(model=path), "cpu"),
    "encoder": lambda path: saved(path).load(),
}
"""By the setting that the message names."""


@pytest.fixture(params=LOADERS)
def setting(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def copy(tiny_bert, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(names)}


def as_pickle(folder: Path, change: Callable[[Tensors], Tensors] = dict) -> Path:
    """Turn the weights into a pytorch_model.bin."""
    torch.save(change(load_file(folder / "model.safetensors")), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


def in_shards(folder: Path) -> list[Path]:
    """Turn the weights into two files and an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, members in parts.items() for name in members}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return [folder / file for file in parts]


def assert_rejected(setting: str, path: Path, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        LOADERS[setting](str(path))
    message = str(caught.value)
    assert message.startswith(f"{setting}: ")
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without(NORM), rf"lack 1 tensors that the model needs: {NORM}; take"),
        (without("encoder.layer.2."), r"lack 16 tensors .* and 13 more; take"),
        (without("embeddings.word"), r"lack 1 tensors .*: embeddings\.word_embeddings\.weight"),
        (
            lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
            r"lack 53 tensors .*; its file has module\.embeddings.* instead; take",
        ),
        (lambda tensors: {**tensors, NORM: torch.ones(31)}, r"cannot load|lack 1 tensors"),
        (lambda _: {}, r"lack 53 tensors"),
    ],
    ids=["norm", "layer", "words", "prefix", "shape", "nothing"],
)
def test_weights_that_lack_tensors_are_rejected_and_name_them(setting, copy, change, complaint):
    rewrite(copy, change)
    assert_rejected(setting, copy, complaint)


def test_in_other_formats_too(setting, copy):
    as_pickle(copy, without(NORM))
    assert_rejected(setting, copy, NORM)


def test_a_directory_of_sentence_transformers_too(setting, tiny_bert, tmp_path):
    """With a folder for every module, and with all in one."""
    load_encoder(str(tiny_bert), pooling="mean").save(str(tmp_path / "flat"))
    rewrite(tmp_path / "flat", without(NORM))
    assert_rejected(setting, tmp_path / "flat", NORM)


def test_adapters_and_the_model_below_them_are_checked(copy, tmp_path):
    """A directory of adapters names the model that they belong to."""
    import peft
    from transformers import AutoModel, AutoTokenizer

    base = AutoModel.from_pretrained(copy)
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["query", "value"]))
    adapted.save_pretrained(str(tmp_path / "adapters"))
    AutoTokenizer.from_pretrained(copy).save_pretrained(tmp_path / "adapters")
    whole = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    assert isinstance(saved(str(tmp_path / "adapters")).load(), SentenceTransformer)
    lacking = {name: tensor for name, tensor in whole.items() if "layer.1.attention.self.query" not in name}
    save_file(lacking, tmp_path / "adapters" / "adapter_model.safetensors", metadata={"format": "pt"})
    assert_rejected(
        "encoder", tmp_path / "adapters", r"lack 2 tensors .*layer\.1\.attention\.self\.query\.lora_A"
    )
    save_file(whole, tmp_path / "adapters" / "adapter_model.safetensors", metadata={"format": "pt"})
    rewrite(copy, without(NORM))
    assert_rejected("encoder", tmp_path / "adapters", NORM)


def test_a_pooler_that_no_vector_depends_on_may_be_missing(setting, copy):
    rewrite(copy, without("pooler."))
    LOADERS[setting](str(copy))


def test_more_tensors_than_are_needed_do_no_harm(setting, copy):
    rewrite(copy, lambda tensors: {**tensors, "classifier.weight": torch.ones(2, 32)})
    LOADERS[setting](str(copy))


@pytest.mark.parametrize("size", [0, 4, 60, -1])
def test_weights_that_were_cut_are_rejected(setting, copy, size):
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:size])
    assert_rejected(setting, copy, "cannot load")


@pytest.mark.parametrize("size", [0, 4, 300, -1000])
def test_pickled_weights_that_were_cut_are_rejected(setting, copy, size):
    path = as_pickle(copy)
    path.write_bytes(path.read_bytes()[:size])
    assert_rejected(setting, copy, "cannot load")


def test_pickled_weights_run_no_code(setting, copy, tmp_path):
    class Attack:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (tmp_path / "attacked",)

    as_pickle(copy).write_bytes(pickle.dumps({NORM: Attack()}))
    assert_rejected(setting, copy, "cannot load")
    assert not (tmp_path / "attacked").exists()


def test_a_shard_that_is_missing_or_lacks_tensors_is_rejected(setting, copy):
    shards = in_shards(copy)
    LOADERS[setting](str(copy))
    (shard,) = (shard for shard in shards if NORM in load_file(shard))
    tensors = load_file(shard)
    save_file({name: tensors[name] for name in tensors if name != NORM}, shard, metadata={"format": "pt"})
    assert_rejected(setting, copy, "lack 1 tensors")
    shard.unlink()
    assert_rejected(setting, copy, "cannot load")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_other_files_that_are_damaged_are_one_line(setting, copy, file, content):
    (copy / file).write_bytes(content)
    assert_rejected(setting, copy, "cannot load|neither a padding")


def test_an_llm_that_lacks_tensors_is_rejected(tmp_path):
    from multicsr.llm.transformers.engine import TransformersEngine
    from multicsr.models.resolve import ASSETS

    path = Path(shutil.copytree(ASSETS / "tinylm", tmp_path / "lm"))
    norm = next(name for name in load_file(path / "model.safetensors") if "norm" in name)
    rewrite(path, without(norm))
    config = Config.model_validate(
        {"name": "x", "store": str(tmp_path), "input": {"paths": ["x"]}, "llm": {"model": str(path)}}
    )
    with pytest.raises(ConfigError, match=rf"^llm\.model: the weights of .* lack 1 tensors .*: {norm}; take"):
        TransformersEngine(config)
