"""Metadata of a GGUF model, read with the package `gguf`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BYTE_LEVEL_WITH_BOS = frozenset(
    ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")
) | {"chameleon"}
"""Pre-tokenizers of byte-level vocabularies whose prompts begin with the bos token unless stated."""
_ENDS_OF_TURNS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<turn|>")
"""Tokens with which chat models end their answer. Many files name none of them as the end of a text."""


class GgufMetadata:
    """Statements of a GGUF file about its model and tokenizer.

    What it leaves out is as in llama.cpp (`llama_vocab::impl::load`).

    Raises:
        ValueError, LookupError, OSError: the file is no GGUF file, damaged or cut.
    """

    def __init__(self, file: Path) -> None:
        from gguf import GGUFReader

        reader = GGUFReader(file)
        self._fields = reader.fields
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.architecture = str(reader.fields["general.architecture"].contents())
        self.num_parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)

    def value(self, key: str) -> object | None:
        """Return the value of a key, None if it is absent; `{arch}` in it stands for the architecture."""
        field = self._fields.get(key.format(arch=self.architecture))
        return None if field is None else field.contents()

    def tensor(self, name: str) -> "NDArray[np.float32] | None":
        """Return the values of a tensor that is stored as float32, None if it is absent."""
        found = self._tensors.get(name)
        return None if found is None else found.data

    def token_id(self, role: str) -> int | None:
        """Return the id of the token with a role, such as `bos` or `unknown`."""
        found = self.value(f"tokenizer.ggml.{role}_token_id")
        return int(found) if isinstance(found, int) else None

    def token(self, role: str) -> str | None:
        """Return the token with a role as the vocabulary spells it."""
        number = self.token_id(role)
        return None if number is None else str(self._fields["tokenizer.ggml.tokens"].contents(number))

    @property
    def chat_template(self) -> str | None:
        """Chat template of the model."""
        found = self.value("tokenizer.chat_template")
        return found if isinstance(found, str) else None

    @property
    def adds_bos(self) -> bool:
        """Return whether prompts begin with the bos token."""
        stated = self.value("tokenizer.ggml.add_bos_token")
        if stated is None:
            kind, pre = self.value("tokenizer.ggml.model"), self.value("tokenizer.ggml.pre")
            stated = kind == "llama" or (kind == "gpt2" and pre in _BYTE_LEVEL_WITH_BOS)
        return bool(stated) and self.token_id("bos") is not None

    @property
    def adds_eos(self) -> bool:
        """Return whether prompts end with the eos token, as those of T5 do."""
        stated = self.value("tokenizer.ggml.add_eos_token")
        if stated is None:
            stated = self.value("tokenizer.ggml.model") == "t5"
        return bool(stated) and self.token_id("eos") is not None

    def ends(self) -> list[int]:
        """Return the tokens that end a text, or an answer in the chat template, without repetition."""
        ids = [self.token_id(role) for role in ("eos", "eot", "eom")]
        written = [token for token in _ENDS_OF_TURNS if token in (self.chat_template or "")]
        if written:
            tokens = self._fields["tokenizer.ggml.tokens"].contents()
            ids += [tokens.index(token) for token in written if token in tokens]
        return list(dict.fromkeys(number for number in ids if number is not None))
