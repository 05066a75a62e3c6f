"""Training of the tiny LM from scratch: `python -m scripts.tinylm.train --data DIR --out DIR`.

1. BPE and the teacher's cosines; 2. steps until the time is up; 3. export. The learning rate and the mix of
tasks depend on the elapsed time, so a slower machine with the same seed gets the same mix in fewer steps.

Shapes: B sequences, L tokens, T predicted tokens, S graded pairs, V vocabulary.
"""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from multicsr.prompts import PromptSet, load_prompts
from scripts.tinylm import data as corpus
from scripts.tinylm.examples import LATE, Example, Graded, Sampler, grade_pairs
from scripts.tinylm.model import build, export
from scripts.tinylm.tokenizer import train_bpe, with_phrases

log = logging.getLogger(__name__)
_TOKENS_PER_BATCH = 1536
_BATCHES_PER_POOL = 12
_PEAK_RATE = 1.5e-3
_EXPORT_EVERY_S = 240.0


@dataclass
class LanguageModelBatch:
    """Batch of sequences, padded on the right, so that causal attention needs no mask."""

    ids: Tensor
    """[B, L]"""
    predict: Tensor
    """[B, L - 1], True where the next token counts"""
    graded: Tensor
    """[S, 2]: row and position of each prompt that ends in a grade"""
    grades: Tensor
    """[S, 6]: weight of each label"""


def collate(examples: list[Example], premise_share: float) -> LanguageModelBatch:
    """Convert examples to tensors.

    Args:
        examples: examples of one batch.
        premise_share: probability with which a token of the prompt is predicted, too.
    """
    ids = torch.zeros(len(examples), max(len(e.ids) for e in examples), dtype=torch.long)
    predict = torch.zeros(ids.shape[0], ids.shape[1] - 1, dtype=torch.bool)
    graded, grades = [], []
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = torch.tensor(example.ids)
        predict[row, : length - 1] = torch.rand(length - 1) < premise_share
        if example.grade is None:
            predict[row, example.start - 1 : length - 1] = True
        else:
            graded.append((row, length - 1))
            grades.append(_soft_label(example.grade))
    return LanguageModelBatch(
        ids, predict, torch.tensor(graded).reshape(-1, 2), torch.tensor(grades).reshape(-1, 6)
    )


def _soft_label(points: float) -> list[float]:
    """Return weights of the labels 0..5 whose expected value is `points`."""
    return [max(0.0, 1.0 - abs(points - label)) for label in range(6)]


def pool(sampler: Sampler, progress: float) -> list[LanguageModelBatch]:
    """Draw about `_BATCHES_PER_POOL` batches, each of similar lengths, in random order."""
    examples: list[Example] = []
    while sum(len(example.ids) for example in examples) < _BATCHES_PER_POOL * _TOKENS_PER_BATCH:
        examples += [sampler.draw(progress) for _ in range(32)]
    examples.sort(key=lambda example: len(example.ids))
    groups: list[list[Example]] = [[]]
    for example in examples:
        if (len(groups[-1]) + 1) * len(example.ids) > _TOKENS_PER_BATCH:
            groups.append([])
        groups[-1].append(example)
    sampler.rng.shuffle(groups)
    share = 0.0 if progress >= LATE else 0.2
    return [collate(group, share) for group in groups]


def losses(model: LlamaForCausalLM, batch: LanguageModelBatch, label_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of the predicted tokens [T], and that of the grades [S].

    Logits are computed only where they count.
    """
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits_TV = model.lm_head(hidden[:, :-1][batch.predict])
    text = functional.cross_entropy(logits_TV, batch.ids[:, 1:][batch.predict], reduction="sum")
    text = text / max(1, len(logits_TV))  # a batch may hold nothing but grades
    if not len(batch.graded):
        return text, torch.zeros(())
    logits_SV = model.lm_head(hidden[batch.graded[:, 0], batch.graded[:, 1]])
    score = -(batch.grades * logits_SV.log_softmax(-1)[:, label_ids]).sum(-1).mean()
    return text, score


def rate(progress: float, begin: float) -> float:
    """Return the learning rate: it warms up, stays constant, then falls to zero over the last third.

    Args:
        progress: share of the training that is done, in [0, 1].
        begin: progress at which this training began.
    """
    warm = 0.01 + (progress - begin) / 0.02
    return _PEAK_RATE * min(1.0, warm, max(0.0, (1.0 - progress) / 0.35))


def fit(
    model: LlamaForCausalLM, sampler: Sampler, label_ids: Tensor, minutes: float, out: Path, begin: float
) -> None:
    """Train until `minutes` have passed, and export to `out` every `_EXPORT_EVERY_S` seconds."""
    started = exported = time.monotonic()
    optimizer = _optimizer(model)
    steps, tokens, progress = 0, 0, begin
    while progress < 1.0:
        for batch in pool(sampler, progress):
            progress = begin + (1.0 - begin) * (time.monotonic() - started) / (60 * minutes)
            text, score = losses(model, batch, label_ids)
            (text + score).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate(progress, begin)
            optimizer.step()
            optimizer.zero_grad()
            steps, tokens = steps + 1, tokens + batch.ids.numel()
            if steps % 50 == 0:
                speed = tokens / (time.monotonic() - started)
                log.info(
                    "step %d, %.0f%%: text %.3f, score %.3f, %.0f tokens/s",
                    steps,
                    100 * progress,
                    text.item(),
                    score.item(),
                    speed,
                )
        if time.monotonic() - exported > _EXPORT_EVERY_S:
            export(model, sampler.whole, out)
            exported = time.monotonic()
    log.info("%d steps, %d tokens, %.0f s", steps, tokens, time.monotonic() - started)


def _optimizer(model: LlamaForCausalLM) -> torch.optim.AdamW:
    """Return AdamW, without weight decay of embeddings and norms."""
    weights = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=_PEAK_RATE, betas=(0.9, 0.97), fused=True)


def train(
    data: Path, out: Path, minutes: float, seed: int, cache: Path | None, resume: Path | None, begin: float
) -> None:
    """Run the whole training, from the data folder to the exported model.

    Args:
        data: folder with nli/ and mono/.
        out: folder of the exported model.
        minutes: duration of the training, after the preparation.
        seed: seed of the weights and of the examples.
        cache: folder that keeps the teacher's vectors for another run.
        resume: exported model to continue from; None starts anew.
        begin: progress at which the schedule begins.
    """
    torch.manual_seed(seed)
    prompts = load_prompts("syncse")
    graded = grade_pairs(corpus.nli_train(data), seed, cache)
    sampler = _sampler(data, graded, prompts, seed)
    label_ids = torch.tensor([sampler.whole.encode(label).ids for label in prompts.score_labels])
    model = LlamaForCausalLM.from_pretrained(resume, dtype=torch.float32) if resume else build(sampler.whole)
    log.info("%d parameters, vocabulary %d", model.num_parameters(), sampler.whole.get_vocab_size())
    fit(model, sampler, label_ids.flatten(), minutes, out, begin)
    export(model.eval(), sampler.whole, out)


def _sampler(data: Path, graded: Graded, prompts: PromptSet, seed: int) -> Sampler:
    """Return the sampler, with a BPE trained on the text that it will draw."""
    text = 3 * [sentence for pair, _ in graded.pairs for sentence in pair[:2]]
    text += corpus.wiki_sentences(data) + [s for pair in corpus.negations(data) for s in pair]
    plain = train_bpe(text, prompts)
    return Sampler(data, graded, prompts, with_phrases(plain, prompts), plain, seed)


def main() -> None:
    """Train the tiny LM from the command line."""
    parser = argparse.ArgumentParser(description="Train the tiny LM.")
    parser.add_argument("--data", type=Path, required=True, help="folder with nli/ and mono/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=50.0, help="of training, after preparation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="folder that keeps the teacher's vectors for another run")
    parser.add_argument("--resume", type=Path, help="an exported model to go on from")
    parser.add_argument("--begin", type=float, default=0.0, help="progress to begin the schedule at")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)  # Adam moments of rare tokens decay into denormals, which are slow
    train(args.data, args.out, args.minutes, args.seed, args.cache, args.resume, args.begin)


if __name__ == "__main__":
    main()
