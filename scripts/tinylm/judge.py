"""An NLI judge: does the hypothesis follow from the premise, contradict it, or neither?

Frozen MiniLM token states, then a small decomposable-attention head (Parikh et al. 2016, with the
difference and product features of ESIM). It measures the tiny LM and is never used to train it.

Shapes: B pairs, P premise tokens, H hypothesis tokens, L tokens of the longest sentence, W = head width,
D' = width of the token states of all layers used. `keep_*` is True on real tokens.
"""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from multicsr.models.resolve import ASSETS
from scripts.tinylm.data import LABELS, Pair, nli_test, nli_train, tidy
from scripts.tinylm.teacher import WIDTH, Teacher, TokenFeatures

log = logging.getLogger(__name__)
SHIPPED = ASSETS / "judge"
_LAYERS = (2, 6)
_HEAD_WIDTH = 192
_BATCH = 128
_FILE = "judge.safetensors"


class AlignmentHead(nn.Module):
    """Decomposable attention: attend, compare, aggregate."""

    def __init__(self, dropout: float = 0.25) -> None:
        super().__init__()
        width = _HEAD_WIDTH
        self.project = nn.Sequential(nn.Dropout(dropout), nn.Linear(WIDTH * len(_LAYERS), width), nn.GELU())
        self.query = nn.Linear(width, width)
        self.compare = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * width, width), nn.GELU())
        self.classify = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(8 * width, width),
            nn.GELU(),
            nn.Linear(width, len(LABELS)),
        )

    def forward(self, premise: Tensor, hypothesis: Tensor, keep_p: Tensor, keep_h: Tensor) -> Tensor:
        """Return logits [B, 3] from token states [B, P, D'], [B, H, D'] and their keep masks."""
        p, h = self.project(premise), self.project(hypothesis)
        affinity = self.query(p) @ h.transpose(1, 2) / p.shape[-1] ** 0.5
        h_for_p = affinity.masked_fill(~keep_h[:, None], -1e4).softmax(2) @ h
        p_for_h = affinity.masked_fill(~keep_p[..., None], -1e4).softmax(1).transpose(1, 2) @ p
        p_seen = _pool(self.compare(torch.cat([p, h_for_p, p - h_for_p, p * h_for_p], -1)), keep_p)
        h_seen = _pool(self.compare(torch.cat([h, p_for_h, h - p_for_h, h * p_for_h], -1)), keep_h)
        logits: Tensor = self.classify(
            torch.cat([p_seen, h_seen, p_seen * h_seen, (p_seen - h_seen).abs()], -1)
        )
        return logits


def _pool(states: Tensor, keep: Tensor) -> Tensor:
    """Return mean and maximum over the kept tokens, [B, 2W]."""
    mean = (states * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)
    return torch.cat([mean, states.masked_fill(~keep[..., None], -1e4).amax(1)], -1)


class Judge:
    """The shipped judge: MiniLM from its package, the head from a folder."""

    def __init__(self, directory: Path = SHIPPED) -> None:
        from safetensors.torch import load_file

        self.teacher = Teacher()
        self.head = AlignmentHead().eval()
        weights = load_file(directory / _FILE)
        self.head.load_state_dict({name: weight.float() for name, weight in weights.items()})

    def probabilities(self, premises: list[str], hypotheses: list[str]) -> NDArray[np.float32]:
        """Return P(entailment), P(neutral), P(contradiction) of each pair, [N, 3]."""
        premises, hypotheses = (
            [tidy(text) for text in premises],
            [tidy(text) for text in hypotheses],
        )
        unique = list(dict.fromkeys(premises + hypotheses))
        row_of = {text: row for row, text in enumerate(unique)}
        features = self.teacher.tokens(unique, _LAYERS)
        pairs = np.array([[row_of[p], row_of[h]] for p, h in zip(premises, hypotheses, strict=True)])
        return _predict(self.head, features, pairs.reshape(-1, 2))


@torch.inference_mode()
def _predict(head: AlignmentHead, features: TokenFeatures, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    head.eval()
    out = np.zeros((len(pairs), len(LABELS)), dtype=np.float32)
    for rows in np.array_split(np.arange(len(pairs)), len(pairs) // 256 + 1):
        if len(rows):
            out[rows] = head(*_inputs(features, pairs[rows])).softmax(-1).numpy()
    return out


def _inputs(features: TokenFeatures, pairs: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    premise, keep_p = _padded(features, pairs[:, 0])
    hypothesis, keep_h = _padded(features, pairs[:, 1])
    return premise, hypothesis, keep_p, keep_h


def _padded(features: TokenFeatures, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return token states [B, L, D'] and the keep mask [B, L].

    Padding is not zeroed: it holds the states stored next, which the keep mask excludes.
    """
    starts, lengths = features.starts[rows], features.starts[rows + 1] - features.starts[rows]
    offsets = np.arange(lengths.max())
    index = np.minimum(starts[:, None] + offsets, len(features.states) - 1)
    states = torch.from_numpy(features.states[index].astype(np.float32))
    return states, torch.from_numpy(offsets < lengths[:, None])


def train(data: Path, out: Path, epochs: int = 4, seed: int = 1) -> float:
    """Train the head, save it, and return its accuracy on SNLI test."""
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    pairs, test = nli_train(data), nli_test(data)
    unique = list(dict.fromkeys(text for pair in [*pairs, *test] for text in pair[:2]))
    log.info("%d training pairs, %d test pairs, %d sentences", len(pairs), len(test), len(unique))
    features = Teacher().tokens(unique, _LAYERS)
    row_of = {text: row for row, text in enumerate(unique)}
    head = AlignmentHead()
    test_rows, test_labels = _rows(test, row_of)
    for epoch in _epochs(head, features, *_rows(pairs, row_of), epochs=epochs, seed=seed):
        accuracy = float((_predict(head, features, test_rows).argmax(1) == test_labels).mean())
        log.info("epoch %d: SNLI test accuracy %.4f", epoch, accuracy)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.half() for name, weight in head.state_dict().items()}, out / _FILE)
    return accuracy


def _epochs(
    head: AlignmentHead,
    features: TokenFeatures,
    pairs: NDArray[np.int64],
    labels: NDArray[np.int64],
    epochs: int,
    seed: int,
) -> Iterator[int]:
    """Train one epoch per iteration, and yield its number.

    The last weights are kept, so nothing is selected on the test set.
    """
    rng = np.random.default_rng(seed)
    num_steps = epochs * (len(pairs) // _BATCH + 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=num_steps, pct_start=0.1)
    for epoch in range(epochs):
        head.train()
        for rows in _batches(features, pairs, rng):
            logits = head(*_inputs(features, pairs[rows]))
            loss = functional.cross_entropy(logits, torch.from_numpy(labels[rows]), label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        yield epoch


def _batches(
    features: TokenFeatures, pairs: NDArray[np.int64], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return all rows in batches of similar premise lengths, the batches in random order.

    With rows of all lengths in a batch, padding would triple the work.
    """
    lengths = features.starts[pairs[:, 0] + 1] - features.starts[pairs[:, 0]]
    order = np.argsort(lengths + rng.random(len(pairs)), kind="stable")
    batches = np.array_split(order, len(pairs) // _BATCH + 1)
    return [batches[place] for place in rng.permutation(len(batches))]


def _rows(pairs: list[Pair], row_of: dict[str, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = np.array([[row_of[pair.premise], row_of[pair.hypothesis]] for pair in pairs], dtype=np.int64)
    return rows, np.array([LABELS.index(pair.label) for pair in pairs], dtype=np.int64)


def main() -> None:
    """Train the judge from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with nli/*.tsv.gz")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(2)
    log.info("final accuracy %.4f", train(args.data, args.out, args.epochs, args.seed))


if __name__ == "__main__":
    main()
