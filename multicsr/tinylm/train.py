"""Train the tiny LM from nothing: `python -m multicsr.tinylm.train --data DIR --out DIR`.

1. BPE and the teacher's cosines; 2. steps until the time is up; 3. export. The learning rate and the mix of
tasks follow the clock, so the same seed on a slower machine sees the same tasks for fewer steps.

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
from multicsr.tinylm import data as corpus
from multicsr.tinylm.examples import LATE, Example, Graded, Sampler, grade_pairs
from multicsr.tinylm.model import build, export
from multicsr.tinylm.tokenizer import train_bpe, with_phrases

log = logging.getLogger(__name__)
_TOKENS_PER_BATCH = 1536
_BATCHES_PER_POOL = 12
_PEAK_RATE = 1.5e-3
_EXPORT_EVERY_S = 240.0


@dataclass
class Batch:
    """Padded on the right, so causal attention needs no mask."""

    ids: Tensor
    """[B, L]"""
    predict: Tensor
    """[B, L - 1], True where the next token counts"""
    graded: Tensor
    """[S, 2]: row and position of each prompt that ends in a grade"""
    grades: Tensor
    """[S, 6]: weight of each label"""


def collate(examples: list[Example], premise_share: float) -> Batch:
    """Examples to tensors; a random share of the prompt's tokens is predicted as well."""
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
    return Batch(ids, predict, torch.tensor(graded).reshape(-1, 2), torch.tensor(grades).reshape(-1, 6))


def _soft_label(points: float) -> list[float]:
    """Weights of the labels 0..5 whose expected value is `points`."""
    return [max(0.0, 1.0 - abs(points - label)) for label in range(6)]


def pool(sampler: Sampler, progress: float) -> list[Batch]:
    """Some batches of alike lengths, in random order."""
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


def losses(model: LlamaForCausalLM, batch: Batch, label_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the predicted tokens [T] and of the grades [S]; logits only where they count."""
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
    """Warm up, hold, then fall to zero over the last third."""
    warm = 0.01 + (progress - begin) / 0.02
    return _PEAK_RATE * min(1.0, warm, max(0.0, (1.0 - progress) / 0.35))


def fit(
    model: LlamaForCausalLM, sampler: Sampler, label_ids: Tensor, minutes: float, out: Path, begin: float
) -> None:
    """Train until the time is up, exporting now and then."""
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
    """AdamW; embeddings and norms do not decay."""
    weights = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=_PEAK_RATE, betas=(0.9, 0.97), fused=True)


def train(
    data: Path, out: Path, minutes: float, seed: int, cache: Path | None, resume: Path | None, begin: float
) -> None:
    """Everything, from the data folder to the exported model."""
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
    """Train the BPE on what the sampler will draw."""
    text = 3 * [sentence for pair, _ in graded.pairs for sentence in pair[:2]]
    text += corpus.wiki_sentences(data) + [s for pair in corpus.negations(data) for s in pair]
    plain = train_bpe(text, prompts)
    return Sampler(data, graded, prompts, with_phrases(plain, prompts), plain, seed)


def main() -> None:
    """Command line."""
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
