"""Figures of the model card: `python -m scripts.tinylm.evaluate --data DIR`.

They are computed from held-out SNLI test premises with greedy decoding: plain (omega 0), and with the logits
of the noisy instruction subtracted (MultiCSR Eq. 1-2). Shapes: B prompts, V vocabulary.
"""

import argparse
import json
import logging
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from multicsr.models.resolve import ASSETS
from multicsr.prompts import PromptSet, load_prompts
from scripts.tinylm.data import nli_test, read_tsv, tidy
from scripts.tinylm.judge import Judge

log = logging.getLogger(__name__)
SHIPPED = ASSETS / "tinylm"
_BATCH = 100
_MAX_NEW_TOKENS = 40
_STOP_WORDS = """a an the is are was were be of in on at to and or with by for from as it its his her their
there that this he she they some someone while has have not no"""


class TinyLM:
    """The shipped LM, with the calls that the figures need."""

    def __init__(self, directory: Path = SHIPPED) -> None:
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(directory)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    @torch.inference_mode()
    def generate(self, prompts: list[str], noisy: list[str], omega: float) -> list[str]:
        """Return greedy answers to `prompts`; each step subtracts omega times the noisy prompt's logits."""
        answers: list[str] = []
        for first in range(0, len(prompts), _BATCH):
            answers += self._greedy(prompts[first : first + _BATCH], noisy[first : first + _BATCH], omega)
        return answers

    def _greedy(self, prompts: list[str], noisy: list[str], omega: float) -> list[str]:
        both = self.tokenizer(prompts + noisy, return_tensors="pt", padding=True)
        ids, keep = both["input_ids"], both["attention_mask"]
        past, steps = None, []
        ended = torch.zeros(len(prompts), dtype=torch.bool)
        for _ in range(_MAX_NEW_TOKENS):
            places = (keep.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            out = self.model(
                ids,
                attention_mask=keep,
                position_ids=places,
                past_key_values=past,
                logits_to_keep=1,
            )
            main_BV, noisy_BV = out.logits[:, -1].chunk(2)
            token = (main_BV - omega * noisy_BV).argmax(-1)
            ended |= token == self.tokenizer.eos_token_id
            steps.append(token.masked_fill(ended, self.tokenizer.pad_token_id))
            if ended.all():
                break
            past, ids = out.past_key_values, token.repeat(2)[:, None]
            keep = torch.cat([keep, torch.ones_like(ids)], dim=1)
        texts = self.tokenizer.batch_decode(torch.stack(steps, 1), skip_special_tokens=True)
        return [text.split("\n")[0].strip() for text in texts]

    @torch.inference_mode()
    def scores(self, prompts: PromptSet, ones: list[str], others: list[str]) -> NDArray[np.float64]:
        """Return the expected value of the labels for each pair, in [0, 5] (MultiCSR Eq. 3)."""
        text = [prompts.scoring(one, other) for one, other in zip(ones, others, strict=True)]
        labels = [self.tokenizer(label)["input_ids"][0] for label in prompts.score_labels]
        values: list[float] = []
        for first in range(0, len(text), _BATCH):
            batch = self.tokenizer(text[first : first + _BATCH], return_tensors="pt", padding=True)
            places = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            logits = self.model(batch["input_ids"], batch["attention_mask"], places, logits_to_keep=1).logits
            shares = logits[:, -1, labels].softmax(-1)
            values += (shares @ torch.arange(len(labels), dtype=torch.float32)).tolist()
        return np.array(values)


def content_words(sentence: str) -> set[str]:
    """Return the words of a sentence that carry meaning, in lower case."""
    return set(re.findall(r"[a-z]+", sentence.lower())) - set(_STOP_WORDS.split())


def shared_content(premise: str, output: str) -> float:
    """Return the share of the output's content words that the premise has; 0 if the output has none."""
    words = content_words(output)
    return len(words & content_words(premise)) / len(words) if words else 0.0


def held_out_premises(data: Path, count: int, seed: int = 1) -> list[str]:
    """Draw `count` SNLI test premises, in the form that the LM was trained on."""
    unique = list(dict.fromkeys(tidy(pair.premise) for pair in nli_test(data)))
    return random.Random(seed).sample(unique, count)


def generation_metrics(
    lm: TinyLM, judge: Judge, prompts: PromptSet, premises: list[str], omega: float
) -> tuple[dict[str, float], list[tuple[str, str, str]]]:
    """Return the figures of one omega, and the triplets (premise, positive, negative) that were generated."""
    pairs = [prompts.pair(premise, f"s{row}", seed=1) for row, premise in enumerate(premises)]
    wanted, opposed = [p.entailment for p in pairs], [p.contradiction for p in pairs]
    positive, negative = lm.generate(wanted, opposed, omega), lm.generate(opposed, wanted, omega)
    metrics = {
        "omega": omega,
        "distinct": _share(a != b for a, b in zip(positive, negative, strict=True)),
    }
    for name, outputs in (("positive", positive), ("negative", negative)):
        metrics |= {f"{name}_{key}": value for key, value in _side(judge, premises, outputs).items()}
    metrics |= _scores(lm, prompts, premises, positive, negative)
    return metrics, list(zip(premises, positive, negative, strict=True))


def _side(judge: Judge, premises: list[str], outputs: list[str]) -> dict[str, float]:
    """Return the judge's verdicts and simple counts on the outputs of one instruction."""
    verdicts = judge.probabilities(premises, outputs).argmax(1)
    both = list(zip(premises, outputs, strict=True))
    return {
        "judged_entailed": float((verdicts == 0).mean()),
        "judged_contradicted": float((verdicts == 2).mean()),
        "copies": _share(a == b for a, b in both),
        "shared_content": float(np.mean([shared_content(a, b) for a, b in both])),
        "words": float(np.mean([len(output.split()) for output in outputs])),
        "unique": len(set(outputs)) / len(outputs),
    }


def _scores(
    lm: TinyLM, prompts: PromptSet, premises: list[str], positive: list[str], negative: list[str]
) -> dict[str, float]:
    """Return mean scores, and the share of rows that curation keeps: a >= 3, b <= 3, a >= b + 1."""
    a, b = lm.scores(prompts, premises, positive), lm.scores(prompts, premises, negative)
    other = lm.scores(prompts, premises, premises[1:] + premises[:1])
    kept = (a >= 3) & (b <= 3) & (a >= b + 1)
    means = {"score_positive": a.mean(), "score_negative": b.mean(), "score_random": other.mean()}
    return {name: float(value) for name, value in means.items()} | {"kept_by_curation": float(kept.mean())}


def spearman(lm: TinyLM, prompts: PromptSet, data: Path) -> float:
    """Return the Spearman correlation of the score with STS-B dev, which is not used to train or tune."""
    from scipy.stats import spearmanr

    rows = read_tsv(data / "sts/stsb_dev.tsv.gz")
    ours = lm.scores(
        prompts, [tidy(row["sentence1"]) for row in rows], [tidy(row["sentence2"]) for row in rows]
    )
    return float(spearmanr(ours, [float(row["score"]) for row in rows]).statistic)


def _share(flags: Iterable[bool]) -> float:
    return float(np.mean(list(flags)))


def main() -> None:
    """Print the figures of the model card and some triplets, as JSON."""
    parser = argparse.ArgumentParser(description="The figures of the model card, as JSON.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--count", type=int, default=1000, help="number of SNLI test premises")
    parser.add_argument("--samples", type=int, default=10, help="triplets to show")
    args = parser.parse_args()
    lm, judge, prompts = TinyLM(args.model), Judge(), load_prompts("syncse")
    premises = held_out_premises(args.data, args.count)
    report: dict[str, object] = {"stsb_dev_spearman": spearman(lm, prompts, args.data)}
    for omega in (0.0, 0.3):
        metrics, triplets = generation_metrics(lm, judge, prompts, premises, omega)
        report[f"omega_{omega}"] = {name: round(value, 3) for name, value in metrics.items()}
        report[f"samples_{omega}"] = triplets[: args.samples]
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
