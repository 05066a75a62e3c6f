"""Is this machine fit to run? Each finding is one line, with the remedy where something is wrong."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from rich.console import Console

from multicsr.config import Config
from multicsr.errors import ConfigError, RunError
from multicsr.models import MINILM, TINYLM, resolve_model

_MEMORY_NEEDED_GIB = 6
_DISK_NEEDED_GIB = 5
_BREAKS_CPU_TORCH = ("torchvision", "torchaudio", "torchcodec")


class Finding(NamedTuple):
    """One thing looked at; `remedy` is empty when it is as it should be."""

    what: str
    seen: str
    remedy: str = ""


def examine(config: Config | None, console: Console) -> None:
    """Print every finding.

    Raises:
        RunError: something is wrong; what, was printed.
    """
    findings = [*_python(), *_packages(), *_torch(), *_machine()]
    findings += [*_models(config), *_vllm(config), *_store(config)]
    for finding in findings:
        mark = "[red]wrong[/]" if finding.remedy else "[green]ok[/]   "
        console.print(f"{mark} {finding.what:<28} {finding.seen}")
        if finding.remedy:
            console.print(f"      {finding.remedy}")
    wrong = sum(bool(finding.remedy) for finding in findings)
    if wrong:
        raise RunError(f"doctor: {wrong} of {len(findings)} checks failed; the remedies are above")


def _python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    remedy = "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"
    yield Finding("python", version, remedy)


def _packages() -> Iterator[Finding]:
    """Every requirement of this project against what is installed."""
    for line in importlib.metadata.requires("multicsr") or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(requirement.name, "missing", f"pip install '{requirement}'")
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        yield Finding(requirement.name, version, "" if fits else f"pip install '{requirement}'")


def _torch() -> Iterator[Finding]:
    """CUDA builds of torch's companions break transformers beside a CPU torch."""
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
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    enough = memory_gib >= _MEMORY_NEEDED_GIB
    yield Finding("memory", f"{memory_gib:.1f} GiB", "" if enough else "the demo needs 6 GiB")
    disk_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    enough = disk_gib >= _DISK_NEEDED_GIB
    yield Finding("free disk", f"{disk_gib:.1f} GiB", "" if enough else "free some space: Ray spills to disk")


def _models(config: Config | None) -> Iterator[Finding]:
    """Can the models of the run, or else those of the demo, be found?"""
    wanted = {"llm.model": TINYLM, "train.mask.model": MINILM}
    if config is not None:
        wanted = {"llm.model": config.llm.model, "train.encoder": config.train.encoder}
        if config.train.mask is not None:
            wanted["train.mask.model"] = config.train.mask.model
    for setting, name in wanted.items():
        try:
            path = resolve_model(name, setting)
        except ConfigError as error:
            yield Finding(setting, name, str(error))
            continue
        where = "" if Path(path).is_dir() else " (from the Hugging Face hub, when needed)"
        yield Finding(setting, name + where)


def _store(config: Config | None) -> Iterator[Finding]:
    """Can the store of the run be written, and are conditional puts honoured?"""
    if config is None:
        return
    from multicsr.lease import check_conditions
    from multicsr.store import Store

    store = Store.of(config)
    try:
        check_conditions(store)
    except RunError as error:
        yield Finding("store", store.uri(), str(error))
        return
    yield Finding("store", store.uri())


def _vllm(config: Config | None) -> Iterator[Finding]:
    """Is a tested vLLM there, where the run asks for it?"""
    if config is None or config.llm.engine != "vllm":
        return
    from multicsr.lockstep.launch import TESTED, check_version

    try:
        check_version()
    except ConfigError as error:
        yield Finding("llm.engine", "vllm", str(error))
        return
    yield Finding("llm.engine", f"vllm {' or '.join(TESTED)}")
