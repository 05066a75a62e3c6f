"""The settings that all rows of a table start from: at full scale those of the paper, at small the demo's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from multicsr.errors import ConfigError
from multicsr.models.resolve import ASSETS
from multicsr.recipes import load_recipe
from multicsr.tools.reproduce.paper import WRITING, Measure, PaperEntry

Scale = Literal["full", "small"]
DEMO = ASSETS / "demo"
_DEV = str(DEMO / "dev_triplets.tsv")
_CHATGPT = "gpt-3.5-turbo"
"""Model that an endpoint is asked for; the paper names none beside ChatGPT."""
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
    """Column of the sentences in these files."""
    data: Sequence[str] = ()
    """Labelled files and directories to measure on."""
    dev: str | None = None
    labelled: str | None = None
    """File of triplets of people."""
    endpoint: str | None = None
    """URL of an OpenAI-compatible endpoint, for the rows of ChatGPT."""
    seeds: int = 3
    limit: int | None = None
    """Number of sentences that are drawn from a source; None: that of the table, or all."""
    overrides: Sequence[str] = ()
    """Settings of --set, which hold for every row that does not set them itself."""

    @property
    def is_small(self) -> bool:
        """Return True at small scale."""
        return self.scale == "small"


@dataclass(frozen=True)
class Inputs:
    """The files that the rows of a table read."""

    sources: Mapping[str, str]
    column: str | None
    data: Sequence[str]
    """Tasks that encoders are measured on."""
    dev: str | None
    labelled: str | None


def inputs_of(entry: PaperEntry, options: ReproduceOptions) -> Inputs:
    """Return the files of a table: those that are given, and at small scale those that ship.

    At small scale the only labelled triplets are those that choose a checkpoint. A table that trains on
    labelled triplets trains on these, and nothing chooses.
    """
    if not options.is_small:
        return Inputs(options.sources, options.column, options.data, options.dev, options.labelled)
    spends_dev = entry.needs_labelled and options.labelled is None and options.dev is None
    sources = dict(options.sources)
    column = options.column
    if "premises" not in sources:
        sources["premises"] = str(DEMO / "sentences.tsv")
        column = column or "sentence"
    return Inputs(
        sources,
        column,
        options.data or [str(DEMO / "test_triplets.tsv")],
        None if spends_dev else options.dev or _DEV,
        _DEV if spends_dev else options.labelled,
    )


def require_effects(entry: PaperEntry, options: ReproduceOptions) -> None:
    """Raise ConfigError if an option would have no effect on a table."""
    rows = entry.runnable()
    sources = {row.source for row in rows if row.origin in WRITING}
    on_tasks = entry.measure == Measure.TASKS
    without_effect = {
        **{f"--source {name}": True for name in options.sources if name not in sources},
        "--column": options.column is not None and not options.sources,
        "--labelled": options.labelled is not None and not entry.needs_labelled,
        "--endpoint": options.endpoint is not None and all(row.llm != CHATGPT for row in rows),
        "--limit": options.limit is not None and not sources & set(SOURCES),
        "--dev": options.dev is not None and not on_tasks,
        "--data": bool(options.data) and not on_tasks,
    }
    if on_tasks and entry.on_dev and options.data and inputs_of(entry, options).dev is not None:
        without_effect["--data"] = True
    found = [option for option, is_idle in without_effect.items() if is_idle]
    if found:
        names = " and ".join(found).replace("--source premises", "--sentences")
        raise ConfigError(f"{names} has no effect on {entry.name}; leave it out")


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


def at_endpoint(url: str) -> dict[str, dict[str, object]]:
    """Return the sections of rows whose LLM is ChatGPT, in place of those of the base."""
    return {
        "llm": {"engine": "openai", "model": _CHATGPT, "base_url": url},
        "score": {"method": "llm_stated"},
    }
