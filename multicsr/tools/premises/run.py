"""The corpus in files of sentences, each a function of settings, topics and its number.

A file that is there is not written again, so that a killed command goes on, and more rows add files.
"""

import glob
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.execution.pool import map_items
from multicsr.execution.ray_session import lazy_ray_session
from multicsr.llm.base import Completion, Rejection
from multicsr.llm.load import load_engine
from multicsr.observability.progress import Progress
from multicsr.pipeline.preflight import require_no_problems
from multicsr.prompts import PromptPair
from multicsr.rows import Reason
from multicsr.stages.generate.cleaning import clean
from multicsr.stages.generate.fingerprint import writing_settings
from multicsr.stages.generate.run import named_prompts
from multicsr.stages.generate.writing import llm_pool
from multicsr.stages.ingest.formats import UNKNOWN, codec_of, format_of
from multicsr.storage.local_file import write_whole
from multicsr.storage.manifest import fingerprint
from multicsr.tools.premises.topics import Topics, load_topics

ROWS_PER_FILE = 100
_SETTINGS = "_settings.json"
"""Name of the file with the hash of what decided the sentences; ingest ignores names that begin so."""
_COLUMN = "text"
"""Field of a line with the sentence."""
Row = dict[str, str]
"""A line of a file: text, genre, topic, form and, where there is no text, the reason."""


@dataclass(frozen=True)
class PremiseFile:
    """A file of sentences."""

    number: int

    @property
    def key(self) -> str:
        """Return its name without the ending."""
        return f"{self.number:08d}"

    def rows(self) -> range:
        """Return the numbers of its sentences."""
        return range(self.number * ROWS_PER_FILE, (self.number + 1) * ROWS_PER_FILE)


def write_premises(
    config: Config,
    num_rows: int,
    progress: Progress,
    *,
    out: Path | None = None,
    topics: Path | None = None,
    temperature: float = 1.0,
    top_p: float = 0.9,
) -> Path:
    """Write sentences by genre and topic into a folder, and return the folder.

    Args:
        config: configuration of a run; its LLM writes, plainly, in its actors.
        num_rows: number of sentences, rounded up to whole files.
        progress: receives the sentences that are done.
        out: the folder; None: the only one of `input.paths`.
        topics: file of genres and topics; None: the shipped one.
        temperature: sampling temperature.
        top_p: probability mass of nucleus sampling.

    Raises:
        ConfigError: the LLM cannot work as configured, the folder is none or has other sentences, or a run
            would not read them.
        RunError: a worker died repeatedly, or the disk is full.
    """
    subjects, folder = load_topics(topics), out or _folder(config)
    config = _writing(config, temperature, top_p)
    require_no_problems(["generate"], config)
    config, _ = named_prompts(config, progress)
    _claim(folder, fingerprint({**writing_settings(config), "topics": subjects.digest()}))
    wanted = [PremiseFile(number) for number in range(-(-num_rows // ROWS_PER_FILE))]
    missing = [file for file in wanted if not _path(folder, file).exists()]
    progress.start("premises", len(wanted) * ROWS_PER_FILE)
    progress.skip((len(wanted) - len(missing)) * ROWS_PER_FILE)
    pool = llm_pool(config, config.generate.actors)
    num_good = 0
    with lazy_ray_session(config.generate.actors * config.generate.cpus_per_actor, progress.announce):
        for file, rows in map_items("premises", lambda: _writer(config, subjects), missing, pool):
            lines = (json.dumps(row) for row in rows)
            write_whole(_path(folder, file), "\n".join([*lines, ""]))
            num_good += sum(bool(row["text"]) for row in rows)
            progress.advance(len(rows))
    summary = f"{num_good:,} of {len(missing) * ROWS_PER_FILE:,} new sentences, in {folder}"
    progress.finish(f"{summary}; a run reads them with input.column: {_COLUMN}")
    return folder


def _folder(config: Config) -> Path:
    """Return the folder that the configuration reads its sentences from."""
    [place, *others] = config.input.paths
    if others or "://" in place or not _may_be_folder(place, config.ingest.language):
        shown = ", ".join(config.input.paths)
        raise ConfigError(
            f"input.paths: {shown} is no single folder of this machine to write into; give --out FOLDER"
        )
    if (column := config.input.column) != _COLUMN:
        found = "unset" if column is None else column
        raise ConfigError(f"input.column: {found}; set it to {_COLUMN}, so that a run reads the sentences")
    if config.input.format not in ("auto", "jsonl"):
        raise ConfigError(
            f"input.format: {config.input.format}; set it to jsonl, so that a run reads the sentences"
        )
    return Path(place)


def _may_be_folder(place: str, language: str) -> bool:
    """Return True if a path is a folder, or is not there and has neither a file's ending nor a wildcard."""
    path = Path(place)
    if path.exists():
        return path.is_dir()
    has_ending = format_of(path.name, "auto", language) != UNKNOWN or codec_of(path.name) is not None
    return not has_ending and not glob.has_magic(place)


def _writing(config: Config, temperature: float, top_p: float) -> Config:
    """Return the configuration with plain sampling and without demonstrations, which the prompts have not.

    An endpoint is asked at once, also with `llm.batch`.
    """
    if temperature == 0 and top_p < 1:
        raise ConfigError("--top-p has no effect at --temperature 0; give --top-p 1")
    llm = config.llm.with_share_of(config.generate.actors)
    generate = {"omega": 0.0, "temperature": temperature, "top_p": top_p, "demonstrations": None}
    return config.model_copy(
        update={
            "llm": llm.model_copy(update={"batch": False}),
            "generate": config.generate.model_copy(update=generate),
        }
    )


def _claim(folder: Path, settings: str) -> None:
    """Make the folder with the hash of the settings, or raise if it has sentences of other ones."""
    path = folder / _SETTINGS
    if path.exists():
        if path.read_text(encoding="utf-8") != json.dumps(settings):
            raise ConfigError(
                f"{folder} has sentences of another LLM, prompt set, seed, sampling, length "
                "(generate.min_new_tokens, max_new_tokens), generate.bad_words or file of topics; "
                "give another --out"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} is not empty and was not written by `multicsr premises`; give another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(settings))


def _path(folder: Path, file: PremiseFile) -> Path:
    return folder / f"{file.key}.jsonl"


def _writer(config: Config, topics: Topics) -> Callable[[PremiseFile], tuple[PremiseFile, list[Row]]]:
    """Return the function with which an actor writes the sentences of a file."""
    engine = load_engine(config)

    def write(file: PremiseFile) -> tuple[PremiseFile, list[Row]]:
        numbers = file.rows()
        subjects = [topics.assignment(number, config.seed) for number in numbers]
        prompts = [topics.prompt(subject) for subject in subjects]
        # An engine writes two texts for a row; here both are sentences of the corpus.
        pairs = [
            PromptPair(one, other, 0, 0, "") for one, other in zip(prompts[::2], prompts[1::2], strict=True)
        ]
        results = engine.generate_pairs(pairs, [f"premise:{number}" for number in numbers[::2]])
        texts = [text for result in results for text in _texts(result)]
        rows = [text | subject._asdict() for text, subject in zip(texts, subjects, strict=True)]
        return file, rows

    return write


def _texts(result: tuple[Completion, Completion] | Rejection) -> Iterator[Row]:
    """Yield the two sentences of a result, or why there is none in their place."""
    for completion in (result, result) if isinstance(result, Rejection) else result:
        if isinstance(completion, Rejection):
            yield {"text": "", "reason": str(completion.reason)}
            continue
        cleaned = clean(completion.text, "")
        if completion.finished or cleaned.is_complete:
            yield {"text": cleaned.text}
        else:
            yield {"text": "", "reason": Reason.UNFINISHED_HYPOTHESIS.value}
