"""The tokenizer of the tiny LM: byte-level BPE in which each fixed phrase of the prompts is one token.

Instructions of thirty words would cost a model of this size most of its compute. A phrase that is one token
also makes the boundaries stable: the text behind "Answer:" or "Score:" is tokenised separately. A prompt in
other words still works: it is cut into ordinary word pieces.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from multicsr.prompts import PromptSet

VOCAB_SIZE = 8192
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
NEUTRAL, RESTORE = "<neutral>", "<restore>"
"""Tokens that ask for the two side tasks of training: a neutral sentence, a sentence put in order."""


def phrases(prompts: PromptSet) -> list[str]:
    """Return the fixed text of the prompts: the parts before, between and after the sentences."""
    instructions = [*prompts.entailment, *prompts.contradiction]
    layouts = [prompts.layout.replace("{instruction}", text) for text in instructions]
    parts = [re.split(r"\{premise\}|\{hypothesis\}", layout) for layout in [*layouts, prompts.score]]
    return [part.rstrip(" ") for part in dict.fromkeys(part for pieces in parts for part in pieces) if part]


def train_bpe(sentences: Iterable[str], prompts: PromptSet) -> Tokenizer:
    """Train byte-level BPE on the training text, without the phrases."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(phrases(prompts)) - 3,
        special_tokens=[PAD, BOS, EOS, NEUTRAL, RESTORE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    labels = [label for label in prompts.score_labels for _ in range(1000)]
    text = [f" {sentence}" for sentence in sentences] + labels + [*prompts.entailment, *prompts.contradiction]
    bpe.train_from_iterator(text, trainer)
    return bpe


def with_phrases(bpe: Tokenizer, prompts: PromptSet) -> Tokenizer:
    """Return a copy of the tokenizer in which every phrase, and the line break, is one token."""
    whole = Tokenizer.from_str(bpe.to_str())
    whole.add_tokens(
        [AddedToken(text, normalized=False, special=False) for text in [*phrases(prompts), "\n"]]
    )
    return whole


def save(tokenizer: Tokenizer, out: Path, max_tokens: int) -> None:
    """Write tokenizer.json and tokenizer_config.json for `AutoTokenizer`."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    fast.save_pretrained(out)
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n"
    )  # a class that transformers 4 has, too
