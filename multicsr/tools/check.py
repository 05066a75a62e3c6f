"""Check of this machine, and of a configuration before its run (`multicsr check`).

Each finding is one line, with the remedy if something is wrong.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.llm.vllm.free_memory import free_memory_gib
from multicsr.messages.extras import EXTRAS, install_extra, missing_packages
from multicsr.messages.terminal import echo, one_line
from multicsr.models.llm_weights import locate_llm

_MEMORY_NEEDED_GIB = 6
_DISK_NEEDED_GIB = 5
_CONNECT_S = 5.0
"""Timeout of the connection to the server of a bucket, in seconds."""
_BREAKS_CPU_TORCH = ("torchvision", "torchaudio", "torchcodec")


class Finding(NamedTuple):
    """Result of one check; `remedy` is empty if nothing is wrong.

    A problem whose remedy is the whole message has nothing in `what` and `seen`.
    """

    what: str
    seen: str
    remedy: str = ""


def examine(config: Config | None, mistakes: Sequence[str] = ()) -> None:
    """Print every finding.

    Args:
        config: settings of the run to check for; None checks the machine alone.
        mistakes: lines about settings that are wrong and therefore not in `config`.

    Raises:
        RunError: a check failed; the findings were printed before.
    """
    from rich.text import Text

    findings = [*_python(), *dict.fromkeys(_packages()), *_extras(), *_torch(), *_machine()]
    findings += [Finding("", "", line) for line in mistakes]
    if config is not None:
        findings += _problems(config)
        if config.train.rows == "curated":  # else no LLM is asked
            findings += [*_labels(config), *_endpoint(config)]
        findings += _store(config)
    for finding in findings:
        if finding.what:
            mark = ("wrong", "red") if finding.remedy else ("ok   ", "green")
            echo(Text.assemble(mark, f" {one_line(finding.what):<18} {one_line(finding.seen)}"))
            if finding.remedy:
                echo(f"      {one_line(finding.remedy)}")
        else:
            echo(Text.assemble(("wrong", "red"), f" {one_line(finding.remedy)}"))
    wrong = sum(bool(finding.remedy) for finding in findings)
    if wrong:
        raise RunError(f"check: {wrong} of {len(findings)} checks failed; they are marked `wrong` above")


def _python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    remedy = "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"
    yield Finding("python", version, remedy)


def _packages() -> Iterator[Finding]:
    """Yield a finding for every requirement that is missing or does not fit, and one for all that fit.

    A package of an extra may be absent, but a version that does not fit is wrong.
    """
    fitting = set()
    for line in importlib.metadata.requires("multicsr") or ():
        requirement = Requirement(line)
        if requirement.name == "multicsr" or not _applies(requirement, ("", *EXTRAS)):
            continue
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if _applies(requirement, ("",)):
                yield Finding(requirement.name, "missing", remedy)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fitting.add(requirement.name)
        else:
            yield Finding(requirement.name, version, remedy)
    yield Finding("packages", f"{len(fitting)} installed, in versions that fit")


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _extras() -> Iterator[Finding]:
    """Yield which extras of this project are installed, and how to get the others. None is always needed."""
    missing = [extra for extra in EXTRAS if missing_packages(extra)]
    yield Finding("extras", ", ".join(extra for extra in EXTRAS if extra not in missing) or "none installed")
    if missing:
        yield Finding("other extras", f"{', '.join(missing)}; {install_extra('NAME')} installs one")


def _torch() -> Iterator[Finding]:
    """Yield the findings on torch and its companions.

    CUDA builds of the companions break transformers beside a CPU build of torch.
    """
    if "torch" in missing_packages("train"):
        return
    import torch

    gpus = torch.cuda.device_count()
    yield Finding("torch build", f"{torch.__version__}, {gpus} GPU(s)")
    if "+cpu" not in torch.__version__:
        return
    for name in _BREAKS_CPU_TORCH:
        if importlib.util.find_spec(name):
            yield Finding(name, "CUDA build beside a CPU torch", f"pip uninstall {name}")


def _machine() -> Iterator[Finding]:
    yield Finding("cpu cores", str(os.cpu_count()))
    memory_gib = free_memory_gib()
    if memory_gib is None:
        memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    enough = memory_gib >= _MEMORY_NEEDED_GIB
    remedy = "the demo needs 6 GiB: end other programs, or raise the limit of the container"
    yield Finding("free memory", f"{memory_gib:.1f} GiB", "" if enough else remedy)
    disk_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    enough = disk_gib >= _DISK_NEEDED_GIB
    yield Finding("free disk", f"{disk_gib:.1f} GiB", "" if enough else "free some space: Ray spills to disk")


def _problems(config: Config) -> Iterator[Finding]:
    """Yield the problems that would end a run of all stages, or that there is none."""
    from multicsr.pipeline.full_run import stages_of
    from multicsr.pipeline.preflight import find_problems

    problems = find_problems(stages_of(config), config)
    for problem in problems:
        yield Finding("", "", str(problem))
    if not problems:
        yield Finding("run", "input, prompts, models, data of evaluation, GPUs and packages are there")


def _labels(config: Config) -> Iterator[Finding]:
    """Yield whether the tokenizers of the LLMs that write and score fit the prompts and the score labels."""
    yield from _labels_of_writer(config)
    if config.scoring_llm != config.llm:
        yield from _labels_of_writer(config.model_copy(update={"llm": config.scoring_llm}))


def _labels_of_writer(config: Config) -> Iterator[Finding]:
    """Yield whether the tokenizer of `llm.model` fits the prompts and can write the score labels.

    A model of the hub is not downloaded for it and a GGUF model not converted; they are checked when they are
    loaded.
    """
    if not config.llm.loads_weights:
        return
    try:
        if not Path(locate_llm(config.llm.model)).is_dir():
            return
    except ConfigError:
        return  # it is among the problems
    if not all(map(importlib.util.find_spec, ("torch", "transformers"))):
        return
    from multicsr.llm.load_tokenizer import load_tokenizer
    from multicsr.llm.prompt_choice import with_chosen_prompts
    from multicsr.llm.prompt_tokens import check_prompts

    try:
        config, choice = with_chosen_prompts(config)
        tokenizer, model = load_tokenizer(config.llm)
        check_prompts(config, tokenizer, has_encoder=bool(model.is_encoder_decoder))
    except ConfigError as error:
        yield Finding("score labels", config.generate.prompts, str(error))
        return
    if choice:
        yield Finding("generate.prompts", str(choice))
    if config.writer_reads_labels:
        yield Finding("score labels", f"{config.generate.prompts}, written by {config.llm.model}")


def _endpoint(config: Config) -> Iterator[Finding]:
    """Yield whether a chat endpoint answers at `llm.base_url`, or what is wrong with it."""
    if config.llm.base_url is None or missing_packages("openai"):
        return  # a missing package is among the problems
    from multicsr.llm.openai.offer import require_pairs
    from multicsr.llm.openai.probe import probe

    offer = ", offers contrast" if config.generate.omega > 0 else ""
    try:
        probe(config.llm)
        if offer:
            require_pairs(config.llm)
    except (ConfigError, RunError) as error:
        yield Finding("llm.base_url", one_line(config.llm.base_url), str(error))
        return
    yield Finding("llm.base_url", f"{one_line(config.llm.base_url)}{offer}")


def _store(config: Config) -> Iterator[Finding]:
    """Yield whether the store of the run can be written and honours conditional puts.

    A server that is named is asked for a connection first: the requests of a store are repeated for long.
    """
    endpoint = config.s3.endpoint
    if config.store.startswith("s3://") and endpoint and (problem := _silence(endpoint)):
        remedy = f"s3.endpoint: nothing answers at {one_line(endpoint)} ({problem}); correct it"
        yield Finding("store", config.store, remedy)
        return
    from multicsr.storage.lease import check_conditions
    from multicsr.storage.store import Store

    try:
        store = Store.of(config)
        check_conditions(store)
    except (ConfigError, RunError) as error:
        yield Finding("store", config.store, str(error))
        return
    yield Finding("store", store.uri())


def _silence(url: str) -> str:
    """Return why no server takes a connection at a URL; empty if one does."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), _CONNECT_S).close()
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""
