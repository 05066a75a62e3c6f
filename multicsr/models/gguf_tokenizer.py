"""Tokenizer of a GGUF model.

transformers reads vocabulary, merges and normalization. It leaves out which tokens a prompt begins and ends
with: Gemma without its bos token writes garbage.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from multicsr.models.gguf_metadata import GgufMetadata

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PROBE = "Two dogs run.\n  They don't stop, 2024: naïve 狗 <b>"
"""Text that must be encoded alike by a tokenizer and by its saved copy."""


def read_tokenizer(folder: Path, file: str, metadata: GgufMetadata) -> "PreTrainedTokenizerFast":
    """Read the tokenizer of a GGUF file, with the special tokens and the chat template of its metadata."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    backend = AutoTokenizer.from_pretrained(folder, gguf_file=file).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=metadata.token("bos"),
        eos_token=metadata.token("eos"),
        unk_token=metadata.token("unknown"),
        pad_token=metadata.token("padding"),
        add_bos_token=metadata.adds_bos,
        add_eos_token=metadata.adds_eos,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = metadata.chat_template
    tokenizer.update_post_processor()
    return tokenizer


def check_saved(tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Check that a tokenizer is loaded from the directory of its model as it was saved there.

    transformers builds the tokenizers of some architectures anew from the vocabulary.

    Raises:
        ValueError: the loaded tokenizer encodes text in another way.
    """
    from transformers import AutoTokenizer

    expected, found = (
        each(_PROBE)["input_ids"] for each in (tokenizer, AutoTokenizer.from_pretrained(folder))
    )
    if expected != found:
        raise ValueError("transformers loads another tokenizer than the file describes")
