"""The configuration as commented YAML."""

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from multicsr.config import IngestConfig, LLMConfig, TrainConfig
from multicsr.config_file import load_config
from multicsr.errors import ConfigError
from multicsr.messages.terminal import one_line, printable
from multicsr.pipeline.preflight import num_gpus
from multicsr.prompts import load_prompts
from multicsr.tools.new.look import CorpusFacts, look_at

_SHOWN = 40
"""Characters that are quoted of a column."""
_PLAIN = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)
_WORDS = ("no", "yes", "on", "off", "null", "true", "false")
"""Words that YAML may take for something else than text."""
_WITH_LANGUAGES = "fewshot"
"""Shipped prompt set that has examples in several languages."""
_MIXED = 0.9
"""Share of the main language below which a corpus counts as mixed."""


@dataclass(frozen=True)
class Choices:
    """Choices of the user for a new configuration."""

    name: str
    paths: list[str]
    llm: str | None = None
    encoder: str | None = None
    store: str | None = None
    language: str | None = None


def write_config(choices: Choices, out: Path) -> Path:
    """Write a configuration for a corpus to a new file and return its path.

    Raises:
        ConfigError: the file exists, an input does not, or a choice is not valid.
        RunError: an input cannot be read.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; name another file with -o, or delete it")
    facts = look_at(_from(choices.paths, out), choices.language)
    text = "\n".join(lines(choices, facts)) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{out} exists already; name another file with -o, or delete it") from error
    try:
        load_config(out)
    except ConfigError:
        out.unlink()
        raise
    return out


def _from(paths: list[str], out: Path) -> list[str]:
    """Return paths that are right beside the configuration, too: absolute if it is in another directory."""
    if out.absolute().parent == Path.cwd():
        return paths
    return [path if "://" in path else str(Path(path).expanduser().absolute()) for path in paths]


def lines(choices: Choices, facts: CorpusFacts) -> Iterator[str]:
    """Yield the lines of the file."""
    yield "# Written by `multicsr new` from what is in the data. Other settings have their defaults, which"
    yield "# `multicsr check FILE --resolved` prints. Next: `multicsr preview FILE`, `multicsr run FILE`."
    yield f"name: {_quoted(choices.name)}"
    yield f"store: {_quoted(choices.store or f'runs/{choices.name}')}"
    yield from _input(facts)
    yield from _ingest(facts)
    yield from _llm(choices, facts)
    yield from _train(choices, facts)


def _input(facts: CorpusFacts) -> Iterator[str]:
    yield "input:"
    number = "1 file" if facts.num_files == 1 else f"{facts.num_files:,} files"
    yield f"  # {number}: {', '.join(facts.formats)}."
    yield from (f"  # {one_line(line)}" for line in facts.left_out)
    yield f"  paths: [{', '.join(map(_quoted, facts.paths))}]"
    if facts.format is not None:
        yield f"  format: {facts.format} # by its content; its name does not show it"
    if facts.column.name is not None:
        yield from _column(facts)
    if facts.has_html:
        yield f"  # {facts.html_share:.0%} of the records hold HTML, which is converted to text."
    if facts.documents:
        yield f"  # Records hold several sentences ({facts.record_words:g} words, median), which are split."
        yield "  documents: true"
    else:
        yield f"  # Records are sentences of {facts.record_words:g} words; documents: true splits them."


def _column(facts: CorpusFacts) -> Iterator[str]:
    average = facts.column.num_words / max(len(facts.column.texts), 1)
    yield f"  # The most text: {average:.0f} words a record, such as {_example(facts.column.texts)}."
    for other in facts.others:
        yield f"  # Another column: {_quoted(other.name or '')}, such as {_example(other.texts)}."
    if not facts.header:
        yield "  header: false # the first line is a record; column is the number of the one with the text"
    yield f"  column: {_quoted(facts.column.name or '')}"


def _ingest(facts: CorpusFacts) -> Iterator[str]:
    limits = {"min_words": facts.min_words, "max_words": facts.max_words}
    yield "ingest:"
    yield f"  language: {_quoted(facts.language)} # {_of_language(facts)}"
    if facts.language_share is not None and facts.language_share < _MIXED:
        yield "  # Other languages may be among them; `language_filter: true` rejects those."
    middle = f"Sentences have {facts.quantile(0.05)} to {facts.quantile(0.95)} words (5% to 95%)"
    if not any(limits.values()):
        defaults = IngestConfig()
        yield f"  # {middle}; the defaults {defaults.min_words} to {defaults.max_words} suit them."
        return
    yield f"  # {middle}; the defaults would lose more than 5%."
    yield from (f"  {name}: {value}" for name, value in limits.items() if value is not None)


def _of_language(facts: CorpusFacts) -> str:
    if facts.language_guesses:
        return f"perhaps {facts.language_guesses}: set it, or auto for several; part of every row's id"
    if facts.language_share is None:
        return "not detected: set it; part of every row's id"
    return f"as {facts.language_share:.0%} of the records are; part of every row's id"


def _llm(choices: Choices, facts: CorpusFacts) -> Iterator[str]:
    """Yield the LLM, its engine, and the prompts."""
    is_ours = choices.llm is None
    model, gpus = choices.llm or LLMConfig().model, num_gpus()
    yield "llm:"
    if is_ours:
        yield "  # The small LM of the package, for a first try with English captions: take a larger one."
    yield f"  model: {_quoted(model)}"
    if gpus and not is_ours and importlib.util.find_spec("vllm"):
        yield "  engine: vllm # there is a GPU; an encoder-decoder needs transformers"
    elif gpus and not is_ours:
        yield "  engine: transformers # pip install 'multicsr[vllm]' and `engine: vllm` are faster here"
    else:
        yield "  engine: transformers # no GPU here; on one, `engine: vllm` is faster"
    if gpus:
        yield "  dtype: bfloat16"
    yield "generate:"
    yield from _prompts(facts.language, is_ours=is_ours)
    if gpus:
        yield "  gpus_per_actor: 1"


def _prompts(language: str, *, is_ours: bool) -> Iterator[str]:
    has_examples = load_prompts(_WITH_LANGUAGES).for_language(language).name != _WITH_LANGUAGES
    if language == "en" and is_ours:
        yield "  prompts: syncse # what the small LM was trained on"
    elif language != "en" and has_examples:
        yield f"  prompts: {_WITH_LANGUAGES} # its examples are in {language}, too"
    else:
        if language != "en":
            yield f"  # No shipped set has examples in {language}: write one if the LLM answers in English."
        yield "  prompts: auto # the shipped set that suits the LLM; a run reports which one and why"


def _train(choices: Choices, facts: CorpusFacts) -> Iterator[str]:
    encoder = choices.encoder or TrainConfig().encoder
    yield "train:"
    if choices.encoder is None and facts.language != "en":
        yield f"  # An English encoder: name one for {facts.language}, and one as train.mask.model."
    yield f"  encoder: {_quoted(encoder)}"
    if num_gpus():
        yield "  gpus_per_worker: 1"
    yield "# Without labelled data nothing shows whether the encoder is better for your use. Name files of"
    yield "# them (`multicsr task make` and `multicsr label` make some), or hold triplets out of training."
    yield "# evaluate: {data: [sts/], held_out: 0.05}"


def _quoted(text: str) -> str:
    """Return a text as a YAML scalar: as it is if it is a plain word, else as a string of JSON."""
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _example(texts: list[str]) -> str:
    """Return the beginning of the first text, in quotation marks, on one line."""
    text = printable(" ".join(texts[0].split()), keep="")  # else it could end the comment
    return json.dumps(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...", ensure_ascii=False)
