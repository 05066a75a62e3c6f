"""Publication of an encoder and of its triplets on the Hugging Face hub (`multicsr push`)."""

import os
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from multicsr.errors import ConfigError, RunError
from multicsr.messages.error_chain import error_chain, first_sentence
from multicsr.messages.extras import require_extra
from multicsr.observability.progress import Progress
from multicsr.periodic import backoff_s
from multicsr.storage.manifest import iter_tables
from multicsr.storage.versions import Snapshot
from multicsr.tools.cards import dataset_card
from multicsr.tools.encoder_source import CARD, EncoderSource

T = TypeVar("T")
Kind = Literal["model", "dataset"]
_TRIES = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
_BUSY = (408, 429)
"""HTTP status codes below 500 after which the same request may succeed."""
_COLUMNS = {
    "text": "anchor",
    "entailment": "positive",
    "contradiction": "negative",
    "a": "positive_score",
    "b": "negative_score",
    "language": "language",
    "llm": "llm",
    "row_id": "row_id",
}
"""Columns of the artifact `curated` that are published -> their names there."""


def push_encoder(
    source: EncoderSource, repo: str, progress: Progress, *, private: bool = False, dataset: str | None = None
) -> list[str]:
    """Upload an encoder with its card, and the curated triplets of its version if `dataset` is given.

    All curated triplets are published: held-out ones and those that were left out of the training, too.

    Repositories are made where they are missing. Files of an existing repository are replaced by those of the
    same names; other files stay, apart from older triplets.

    Args:
        source: the encoder.
        repo: Hugging Face id of the model's repository.
        progress: receives a stage for each repository.
        private: make new repositories private.
        dataset: Hugging Face id of the repository of the triplets; None: they are not published.

    Returns:
        The addresses of the repositories.

    Raises:
        ConfigError: there is no token, a name is not valid, the source has no triplets or no files, or
            `private` is given for a public repository that exists.
        RunError: the hub rejects the token or the card, or does not answer.
    """
    require_extra("hub", "push")
    hub = _Hub(private=private)
    if dataset is not None and source.snapshot is None:
        raise ConfigError("--dataset needs the YAML file of a run or a store; a model has no triplets")
    repositories: list[tuple[str, Kind]] = [(repo, "model")]
    if dataset is not None:
        repositories.append((dataset, "dataset"))
    with tempfile.TemporaryDirectory(prefix="multicsr-") as folder:
        files = Path(folder)
        source.copy_to(files / "model", (dataset,) if dataset else ())
        if dataset is not None and source.snapshot is not None:
            _write_triplets(source.snapshot, files / "dataset" / "data")
            card = dataset_card(source.snapshot, source.card, dataset)
            (files / "dataset" / CARD).write_text(card, encoding="utf-8")
        # Both exist before either is filled: a right that is missing is found before an upload.
        for name, kind in repositories:
            hub.create(name, kind)
        return [_upload(hub, name, kind, files / kind, progress) for name, kind in repositories]


def _upload(hub: "_Hub", name: str, kind: Kind, folder: Path, progress: Progress) -> str:
    num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    progress.start("push", None)
    progress.announce(f"{num_bytes / 1e6:,.1f} MB to {name}")
    address = hub.upload(name, kind, folder)
    progress.finish(address)
    return address


def _write_triplets(snapshot: Snapshot, folder: Path) -> None:
    """Write the curated triplets as Parquet files; names of source files are not published."""
    folder.mkdir(parents=True)
    curated = snapshot.manifest("curated")
    tables = iter_tables(snapshot.store, curated, [*_COLUMNS])
    for number, table in enumerate(tables):
        renamed = pa.table({name: table[column] for column, name in _COLUMNS.items()})
        pq.write_table(renamed, folder / f"train-{number:05d}-of-{len(curated.files):05d}.parquet")


class _Hub:
    """The hub with the token of this user.

    Raises:
        ConfigError: there is no token.
    """

    def __init__(self, *, private: bool) -> None:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        if not get_token():
            raise ConfigError(
                "push needs a token of the Hugging Face hub: set HF_TOKEN, or run `hf auth login`"
            )
        self._api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        self._private = private

    def create(self, name: str, kind: Kind) -> None:
        """Make a repository if it does not exist.

        Raises:
            ConfigError: the name is not valid, or the repository is public and shall be private.
            RunError: the hub rejects the request or does not answer.
        """
        from huggingface_hub.errors import HFValidationError

        try:
            _asked(
                name,
                lambda: self._api.create_repo(
                    name, repo_type=kind, private=self._private or None, exist_ok=True
                ),
            )
        except HFValidationError as error:
            raise ConfigError(f"{name} is no name of a repository; write organization/name") from error
        if self._private and not _asked(name, lambda: self._api.repo_info(name, repo_type=kind)).private:
            raise ConfigError(
                f"--private: {name} exists and is public; make it private on the hub, or take another name"
            )

    def upload(self, name: str, kind: Kind, folder: Path) -> str:
        """Upload a folder in one commit, and return the address of the repository.

        Raises:
            RunError: the hub rejects the request or the card, or does not answer.
        """
        _asked(
            name,
            lambda: self._api.upload_folder(
                repo_id=name,
                repo_type=kind,
                folder_path=folder,
                commit_message="Upload by multicsr push",
                delete_patterns=["data/*.parquet"] if kind == "dataset" else None,
            ),
        )
        return f"{self._api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"


def _asked(name: str, call: Callable[[], T]) -> T:
    """Return the result of a request to the hub; repeat it while the hub is busy or unreachable.

    Raises:
        RunError: the hub rejects it, or does not answer after `_TRIES` tries.
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # Another HTTP library in other releases of huggingface_hub; its error is the base class.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    for number in count(1):
        try:
            return call()
        except OfflineModeIsEnabled as error:
            raise ConfigError("push needs the network: unset HF_HUB_OFFLINE") from error
        except (http_error, RuntimeError) as error:  # uploads of large files wrap theirs in RuntimeError
            known = [each for each in error_chain(error) if isinstance(each, http_error)]
            if not known:
                raise
            status = getattr(getattr(known[-1], "response", None), "status_code", None)
            if number < _TRIES and (status is None or status in _BUSY or status >= 500):
                time.sleep(backoff_s(number - 1, _FIRST_PAUSE_S, _LONGEST_PAUSE_S))
                continue
            raise RunError(_describe(name, status, known[-1], number)) from error
        except ValueError as error:
            if "metadata" not in str(error):
                raise
            raise RunError(f"{name}: the hub rejects the card: {' '.join(str(error).split())}") from error
    raise AssertionError("every try returns or raises")


def _describe(name: str, status: int | None, error: BaseException, tries: int) -> str:
    """Return one line on a request that failed."""
    if status == 401:
        return f"{name}: the hub rejects the token; set HF_TOKEN to a valid one, or run `hf auth login`"
    if status in (403, 404):
        return f"{name}: the token has no right to write there; take a token of type `write` of a member"
    if status is None:
        return f"{name}: the hub cannot be reached after {tries} tries: {first_sentence(error)}"
    return f"{name}: the hub answers with HTTP status {status} after {tries} tries: {first_sentence(error)}"
