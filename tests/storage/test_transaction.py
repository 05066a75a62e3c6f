"""The version in the making: what it refuses to publish, its figures, and the link to the encoder."""

import logging
from pathlib import Path

import pytest

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.observability.progress import SilentProgress
from multicsr.storage.lease import held
from multicsr.storage.store import Store
from multicsr.storage.transaction import Transaction, open_transaction, roll_back
from multicsr.storage.versions import find, latest
from tests.support.versions import manifest


def add(transaction, artifact, key, **facts):
    from multicsr.storage.manifest import write_manifest

    made = manifest(artifact, fingerprint=key, **facts)
    write_manifest(transaction.store, artifact, made)
    transaction.add(artifact, made)


@pytest.fixture
def transaction(place):
    """A draft on two versions: the second one has other triplets and another model."""
    with held(place, "test", 1.0, SilentProgress()) as lease:
        transaction = Transaction(place, lease, "t", "run")
        for number in (1, 2):
            add(transaction, "curated", f"c{number}")
            add(transaction, "model", f"m{number}")
            transaction.publish()
        yield transaction


def test_version_that_was_rolled_back_from_is_not_published_again(transaction):
    transaction.restore(find(transaction.store, 1))
    add(transaction, "curated", "c2")
    add(transaction, "model", "m2")
    with pytest.raises(
        RunError, match=r"version 2 has the same .* was rolled back from; nothing was published"
    ):
        transaction.publish()
    assert latest(transaction.store).number == 3
    add(transaction, "curated", "c3")
    assert transaction.publish().number == 4, "its input changed"


def test_version_that_was_rolled_back_from_can_be_restored_by_its_number(transaction):
    transaction.restore(find(transaction.store, 1))
    assert transaction.restore(find(transaction.store, 2)).restores == 2
    add(transaction, "curated", "c3")
    transaction.publish()
    add(transaction, "curated", "c2")
    assert transaction.publish().number == 6, "version 2 is not rejected any more"


def test_version_keeps_the_figures_of_its_model(transaction):
    counters = {"sts": 70.0, "broken": float("inf")}
    add(transaction, "evaluation", "e", counters=counters, settings={"tasks": {"sts": "digest"}})
    published = transaction.publish()
    assert (published.metrics, published.tasks) == ({"sts": 70.0}, {"sts": "digest"})


def config_of(folder: Path) -> Config:
    return Config.model_validate({"name": "t", "store": str(folder), "input": {"paths": ["x"]}, "lease_s": 1})


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_encoder_that_is_no_link_is_one_line_before_the_work(tmp_path, kind):
    encoder = tmp_path / "store" / "encoder"
    encoder.parent.mkdir()
    if kind == "directory":
        encoder.mkdir()
    else:
        encoder.write_text("foreign")
    with pytest.raises(RunError, match=r"encoder is not the link to the current encoder.*delete it"):
        open_transaction(config_of(tmp_path / "store"), "run", SilentProgress()).__enter__()
    assert encoder.exists(), "what is foreign is not deleted"


def test_link_that_leads_nowhere_is_replaced(tmp_path):
    root = tmp_path / "store"
    root.mkdir()
    (root / "encoder").symlink_to("gone")
    with open_transaction(config_of(root), "run", SilentProgress()) as transaction:
        add(transaction, "model", "m1")
        transaction.publish()
    assert (root / "encoder").readlink() == Path("model/m1/encoder")


def test_link_is_replaced_without_a_moment_in_which_it_is_gone(tmp_path, monkeypatch):
    root, targets = tmp_path / "store", []
    symlink_to = Path.symlink_to

    def note(self, target):
        targets.append((root / "encoder").readlink() if (root / "encoder").is_symlink() else None)
        symlink_to(self, target)

    monkeypatch.setattr(Path, "symlink_to", note)
    with open_transaction(config_of(root), "run", SilentProgress()) as transaction:
        for key in ("m1", "m2"):
            add(transaction, "model", key)
            transaction.publish()
    assert targets == [None, Path("model/m1/encoder")]
    assert (root / "encoder").readlink() == Path("model/m2/encoder")


def test_file_system_without_links_costs_the_link_alone(tmp_path, monkeypatch, caplog):
    def reject(self, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", reject)
    with (
        caplog.at_level(logging.WARNING),
        open_transaction(config_of(tmp_path / "store"), "run", SilentProgress()) as transaction,
    ):
        add(transaction, "model", "m1")
        assert transaction.publish().number == 1
    assert "cannot make the link" in caplog.text


def test_rollback_without_a_number_goes_to_no_version_that_was_rejected(tmp_path):
    config = config_of(tmp_path)

    def publish(number: int) -> None:
        store = Store.of(config)
        with held(store, "test", 1.0, SilentProgress()) as lease:
            made = Transaction(store, lease, "t", "run")
            add(made, "curated", f"c{number}")
            made.publish()

    for number in (1, 2, 3):
        publish(number)
    assert roll_back(config, None, SilentProgress()).restores == 2
    publish(5)
    assert roll_back(config, None, SilentProgress()).restores == 4
    assert roll_back(config, None, SilentProgress()).restores == 1, "3 was rejected; 2 is what is current"
    with pytest.raises(RunError, match=r"^no version before the current one, 7, is left to go back to"):
        roll_back(config, None, SilentProgress())


def test_rollback_to_a_model_with_a_flipped_bit_is_rejected(tmp_path):
    """The size is right; nothing else would read the model before users do."""
    config = config_of(tmp_path)
    with open_transaction(config, "run", SilentProgress()) as transaction:
        entry = transaction.store.write_bytes("model/m1/encoder/weights", b"weights")
        for number, files in ((1, [entry]), (2, [])):
            add(transaction, "model", f"m{number}", files=files)
            transaction.publish()
    (tmp_path / entry.path).write_bytes(b"weighta")
    with pytest.raises(
        RunError, match=r"version 1 are damaged in .*: model/m1/encoder/weights; roll back to"
    ):
        roll_back(config, 1, SilentProgress())
    assert latest(Store.of(config)).number == 2
    (tmp_path / entry.path).write_bytes(b"weights")
    assert roll_back(config, 1, SilentProgress()).restores == 1
