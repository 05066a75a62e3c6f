"""The export of an encoder: written, compared with the original, and only then moved to its place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from multicsr import __version__
from multicsr.errors import RunError
from multicsr.messages.extras import require_extra
from multicsr.observability.progress import Progress
from multicsr.stages.evaluate import Candidate, Evaluation, find_tasks, measure_models
from multicsr.tools.encoder_source import CARD, EncoderSource
from multicsr.tools.export.formats import MIN_COSINE, Agreement, ExportFormat
from multicsr.tools.export.quiet import without_warnings
from multicsr.tools.export.sentences import BUILT_IN, corpus_sentences
from multicsr.tools.fetch import new_directory

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH_SIZE = 128
_SECTION = """
## Export

These are the weights in the format `{format}`, written by MultiCSR {version}. {agreement}.

```python
{lines}
```
"""
_LINES = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/directory")\
"""
_ONNX_LINES = """\
import json
from pathlib import Path

import onnxruntime
import torch
from sentence_transformers.util import import_from_string
from transformers import AutoTokenizer

folder = Path("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(folder / "onnx/model.onnx", providers=["CPUExecutionProvider"])
modules = [  # those behind the transformer, such as the pooling
    import_from_string(module["type"]).load(str(folder), subfolder=module["path"])
    for module in json.loads((folder / "modules.json").read_text())[1:]
]


def encode(texts):  # a prompt, if the encoder has one, stands before each text
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    fed = {each.name: tokens[each.name] for each in session.get_inputs()}
    (vectors,) = session.run(["last_hidden_state"], fed)
    features = {name: torch.from_numpy(values) for name, values in tokens.items()}
    features["token_embeddings"] = torch.from_numpy(vectors)
    with torch.inference_mode():
        for module in modules:
            features = module(features)
    return features["sentence_embedding"].numpy()\
"""


@dataclass(frozen=True)
class Exported:
    """Result of an export."""

    directory: Path
    num_bytes: int
    agreement: Agreement
    evaluation: Evaluation | None
    """Figures of the original and of the export; None if no tasks were given."""


def export_encoder(
    source: EncoderSource,
    target: Path,
    kind: ExportFormat,
    progress: Progress,
    min_cosine: float | None = None,
    data: Sequence[str] = (),
) -> Exported:
    """Write an encoder in another format to a directory, if it agrees with the original.

    Original and export are compared on built-in sentences and, for a store, on sentences of its corpus. The
    original computes in float32, on the CPU.

    Args:
        source: the encoder.
        target: directory to make.
        kind: format of the weights.
        progress: receives a stage for the export, and one for each encoder if `data` is given.
        min_cosine: smallest cosine that a sentence's vectors before and after may have; None: `MIN_COSINE`.
        data: tasks on which both are measured.

    Raises:
        ConfigError: a package is missing, or the encoder or a task cannot be used, or the encoder cannot be
            exported to this format.
        RunError: `target` exists, or the export differs too much or gives vectors that are not finite;
            nothing is left behind.
    """
    require_extra("export" if kind.is_onnx else "train", f"--format {kind}")
    found = find_tasks(data) if data else None
    trusted = source.trust_remote_code
    bound = MIN_COSINE[kind] if min_cosine is None else min_cosine
    with new_directory(target) as part, source.directory() as path:
        progress.start("export", None)
        agreement = _write(source, path, part, kind)
        if agreement.smallest < bound:
            raise RunError(
                f"{kind}: {agreement}, below {bound:g}, for {agreement.worst!r:.60}; nothing was written. "
                "Take another format, or allow it with --min-cosine"
            )
        progress.finish(f"{kind}: {agreement}")
        both = [
            Candidate("original", lambda: _load(path, trusted)),
            Candidate(str(kind), lambda: load_exported(path, part, kind, trusted)),
        ]
        evaluation = measure_models(both, found, _BATCH_SIZE, progress) if found else None
        (part / CARD).write_text(_readme(source, path, kind, agreement), encoding="utf-8")
    num_bytes = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    return Exported(target, num_bytes, agreement, evaluation)


def _write(source: EncoderSource, path: str, part: Path, kind: ExportFormat) -> Agreement:
    """Write the export to `part`, load it from there, and compare it with the original."""
    from multicsr.tools.export.check import compare, vectors_of

    original = _load(path, source.trust_remote_code)
    sentences = [*BUILT_IN, *_of_corpus(source)]
    original_SD = vectors_of(original, sentences)
    _WRITERS[kind](original, source.name, part)
    exported = load_exported(path, part, kind, source.trust_remote_code)
    exported_SD = vectors_of(exported, sentences)
    if np.isfinite(original_SD).all() and not np.isfinite(exported_SD).all():
        raise RunError(
            f"{kind}: vectors are not finite, because the encoder has numbers beyond its range; "
            "nothing was written. Take another format, such as safetensors-bf16"
        )
    return compare(original_SD, exported_SD, sentences)


def _of_corpus(source: EncoderSource) -> list[str]:
    if source.snapshot is None or "sentences" not in source.snapshot:
        return []
    return corpus_sentences(source.snapshot.store, source.snapshot.manifest("sentences"))


def _load(path: str, trusted: bool) -> "SentenceTransformer":
    """Return the original in float32 on the CPU."""
    from multicsr.models.published_encoder import load_published_encoder

    return load_published_encoder(path, "MODEL", device="cpu", trust_remote_code=trusted).float()


def load_exported(
    path: str, directory: Path, kind: ExportFormat, trusted: bool = False
) -> "SentenceTransformer":
    """Return an exported encoder on the CPU.

    Args:
        path: directory or Hugging Face id of the original: of an ONNX export the modules behind the
            transformer are taken from there, because sentence-transformers needs optimum-onnx to load them.
        directory: directory of the export.
        kind: format of the export.
        trusted: code that comes with the encoder may be run.
    """
    from multicsr.models.published_encoder import load_published_encoder

    if not kind.is_onnx:
        with without_warnings():
            return load_published_encoder(str(directory), "--format", device="cpu", trust_remote_code=trusted)
    from multicsr.tools.export.onnx_files import ONNX_FILE, OnnxTransformer

    model = _load(path, trusted)
    model[0].model = OnnxTransformer(directory / ONNX_FILE, model[0].model.config)
    return model


def _write_onnx(model: "SentenceTransformer", name: str, directory: Path) -> None:
    from multicsr.tools.export.onnx_files import ONNX_FILE, check_is_transformer, write_onnx

    check_is_transformer(model, name)
    _save(model, directory)
    for weights in (*directory.glob("*.safetensors"), *directory.glob("*.safetensors.index.json")):
        weights.unlink()
    (directory / ONNX_FILE).parent.mkdir()
    write_onnx(model, name, directory / ONNX_FILE)


def _write_onnx_int8(model: "SentenceTransformer", name: str, directory: Path) -> None:
    from multicsr.tools.export.onnx_files import ONNX_FILE, quantize_onnx

    _write_onnx(model, name, directory)
    full = (directory / ONNX_FILE).replace(directory / "float32.onnx")
    quantize_onnx(full, directory / ONNX_FILE)
    full.unlink()


def _write_float16(model: "SentenceTransformer", name: str, directory: Path) -> None:
    _save(model.half(), directory)


def _write_bfloat16(model: "SentenceTransformer", name: str, directory: Path) -> None:
    _save(model.bfloat16(), directory)


_WRITERS: dict[ExportFormat, Callable[["SentenceTransformer", str, Path], None]] = {
    ExportFormat.ONNX: _write_onnx,
    ExportFormat.ONNX_INT8: _write_onnx_int8,
    ExportFormat.FLOAT16: _write_float16,
    ExportFormat.BFLOAT16: _write_bfloat16,
}
"""Functions that write an encoder in float32 in each format to a directory; they may change the encoder."""


def _save(model: "SentenceTransformer", directory: Path) -> None:
    from multicsr.models.encoder import save_modules

    save_modules(model, directory)


def _readme(source: EncoderSource, path: str, kind: ExportFormat, agreement: Agreement) -> str:
    card = source.readme(path).rstrip("\n")
    agreed = str(agreement)
    return f"{card}\n" + _SECTION.format(
        format=kind,
        version=__version__,
        agreement=agreed[0].upper() + agreed[1:],
        lines=_ONNX_LINES if kind.is_onnx else _LINES,
    )
