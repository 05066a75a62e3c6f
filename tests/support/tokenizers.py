"""Small tokenizers that spell digits as those of real families do, and the real ones where they were fetched.

`scripts/fetch_tokenizers.py` fetches the real ones.
"""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5Tokenizer

from tests.support.paths import ROOT

REAL = Path(os.environ.get("MULTICSR_TOKENIZERS", ROOT / "build" / "tokenizers"))
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
DIGITS = [f"{gap}{digit}" for gap in ("Score: ", "Score:") for digit in "0123456789"]


def gpt2(sentences: Sequence[str]) -> PreTrainedTokenizerBase:
    """One token for each digit, and another one for it with a blank before it."""
    return _byte_level(sentences, splits_digits=False)


def qwen(sentences: Sequence[str]) -> PreTrainedTokenizerBase:
    """Digits, and a blank before them, are tokens of their own; there is a chat template."""
    tokenizer = _byte_level(sentences, splits_digits=True)
    tokenizer.chat_template = CHAT
    return tokenizer


def llama2(sentences: Sequence[str]) -> PreTrainedTokenizerBase:
    """A blank is set before every text, and is a token of its own before a digit."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(individual_digits=True)]
    )
    bpe.decoder = decoders.Metaspace(prepend_scheme="first")
    return _trained(bpe, sentences)


def gemma3(sentences: Sequence[str]) -> PreTrainedTokenizerBase:
    """As `llama2`, but nothing is set before a text."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.pre_tokenizer = pre_tokenizers.Digits(individual_digits=True)
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return _trained(bpe, sentences)


def t5(sentences: Sequence[str], folder: Path, without: str = "") -> PreTrainedTokenizerBase:
    """SentencePiece with a piece for a word that is a digit, except 0, which is written as "▁" and "0".

    Args:
        sentences: to train with.
        folder: where the model is written.
        without: a digit that no text contains, and for which there is no piece at all.
    """
    words = [f"Score: {digit}" for digit in "12345" if digit != without] * 40
    numbers = [f"{digit}0 dogs" for digit in "12345" if digit != without] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*_without_digits(sentences), *words, *numbers]),
        model_writer=model,
        vocab_size=300,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    return T5Tokenizer.from_pretrained(folder, extra_ids=0)


IMITATED: dict[str, Callable[[Sequence[str]], PreTrainedTokenizerBase]] = {
    "gpt2": gpt2,
    "qwen": qwen,
    "llama2": llama2,
    "gemma3": gemma3,
}


def _byte_level(sentences: Sequence[str], *, splits_digits: bool) -> PreTrainedTokenizerBase:
    bpe = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level] if splits_digits else [byte_level])
    bpe.decoder = decoders.ByteLevel()
    return _trained(bpe, sentences, pre_tokenizers.ByteLevel.alphabet())


def _trained(
    bpe: Tokenizer, sentences: Sequence[str], alphabet: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    special = ["<pad>", "<eos>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=list(alphabet))
    bpe.train_from_iterator([*_without_digits(sentences), *DIGITS * 20], trainer)
    unknown = "<unk>" if bpe.model.unk_token else None
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", unk_token=unknown
    )


def _without_digits(sentences: Sequence[str]) -> list[str]:
    return [sentence for sentence in sentences if not any(map(str.isdigit, sentence))]
