"""The architecture of the tiny LM, its initial weights, and its export.

Token embeddings start from MiniLM's: forty thousand pairs are too few to teach which words are kinds of other
words, and MiniLM has learned it. V = vocabulary, D = width of the LM.
"""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from scripts.tinylm.teacher import Teacher
from scripts.tinylm.tokenizer import BOS, EOS, PAD, VOCAB_SIZE, save

CONTEXT = 512
_EMBEDDING_STD = 0.04


def build(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """Return a new model whose token embeddings start from MiniLM's.

    The other weights are random: seed torch before the call.
    """
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.token_to_id(PAD),
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
    )
    model = LlamaForCausalLM(config)
    words = [tokenizer.decode([token]).strip() for token in range(tokenizer.get_vocab_size())]
    known = [token for token, word in enumerate(words) if word.isalpha() and len(word) < 20]
    vectors = torch.from_numpy(_word_vectors([words[token] for token in known], config.hidden_size))
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.mul_(_EMBEDDING_STD / 0.02 / 2)
        table[known] += vectors  # the random half keeps "A" and "a" apart
    return model


def _word_vectors(words: list[str], width: int) -> NDArray[np.float32]:
    """Return [len(words), width]: half from MiniLM's word pieces, half from its vector of the word alone."""
    teacher = Teacher()
    table = teacher.model.get_input_embeddings().weight.detach().numpy()
    pieces = teacher.tokenizer(words, add_special_tokens=False)["input_ids"]
    as_written = np.stack([table[ids].mean(0) for ids in pieces])
    halves = [_principal(as_written, width // 2), _principal(teacher.embed(words), width // 2)]
    return np.concatenate(halves, axis=1).astype(np.float32)


def _principal(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Return the first `width` principal components, scaled to the spread of an embedding table."""
    centred = vectors - vectors.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:width]
    projected = centred @ axes.T
    scaled: NDArray[np.float32] = projected * (_EMBEDDING_STD / projected.std())
    return scaled


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write a folder that `from_pretrained` and vLLM load: float16 weights, config, tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    tied = "lm_head.weight"
    weights = {name: weight.half() for name, weight in model.state_dict().items() if name != tied}
    model.save_pretrained(out, state_dict=weights)
    config = json.loads((out / "config.json").read_text())
    config |= {
        "dtype": "float16",
        "torch_dtype": "float16",
    }  # the second name is for transformers 4
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    GenerationConfig(
        pad_token_id=model.config.pad_token_id,
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        max_new_tokens=48,
    ).save_pretrained(out)
    save(tokenizer, out, CONTEXT)
