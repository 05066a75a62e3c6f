"""Check of what stages need, before the first of them starts: every problem at once, in seconds.

A file or model that a late stage needs is looked for before the LLM is paid for an early one. Nothing heavy
is imported, except packages of others that the configuration names, and no model is loaded. What only a
worker on a cluster can see is not looked at.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from glob import glob
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from multicsr.config import Config, LLMConfig
from multicsr.errors import ConfigError, MulticsrError, RunError
from multicsr.messages.extras import require_extra
from multicsr.models.encoder_kind import require_sizes
from multicsr.models.gguf_file import find_gguf
from multicsr.models.llm_weights import locate_llm
from multicsr.models.resolve import require_on_hub, resolve_model
from multicsr.models.trust import require_trusted_modules
from multicsr.stages.score.calibration import read_pairs
from multicsr.stages.score.nli_labels import check_labels_in

if TYPE_CHECKING:
    from multicsr.stages.evaluate.task import Task

_FILES_READ = 20
"""Number of input files whose start is read: the first ones of every format."""
_RECORDS_READ = 2000
"""Maximum number of records that are read of a file, up to the first one with text. A reader raises earlier
if no record has the column."""


class LabelledSets:
    """The labelled data of a configuration; each set is read once, whatever the number of looks at it.

    Its methods raise ConfigError with the setting if a set cannot be read.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._read: dict[str, list[Task]] = {}

    def tasks(self) -> "list[Task]":
        """Return the tasks of `evaluate.data`."""
        return self._of("evaluate.data", self.config.evaluate.data, self.config.evaluate.kinds)

    def dev(self) -> "list[Task]":
        """Return the task of `train.dev`."""
        from multicsr.stages.evaluate.tasks import read_task

        return self._once("train.dev", lambda: [read_task(dev)] if (dev := self.config.train.dev) else [])

    def keep(self) -> "list[Task]":
        """Return the tasks of `train.keep`."""
        return self._of("train.keep", self.config.train.keep)

    def _of(self, setting: str, data: Sequence[str], kinds: Sequence[str] = ()) -> "list[Task]":
        from multicsr.stages.evaluate.tasks import find_tasks

        return self._once(setting, lambda: find_tasks(data, kinds=kinds).tasks if data else [])

    def _once(self, setting: str, read: "Callable[[], list[Task]]") -> "list[Task]":
        if setting not in self._read:
            try:
                self._read[setting] = read()
            except ConfigError as error:
                raise ConfigError(*(f"{setting}: {line}" for line in error.args)) from error
        return self._read[setting]


def find_problems(stages: Iterable[str], config: Config) -> list[MulticsrError]:
    """Return everything that would end one of the stages, as far as it can be seen now.

    If a package is missing, that is the only problem: without it, nothing else can be looked at.

    Args:
        stages: keys of `STAGES`.
        config: the configuration of the run.
    """
    names = list(stages)
    try:
        for stage in names:
            _require_packages(stage, config)
    except MulticsrError as error:
        return [error]
    problems: dict[str, MulticsrError] = {}
    sets = LabelledSets(config)
    for look in (look for stage in names for look in _looks(stage, config, sets)):
        try:
            look()
        except MulticsrError as error:
            problems.setdefault(str(error), error)
    return list(problems.values())


def _looks(stage: str, config: Config, sets: LabelledSets) -> Iterator[Callable[[], object]]:
    """Yield the looks at a configuration and at its labelled sets that a stage needs."""
    for look in LOOKS.get(stage, ()):
        yield partial(look, config)
    for look_at_sets in LOOKS_AT_SETS.get(stage, ()):
        yield partial(look_at_sets, sets)


def require_no_problems(stages: Iterable[str], config: Config) -> None:
    """Raise one error with a line for each problem that `find_problems` finds.

    Raises:
        ConfigError: the configuration cannot work.
        RunError: a place that it names cannot be reached; the configuration may be right.
    """
    problems = find_problems(stages, config)
    if problems:
        kind = ConfigError if any(isinstance(each, ConfigError) for each in problems) else RunError
        raise kind(*(line for problem in problems for line in problem.args))


def _require_packages(stage: str, config: Config) -> None:
    """Raise ConfigError, which names the extra to install, if a package that the stage needs is missing."""
    if stage in ("train", "evaluate"):
        require_extra("train", f"the stage {stage}")
    elif stage == "generate":
        _require_llm_packages(config.llm)
        if config.score.uses_encoder:
            require_extra("train", f"score.method: {config.score.method}")
        if config.score.calibrate is not None:
            require_extra("train", "score.calibrate")
        if config.generate.demonstrations is not None:
            require_extra("train", "generate.demonstrations")


def _require_llm_packages(llm: LLMConfig) -> None:
    if llm.engine == "transformers":
        require_extra("train", "llm.engine: transformers")
    elif llm.engine == "openai":
        require_extra("openai", "llm.engine: openai")
    elif llm.engine == "vllm":
        from multicsr.llm.vllm.launch import check_version

        check_version()
    with suppress(ConfigError):  # what is wrong with the file is found by another check
        if llm.loads_weights and find_gguf(llm.model, "llm.model"):
            require_extra("gguf", f"llm.model: {llm.model}")


def _input(config: Config) -> None:
    """Find the files, and read the start of some of each format, so that the column is looked for."""
    from multicsr.stages.ingest.files import find_files
    from multicsr.stages.ingest.readers import read_records

    files = find_files(config.input, config.s3, config.ingest.language).files
    for format in sorted({file.format for file in files}):
        for file in [file for file in files if file.format == format][:_FILES_READ]:
            records = read_records(
                file, config.input.column, header=config.input.header, language=config.ingest.language
            )
            next((record for record in islice(records, _RECORDS_READ) if record.reason is None), None)


def _languages(config: Config) -> None:
    """Raise ConfigError if sentences cannot be assigned to the languages."""
    from multicsr.stages.ingest.language_detection import known_languages

    if config.ingest.language == "auto":
        known_languages(config.ingest.languages, "ingest.languages")


def _prompts(config: Config) -> None:
    from multicsr.prompts import AUTO, load_prompts

    if config.generate.prompts != AUTO:
        load_prompts(config.generate.prompts)


def _llm(config: Config) -> None:
    if config.llm.loads_weights:
        _require_model(locate_llm(config.llm.model), "llm.model", config.llm.revision)


def _pairs(config: Config) -> None:
    """Raise ConfigError if an endpoint offers no contrast. It may be one that only workers reach."""
    if config.llm.engine == "openai" and config.generate.omega > 0:
        from multicsr.llm.openai.offer import require_pairs

        with suppress(RunError):
            require_pairs(config.llm)


def _scorer(config: Config) -> None:
    """Look for the model or the package that scores, if it is another one than the LLM that writes."""
    if not (config.score.uses_llm or config.score.uses_encoder):
        from multicsr.stages.score.by_package import find_scorer

        find_scorer(config.score.method)
    elif config.score.uses_encoder:
        name, setting = config.scoring_encoder
        located = resolve_model(name, setting)
        _require_encoder(name, setting, config.scorer_runs_code)
        if config.score.method == "nli" and os.path.isdir(located):
            check_labels_in(Path(located), name)
    elif config.scoring_llm != config.llm and config.scoring_llm.loads_weights:
        _require_model(locate_llm(config.scoring_llm.model, "score.model"), "score.model")


def _reject_reasons(config: Config) -> None:
    from multicsr.stages.generate.rules_of_packages import PackageRules

    PackageRules(config.generate.reject_reasons)


def _demonstrations(config: Config) -> None:
    """Look for the labelled triplets that are shown to the LLM, and for the encoder that finds them."""
    from multicsr.prompts import AUTO
    from multicsr.stages.generate.retrieval.labelled import SETTING
    from multicsr.stages.generate.run import require_questions
    from multicsr.stages.ingest.triplet_files import check_triplet_file

    shown = config.generate.demonstrations
    if shown is None:
        return
    chosen = shown.retriever(config.train)
    _require_encoder(chosen.model, chosen.setting, chosen.trust_remote_code)
    for file in shown.triplets:
        check_triplet_file(file, SETTING, with_negative=True)
    if config.generate.prompts != AUTO:
        require_questions(config)


def _calibration(sets: LabelledSets) -> None:
    """Read the pairs of the calibration; they must not be among the data of the evaluation."""
    if sets.config.score.calibrate is None:
        return
    pairs = read_pairs(sets.config.score.calibrate).digest()
    same: list[str] = []
    with suppress(MulticsrError):  # what is wrong with these data is found by the job that measures on them
        same += [
            f"evaluate.data has the same pairs, as {task.name}"
            for task in sets.tasks()
            if task.digest() == pairs
        ]
    if same:
        raise ConfigError(f"score.calibrate: {same[0]}; calibrate on pairs that are not measured")


def _encoder(config: Config) -> None:
    train, setting = config.train, "train.encoder"
    _require_encoder(train.encoder, setting, train.trust_remote_code)
    require_sizes(train.encoder, setting, layers=train.layers, max_length=train.max_length)


def _objective(config: Config) -> None:
    """Import the package of an objective that is not built in, and look at the settings that it needs."""
    from multicsr.stages.train.objectives.load import check_objective

    check_objective(config.train)


def _mask_model(config: Config) -> None:
    if (mask := config.train.mask) is not None:
        _require_encoder(mask.model, "train.mask.model", mask.trust_remote_code)


def _require_encoder(name: str, setting: str, is_trusted: bool) -> None:
    located = resolve_model(name, setting)
    _require_model(located, setting)
    require_trusted_modules(located, name, setting, is_trusted)


def _require_model(located: str, setting: str, revision: str | None = None) -> None:
    """Raise ConfigError if a model that is no file or directory is not in the hub or its cache either.

    On a cluster workers load the models, whose network and cache may be others.
    """
    if not os.path.exists(located) and not os.environ.get("RAY_ADDRESS"):
        require_on_hub(located, setting, revision)


def _recipe(config: Config) -> None:
    """Raise ConfigError if settings that depend on the encoder do not suit it."""
    from multicsr.stages.train.recipe import resolved

    resolved(config)


def _extra_triplets(config: Config) -> None:
    """Read the header and the first rows of every file of labelled triplets."""
    from multicsr.stages.ingest.triplet_files import check_triplet_file

    for file in config.train.extra_triplets:
        check_triplet_file(file, "train.extra_triplets")


def _leaks(sets: LabelledSets) -> None:
    """Read the labelled data if rows that they have too are to be dropped."""
    if sets.config.evaluate.drop_leaks:
        sets.dev()
        sets.tasks()


def _gpus_of_generate(config: Config) -> None:
    _require_gpus("generate.gpus_per_actor", config.generate.gpus_per_actor)


def _gpus_of_train(config: Config) -> None:
    _require_gpus("train.gpus_per_worker", config.train.gpus_per_worker)


def _require_gpus(setting: str, wanted: float) -> None:
    """Raise if an actor would wait without end for a GPU of this machine. A cluster may grow."""
    if wanted and not os.environ.get("RAY_ADDRESS") and wanted > (have := num_gpus()):
        remedy = f"set it to at most {have}" if have else "leave it out"
        raise ConfigError(
            f"{setting}: {wanted:g}, and this machine has {have} GPUs; {remedy}, or set RAY_ADDRESS "
            "to the address of a cluster that has them"
        )


def num_gpus() -> int:
    """Return the number of NVIDIA GPUs that Ray would find here, without a library of CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([each for each in visible.split(",") if each.strip() not in ("", "-1", "NoDevFiles")])
    return len(glob("/proc/driver/nvidia/gpus/*") or glob("/dev/nvidia[0-9]*"))


LOOKS: dict[str, tuple[Callable[[Config], None], ...]] = {
    "ingest": (_input, _languages),
    "generate": (_prompts, _llm, _pairs, _demonstrations, _scorer, _reject_reasons, _gpus_of_generate),
    "train": (_encoder, _recipe, _objective, _mask_model, _extra_triplets, _gpus_of_train),
}
"""Checks by stage."""
LOOKS_AT_SETS: dict[str, tuple[Callable[[LabelledSets], object], ...]] = {
    "generate": (_calibration, _leaks),
    "train": (LabelledSets.dev, LabelledSets.keep, _leaks),
    "evaluate": (LabelledSets.tasks,),
}
"""Checks of labelled sets by stage."""
