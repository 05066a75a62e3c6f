"""MultiCSR's loss for the trainer of sentence-transformers: stage 3 without Ray.

    N rows of this process     G rows of the global batch     C = 2G candidates     D width

It is used like any other loss of sentence-transformers:

    loss = MaskedInfoNCELoss(model, SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2"))
    SentenceTransformerTrainer(model=model, train_dataset=triplets, loss=loss).train()
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather, all_gather_with_grad, batch_to_device, get_rank
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from multicsr.models.published_encoder import bound_length
from multicsr.models.text_input import length_limit
from multicsr.stages.train.data.index import digest
from multicsr.stages.train.objectives.losses import LossInputs, masked_infonce
from multicsr.stages.train.objectives.mask import keep_cells, similarity

Features = dict[str, Any]
"""Tokens of one column of a batch, as the trainer's collator makes them."""

_COLUMNS = ("anchor", "positive", "negative")
"""Names of the columns, for messages."""
_SHORTEST = 1e-6
"""Length below which a vector counts as zero; encoders give lengths around 1 to 30."""
_PROBES = (
    "A man plays the Guitar, doesn't he?",
    "ÉCOLE  naïve \u00c5 \u212b",
    "x",
    " 42 % of \uff12 tests\n",
)
"""Sentences by which tokenizers of equal vocabularies are compared: they differ in case, accents, forms of
Unicode, blanks and length."""
_BOUNDS = "cu_seq_lens_q"
"""Name of the feature with the positions at which sentences begin, and the end of the last one. Only a column
that is packed into one sequence, for flash attention, has this feature."""


class MaskedInfoNCELoss(nn.Module):
    """Masked InfoNCE (MultiCSR Eq. 7) on the columns anchor, positive and negative, in this order."""

    def __init__(
        self,
        model: SentenceTransformer,
        mask_model: SentenceTransformer | None,
        sigma: float = 0.9,
        temperature: float = 0.05,
        gather_across_devices: bool = False,
        mask_prompt: str | None = None,
    ) -> None:
        """Set up the loss; `mask_model` is frozen and put in eval mode here.

        Args:
            model: encoder G, which is trained.
            mask_model: encoder P, which finds false negatives (Eq. 6); None: no mask, supervised SimCSE.
            sigma: cosine under P from which another row's hypothesis is a false negative, in (0, 1]; 1: only
                equal texts are.
            temperature: temperature tau.
            gather_across_devices: if True, the hypotheses of all processes are candidates, with gradients, so
                that the result does not depend on the number of processes; all processes need batches of
                equal size.
            mask_prompt: text that is put before every sentence for P; None: P's own default prompt, if it has
                one. P never sees the prompts that the trainer puts before G's sentences.

        Raises:
            ValueError: sigma or temperature is out of bounds, P is the same object as G, G has no tokenizer
                of transformers, or a prompt is given without P.
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
        if mask_model is None and mask_prompt is not None:
            raise ValueError("mask_prompt has no effect without mask_model")
        self._mask_model = None if mask_model is None else _MaskModel(mask_model, model, mask_prompt)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """Return the mean loss over this process's anchors; the mean over all processes is the loss of Eq. 7.

        Args:
            sentence_features: the columns anchor, positive and negative, N sentences each.
            labels: unused; the trainer passes it.

        Raises:
            ValueError: there are not exactly three columns, or a vector of G or P is zero or not finite.
        """
        columns = list(sentence_features)
        if len(columns) != 3:
            raise ValueError(f"columns must be anchor, positive and negative, not {len(columns)} of them")
        # The mask is computed before G's forward pass, which writes its results into the features.
        keep_NC = self._keep(columns)
        embeddings: list[Tensor] = embed_columns(self.model, columns, separate_first=False)
        _check_vectors("model", embeddings)
        anchor_ND, positive_ND, negative_ND = embeddings
        positive_GD, negative_GD = self._gather(positive_ND), self._gather(negative_ND)
        inputs = LossInputs(
            anchor_ND,
            positive_GD,
            self.temperature,
            anchor_offset=self._offset(len(anchor_ND)),
            negative_GD=negative_GD,
            keep_NC=keep_NC,
        )
        # `masked_infonce` returns shares that add up over the processes, but DDP averages.
        return masked_infonce(inputs) * (len(positive_GD) / len(anchor_ND))

    def get_config_dict(self) -> dict[str, object]:
        """Return the settings for the model card."""
        return {
            "mask_model": self._mask_model and self._mask_model.model,
            "mask_prompt": self._mask_model and self._mask_model.prompt,
            "sigma": self.sigma,
            "temperature": self.temperature,
            "gather_across_devices": self.gather_across_devices,
        }

    def _keep(self, columns: Sequence[Features]) -> Tensor | None:
        """Return the mask keep_NC of Eq. 6; None without P."""
        if self._mask_model is None:
            return None
        texts = [self._mask_model.read(features) for features in columns]
        vectors = self._mask_model.embed(columns, texts)
        _check_vectors("mask_model", vectors)
        anchor_ND, *hypotheses = vectors
        anchor_N, *others = (_keys(of_column, anchor_ND.device) for of_column in texts)
        candidate_CD = torch.cat([self._gather(hypothesis_ND) for hypothesis_ND in hypotheses])
        candidate_C = torch.cat([self._gather_keys(key_N) for key_N in others])
        cosine_NC = similarity(anchor_ND, candidate_CD, anchor_N[:, None] == candidate_C)
        return keep_cells(cosine_NC, self.sigma, self._offset(len(anchor_ND)))

    def _gather(self, embedding_ND: Tensor) -> Tensor:
        """Return the vectors of all processes, [G, D], with gradient; if not gathering, those of this one."""
        if not self.gather_across_devices:
            return embedding_ND
        embedding_GD: Tensor = all_gather_with_grad(embedding_ND)
        return embedding_GD

    def _gather_keys(self, key_N: Tensor) -> Tensor:
        """Return the text numbers of all processes, [G]; if not gathering, those of this one."""
        key_G: Tensor = all_gather(key_N) if self.gather_across_devices else key_N
        return key_G

    def _offset(self, num_anchors: int) -> int:
        """Return the row of this process's first anchor in the global batch."""
        return int(get_rank()) * num_anchors if self.gather_across_devices else 0


class _MaskModel:
    """The mask model P.

    This class is not an nn.Module, so that the loss does not train P, save it or put it in training mode.
    """

    def __init__(self, model: SentenceTransformer, trained: SentenceTransformer, prompt: str | None) -> None:
        """Freeze P.

        Args:
            model: P.
            trained: G.
            prompt: text that is put before every sentence; None: P's default prompt, if it has one.

        Raises:
            ValueError: P is the same object as G or split by ZeRO-3, or G has no tokenizer of transformers.
        """
        if model is trained:
            raise ValueError("mask_model is the model that is trained; load it a second time")
        if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
            raise ValueError(
                "mask_model is split among the processes by ZeRO-3; load it before the training arguments "
                "are made"
            )
        if not isinstance(getattr(trained[0], "tokenizer", None), PreTrainedTokenizerBase):
            raise ValueError("model needs a tokenizer of transformers, which turns its tokens into texts")
        bound_length(model)
        self.model = model.eval().requires_grad_(False)
        self.prompt: str | None = model.prompts.get(model.default_prompt_name) if prompt is None else prompt
        self._trained_tokenizer = trained.tokenizer
        self._reads_trained_tokens = not self.prompt and _reads_tokens_of(trained, model)

    def read(self, features: Features) -> list[str]:
        """Return the sentences without G's prompt.

        Text that G's tokenizer cut off or has no tokens for is lost.
        """
        ids = _without_prompt(_token_ids(features), features.get("prompt_length"))
        texts = self._trained_tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    @torch.no_grad()
    def embed(self, columns: Sequence[Features], texts: Sequence[list[str]]) -> list[Tensor]:
        """Return P's vectors, [N, D] for each column, on the device of the features."""
        self.model.to(columns[0]["input_ids"].device)
        own_columns = [self._own_features(*column) for column in zip(columns, texts, strict=True)]
        embeddings: list[Tensor] = embed_columns(self.model, own_columns, separate_first=False)
        return [embedding_ND[:, : self.model.truncate_dim] for embedding_ND in embeddings]

    def _own_features(self, features: Features, texts: list[str]) -> Features:
        """Return P's input for a column: G's tokens if P reads the same tokens, otherwise tokenised texts."""
        if self._reads_trained_tokens and not {_BOUNDS, "prompt_length"} & features.keys():
            return dict(features)
        preprocessed = self.model.preprocess(texts, prompt=self.prompt)
        own_features: Features = batch_to_device(preprocessed, self.model.device)
        return own_features


def _reads_tokens_of(trained: SentenceTransformer, model: SentenceTransformer) -> bool:
    """Return True if `model` can take the tokens of `trained` as its own.

    Both have the same vocabulary and make the same tokens of the probe sentences, with the same padding, and
    `trained` does not make longer sequences.
    """
    if not isinstance(getattr(model[0], "tokenizer", None), PreTrainedTokenizerBase):
        return False
    is_longer = length_limit(trained) > length_limit(model)
    if is_longer or trained.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        return False
    ours, theirs = (each.preprocess(list(_PROBES), prompt="") for each in (trained, model))
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items() if isinstance(value, Tensor)
    )


def _token_ids(features: Features) -> list[list[int]]:
    """Return the token ids of each sentence, without padding."""
    ids_NL: Tensor = features["input_ids"]
    if _BOUNDS in features:
        return [ids.tolist() for ids in ids_NL[0].tensor_split(features[_BOUNDS][1:-1].cpu())]
    keep_NL = features["attention_mask"].bool()
    return [ids[keep].tolist() for ids, keep in zip(ids_NL, keep_NL, strict=True)]


def _without_prompt(ids: list[list[int]], prompt_length: int | Tensor | None) -> list[list[int]]:
    """Remove the tokens of the trainer's prompt from the beginning of each sentence.

    A tokenizer may join the prompt's last characters with the first word of the sentence. Such a token
    differs between sentences, so at most the tokens with which all sentences begin are removed.
    """
    if prompt_length is None:
        return ids
    longest = int(torch.as_tensor(prompt_length).max())
    common = next((n for n, tokens in enumerate(zip(*ids, strict=False)) if len({*tokens}) > 1), longest)
    return [of_sentence[min(longest, common) :] for of_sentence in ids]


def _keys(texts: Sequence[str], device: torch.device) -> Tensor:
    """Return a number for each text, which is the same in every process; int64 [len(texts)]."""
    return torch.tensor([digest(text) - 2**63 for text in texts], dtype=torch.int64, device=device)


def _check_vectors(who: str, embeddings: Sequence[Tensor]) -> None:
    """Raise ValueError if a vector has no direction: its cosines would be NaN, or their gradients explode.

    Args:
        who: name of the encoder, for the message.
        embeddings: vectors [N, D] of each column.
    """
    for column, embedding_ND in zip(_COLUMNS, embeddings, strict=True):
        norm_N = embedding_ND.detach().double().norm(dim=-1)
        bad_N = ~torch.isfinite(norm_N) | (norm_N < _SHORTEST)
        if bad_N.any():
            row = int(bad_N.nonzero()[0])
            raise ValueError(
                f"{who} gives a vector that is {'zero' if norm_N[row] < _SHORTEST else 'not finite'} for the "
                f"{column} of row {row} of the batch ({int(bad_N.sum())} such rows)"
            )
