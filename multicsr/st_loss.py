"""MultiCSR's loss for the trainer of sentence-transformers: stage 3 without Ray.

    N rows of this process     G rows of the global batch     C = 2G candidates     D width

Use it as any other loss of theirs:

    loss = MaskedInfoNCELoss(model, SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2"))
    SentenceTransformerTrainer(model=model, train_dataset=triplets, loss=loss).train()
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather_with_grad, batch_to_device, get_rank
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from multicsr.train.loss import LossInputs, masked_infonce
from multicsr.train.mask import keep_cells, similarity

Features = dict[str, Any]
"""Tokens of one column of a batch, as the trainer's collator makes them."""

_BOUNDS = "cu_seq_lens_q"
"""Where each sentence begins, and the end: there where a column is one sequence, for flash attention."""


class MaskedInfoNCELoss(nn.Module):
    """MultiCSR Eq. 7 on the columns anchor, positive and negative, in this order."""

    def __init__(
        self,
        model: SentenceTransformer,
        mask_model: SentenceTransformer | None,
        sigma: float = 0.9,
        temperature: float = 0.05,
        gather_across_devices: bool = False,
    ) -> None:
        """Set the loss up; `mask_model` is frozen and put in eval mode here.

        Args:
            model: encoder G, which is trained.
            mask_model: encoder P, which finds false negatives (Eq. 6); None: no mask, supervised SimCSE.
            sigma: cosine under P from which another row's hypothesis is a false negative, in (0, 1].
            temperature: tau.
            gather_across_devices: hypotheses of all processes are candidates, with gradients, so that the
                result does not depend on the number of processes; these need equal batches.

        Raises:
            ValueError: sigma or temperature is out of bounds, or P is G or cannot read G's sentences.
        """
        super().__init__()
        if not 0 < sigma <= 1:
            raise ValueError(f"sigma must be above 0 and at most 1, not {sigma}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.model = model
        self.sigma = sigma
        self.temperature = temperature
        self.gather_across_devices = gather_across_devices
        self._mask_model = None if mask_model is None else _MaskModel(mask_model, model)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """Mean over this process's anchors; the mean over all processes is Eq. 7's.

        Raises:
            ValueError: there are not exactly three columns.
        """
        columns = list(sentence_features)
        if len(columns) != 3:
            raise ValueError(f"columns must be anchor, positive and negative, not {len(columns)} of them")
        # Before G, which writes what it computes into the features.
        keep_NC = self._keep(columns)
        anchor_ND, positive_ND, negative_ND = embed_columns(self.model, columns, separate_first=False)
        positive_GD, negative_GD = self._gather(positive_ND), self._gather(negative_ND)
        inputs = LossInputs(
            anchor_ND,
            positive_GD,
            self.temperature,
            anchor_offset=self._offset(len(anchor_ND)),
            negative_GD=negative_GD,
            keep_NC=keep_NC,
        )
        # Shares of the processes add up, but DDP averages.
        return masked_infonce(inputs) * (len(positive_GD) / len(anchor_ND))

    def get_config_dict(self) -> dict[str, object]:
        """Settings for the model card."""
        return {
            "mask_model": self._mask_model and self._mask_model.model,
            "sigma": self.sigma,
            "temperature": self.temperature,
            "gather_across_devices": self.gather_across_devices,
        }

    def _keep(self, columns: Sequence[Features]) -> Tensor | None:
        """keep_NC of Eq. 6; None without P."""
        if self._mask_model is None:
            return None
        anchor_ND, positive_ND, negative_ND = self._mask_model.embed(columns)
        candidate_CD = torch.cat([self._gather(positive_ND), self._gather(negative_ND)])
        return keep_cells(similarity(anchor_ND, candidate_CD), self.sigma, self._offset(len(anchor_ND)))

    def _gather(self, embedding_ND: Tensor) -> Tensor:
        if not self.gather_across_devices:
            return embedding_ND
        embedding_GD: Tensor = all_gather_with_grad(embedding_ND)
        return embedding_GD

    def _offset(self, num_anchors: int) -> int:
        return int(get_rank()) * num_anchors if self.gather_across_devices else 0


class _MaskModel:
    """P. Not a module, so that the loss neither trains nor saves it, nor puts it in training mode."""

    def __init__(self, model: SentenceTransformer, trained: SentenceTransformer) -> None:
        if model is trained:
            raise ValueError("mask_model is the model that is trained; load it a second time")
        for each in (model, trained):
            if not isinstance(getattr(each, "tokenizer", None), PreTrainedTokenizerBase):
                raise ValueError("model and mask_model both need a tokenizer of transformers")
        self.model = model.eval().requires_grad_(False)
        self._trained_tokenizer = trained.tokenizer
        self._reads_trained_tokens = _reads_tokens_of(trained, model)

    @torch.no_grad()
    def embed(self, columns: Sequence[Features]) -> list[Tensor]:
        """P's vectors, [N, D] for each column, on the device of the features."""
        self.model.to(columns[0]["input_ids"].device)
        own_columns = [self._own_features(features) for features in columns]
        embeddings: list[Tensor] = embed_columns(self.model, own_columns, separate_first=False)
        return embeddings

    def _own_features(self, features: Features) -> Features:
        """The sentences as P reads them. What G's tokenizer cut off or does not know is lost to P, too."""
        if self._reads_trained_tokens and _BOUNDS not in features:
            return dict(features)
        texts = self._trained_tokenizer.batch_decode(_token_ids(features), skip_special_tokens=True)
        own_features: Features = batch_to_device(self.model.preprocess(texts), self.model.device)
        return own_features


def _reads_tokens_of(trained: SentenceTransformer, model: SentenceTransformer) -> bool:
    is_longer = (trained.max_seq_length or math.inf) > (model.max_seq_length or math.inf)
    return not is_longer and bool(trained.tokenizer.get_vocab() == model.tokenizer.get_vocab())


def _token_ids(features: Features) -> Sequence[Tensor]:
    """Each sentence's token ids."""
    ids: Tensor = features["input_ids"]
    return ids[0].tensor_split(features[_BOUNDS][1:-1].cpu()) if _BOUNDS in features else ids.unbind()
