"""The settings that all rows of a table start from: at full scale those of the paper, at small the demo's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from multicsr.errors import ConfigError
from multicsr.models.resolve import ASSETS
from multicsr.recipes import load_recipe
from multicsr.stages.ingest.formats import format_of
from multicsr.tools.reproduce.paper import WRITING, WRITTEN, Measure, PaperEntry

Scale = Literal["full", "small"]
DEMO = ASSETS / "demo"
_DEV = str(DEMO / "dev_triplets.tsv")
_CHATGPT = "gpt-3.5-turbo"
"""Model that an endpoint is asked for by default; the paper names none beside ChatGPT."""
NUM_SEEDS = 3
"""Number of trainings of each row where none is given."""
SOURCES = ("premises", "wikipedia", "tagalog")
"""Names of the sources of unlabelled sentences that a user may give."""
CHATGPT = "ChatGPT"
"""LLM of rows that need an endpoint at full scale."""


@dataclass(frozen=True)
class ReproduceOptions:
    """The options of `multicsr reproduce`."""

    scale: Scale = "small"
    store: str = ""
    """Directory of all data and results; empty: runs/reproduce-SCALE."""
    llm: str | None = None
    encoder: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    """File of each source of unlabelled sentences, by its name."""
    column: str | None = None
    """Column of the sentences in those files that have columns."""
    data: Sequence[str] = ()
    """Labelled files and directories to measure on."""
    dev: str | None = None
    labelled: str | None = None
    """File of human triplets."""
    endpoint: str | None = None
    """URL of an OpenAI-compatible endpoint, for the rows of ChatGPT."""
    endpoint_model: str | None = None
    """Model that the endpoint is asked for; None: `gpt-3.5-turbo`."""
    seeds: int | None = None
    """Number of trainings of each row; None: `NUM_SEEDS`."""
    limit: int | None = None
    """Number of sentences that are drawn from a source; None: that of the table, or all."""
    overrides: Sequence[str] = ()
    """Settings of --set, which hold for every row that does not set them itself."""

    @property
    def is_small(self) -> bool:
        """Return True at small scale."""
        return self.scale == "small"

    @property
    def num_seeds(self) -> int:
        """Return the number of trainings of each row."""
        return NUM_SEEDS if self.seeds is None else self.seeds


@dataclass(frozen=True)
class Inputs:
    """The files that the rows of a table read."""

    sources: Mapping[str, str]
    columns: Mapping[str, str]
    """Column of the sentences in the file of a source, by the source's name; text has none."""
    data: Sequence[str]
    """Tasks that encoders are measured on."""
    dev: str | None
    labelled: str | None


def inputs_of(entry: PaperEntry, options: ReproduceOptions) -> Inputs:
    """Return the files of a table: those that are given, and at small scale those that ship.

    At small scale the only labelled triplets are those that choose a checkpoint. A table that trains on
    labelled triplets trains on these, and nothing chooses.
    """
    columns = _columns(options)
    if not options.is_small:
        return Inputs(options.sources, columns, options.data, options.dev, options.labelled)
    spends_dev = entry.needs_labelled and options.labelled is None and options.dev is None
    sources = dict(options.sources)
    if "premises" not in sources:
        sources["premises"] = str(DEMO / "sentences.tsv")
        columns["premises"] = "sentence"
    return Inputs(
        sources,
        columns,
        options.data or [str(DEMO / "test_triplets.tsv")],
        None if spends_dev else options.dev or _DEV,
        _DEV if spends_dev else options.labelled,
    )


def _columns(options: ReproduceOptions) -> dict[str, str]:
    """Return the column of each source that is given; a folder may hold files with columns."""
    if options.column is None:
        return {}
    return {name: options.column for name, path in options.sources.items() if not _is_text(name, path)}


def _is_text(source: str, path: str) -> bool:
    language = "tl" if source == "tagalog" else "en"
    kind = format_of(Path(path).name, "auto", language)
    return kind in ("text", "tmx", "wikipedia") and not Path(path).is_dir()


def require_effects(entry: PaperEntry, options: ReproduceOptions) -> None:
    """Raise ConfigError if an option would have no effect on a table."""
    if options.endpoint_model is not None and options.endpoint is None:
        raise ConfigError("--endpoint-model: there is no endpoint that could be asked; give --endpoint URL")
    rows = entry.runnable()
    sources = {row.source for row in rows if row.origin in WRITING}
    on_tasks = entry.measure == Measure.TASKS
    without_effect = {
        **{f"--source {name}": True for name in options.sources if name not in sources},
        "--llm": options.llm is not None and not _uses_llm(entry, options),
        "--encoder": options.encoder is not None and entry.measure not in (Measure.TASKS, Measure.COST),
        "--column": options.column is not None and not _columns(options),
        "--labelled": options.labelled is not None and not entry.needs_labelled,
        "--endpoint": options.endpoint is not None and all(row.llm != CHATGPT for row in rows),
        "--limit": options.limit is not None and not sources & set(SOURCES),
        "--dev": options.dev is not None and not (on_tasks and (entry.trains or entry.on_dev)),
        "--seeds": options.seeds is not None and not entry.trains,
        "--data": bool(options.data) and not on_tasks,
    }
    if on_tasks and entry.on_dev and options.data and inputs_of(entry, options).dev is not None:
        without_effect["--data"] = True
    found = [option for option, is_idle in without_effect.items() if is_idle]
    if found:
        names = " and ".join(found).replace("--source premises", "--sentences")
        raise ConfigError(f"{names} has no effect on {entry.name}; leave it out")


def _uses_llm(entry: PaperEntry, options: ReproduceOptions) -> bool:
    """Return True if the LLM of `--llm` writes or scores for a row of a table."""
    if entry.measure == Measure.COST:
        return False
    stands_for_chatgpt = options.is_small and options.endpoint is None
    return any(
        (row.scores_pairs or row.origin in WRITTEN) and (stands_for_chatgpt or row.llm != CHATGPT)
        for row in entry.runnable()
    )


def tasks_of(entry: PaperEntry, inputs: Inputs) -> Sequence[str]:
    """Return the files that the encoders of a table are measured on.

    Raises:
        ConfigError: there are none.
    """
    if entry.on_dev and inputs.dev is not None:
        return [inputs.dev]
    if inputs.data:
        return inputs.data
    option = "--dev FILE" if entry.on_dev else "--data FOLDER"
    raise ConfigError(f"{entry.name} has nothing to measure on; give {option}: {entry.data}")


def base_tree(options: ReproduceOptions, inputs: Inputs) -> dict[str, dict[str, object]]:
    """Return the sections of the configuration that the rows of a table start from, without its input."""
    return _small(options, inputs) if options.is_small else _full(options, inputs)


def _small(options: ReproduceOptions, inputs: Inputs) -> dict[str, dict[str, object]]:
    """Return the settings of the demo, with a number of steps that is the same for every row."""
    llm: dict[str, dict[str, object]] = {} if options.llm is None else {"llm": {"model": options.llm}}
    prompts = {} if options.llm is None else {"prompts": "auto"}
    encoder: dict[str, object] = {"encoder": options.encoder} if options.encoder else {"layers": 2}
    return {
        **llm,
        "generate": {**prompts, "max_new_tokens": 32, "rows_per_shard": 512, "actors": 2},
        "train": {
            **encoder,
            "mask": {"sigma": 0.65},  # as in the demo: MiniLM's cosines run lower than SimCSE's
            "steps": 40,
            "learning_rate": 1e-4,
            "global_batch": 64,
            "dev": inputs.dev,
            "merge": [],
            "cpus_per_worker": 2,
            "tensorboard": False,
        },
    }


def _full(options: ReproduceOptions, inputs: Inputs) -> dict[str, dict[str, object]]:
    """Return the settings of the recipe multicsr-paper on GPUs; each row sets encoder and mask model."""
    recipe = load_recipe("multicsr-paper").config()
    tree = recipe.model_dump(mode="json", exclude_unset=True, exclude={"name", "store", "input"})
    tree["llm"] |= {"model": options.llm or recipe.llm.model, "dtype": "bfloat16"}
    tree["generate"] |= {"gpus_per_actor": 1}
    tree["train"] |= {"dev": inputs.dev, "gpus_per_worker": 1, "tensorboard": False}
    return tree


def at_endpoint(url: str, model: str | None) -> dict[str, dict[str, object]]:
    """Return the sections of rows whose LLM is ChatGPT, in place of those of the base."""
    return {
        "llm": {"engine": "openai", "model": model or _CHATGPT, "base_url": url},
        "score": {"method": "llm_stated"},
    }
