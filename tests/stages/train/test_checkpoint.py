import errno
import io
import os
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from multicsr.errors import DamagedFileError, MulticsrError, RunError, SchemaError
from multicsr.hashing import checksum
from multicsr.stages.train.checkpoint import (
    Best,
    Checkpoint,
    LogMark,
    cannot_write,
)
from multicsr.stages.train.checkpoint_folder import delete_checkpoints, newest_checkpoint, save_checkpoint
from multicsr.stages.train.engines.base import TrainState
from multicsr.stages.train.mask_model.statistics import MaskStatistics


def tensors(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {"one": torch.randn(20, 30, generator=draw), "count": torch.tensor(seed), "empty": torch.zeros(0)}


CHECKPOINT = Checkpoint(
    run="this",
    step=7,
    state=TrainState(tensors(0), tensors(1), tensors(2), steps=7, loss_scale={"scale": 2.0**16}),
    best=Best(step=5, dev=61.25, model=tensors(3)),
    not_better=2,
    mask_statistics=MaskStatistics(np.arange(80), [(2**64 - 1, 3, 5, 0, 0.97), (2**63, 5, 3, 1, 0.91)]),
    log=LogMark(7, checksum(b"step 7\n")),
)
NAME = "checkpoint-00000007.pt"


@pytest.fixture
def path(tmp_path):
    assert save_checkpoint(CHECKPOINT, tmp_path) == [NAME]
    return tmp_path / NAME


def flat(checkpoint: Checkpoint) -> dict[str, object]:
    """Everything in a checkpoint, in types that know whether they are equal."""
    plain = vars(checkpoint) | {f"state.{name}": value for name, value in vars(checkpoint.state).items()}
    plain |= {
        "best": None,
        **({f"best.{n}": v for n, v in vars(checkpoint.best).items()} if checkpoint.best else {}),
    }
    plain |= {
        "mask_statistics": (checkpoint.mask_statistics.counts.tolist(), checkpoint.mask_statistics.cells)
    }
    plain |= {"log": tuple(checkpoint.log)}
    del plain["state"]
    return {name: as_lists(value) for name, value in plain.items()}


def as_lists(value: object) -> object:
    if isinstance(value, dict):
        return {name: as_lists(inner) for name, inner in value.items()}
    return (value.dtype, value.tolist()) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize(
    "checkpoint",
    [
        CHECKPOINT,
        replace(CHECKPOINT, best=None, mask_statistics=MaskStatistics()),
        replace(CHECKPOINT, state=TrainState(tensors(0), {}, {}, steps=0, loss_scale={})),
    ],
)
def test_what_is_saved_is_what_is_loaded(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path)
    assert flat(Checkpoint.load(tmp_path / NAME, "this")) == flat(checkpoint)
    assert os.listdir(tmp_path) == [NAME]


def test_another_runs_is_rejected_and_stays(path):
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"is of a run with other settings, models or triplets; delete it"):
        Checkpoint.load(path, "another")
    assert path.read_bytes() == before


def assert_rejected(path) -> None:
    with pytest.raises(DamagedFileError, match=r"is damaged: [^\n]+$") as caught:
        Checkpoint.load(path, "this")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match=rf"^checkpoint s3://bucket/training/7/{NAME} is damaged"):
        Checkpoint.load(path, "this", "s3://bucket/training/7")


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.7, 0.99, 0.9999])
def test_a_file_that_was_cut_off_is_rejected(share, path):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert_rejected(path)


@pytest.mark.parametrize("place", ["name", "run", "weight"])
def test_a_file_with_another_byte_is_rejected(place, path):
    """Even where it would load: a checksum tells."""
    content = bytearray(path.read_bytes())
    weight = CHECKPOINT.state.encoder["one"].numpy().tobytes()
    position = content.index({"name": b"exp_avg_sq", "run": b"this", "weight": weight}[place])
    content[position] ^= 1
    path.write_bytes(content)
    assert_rejected(path)


def test_other_files_are_rejected(path):
    for content in (b"hello\n", b"\x80\x02", bytes(1000)):
        path.write_bytes(content)
        assert_rejected(path)


class Attack:
    def __init__(self, folder) -> None:
        self._folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self._folder),)


def test_loading_runs_no_code(path, tmp_path):
    file = io.BytesIO()
    torch.save({"format": 2, "run": "this", "step": Attack(tmp_path / "attacked")}, file)
    path.write_bytes(file.getvalue())
    assert_rejected(path)
    assert not (tmp_path / "attacked").exists()


def test_what_cannot_be_written_is_one_line_and_leaves_the_old_one(path, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("the disk fails")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        RunError, match=rf"^store: cannot write {tmp_path}/checkpoint-00000008\.pt: the disk fails$"
    ):
        save_checkpoint(replace(CHECKPOINT, step=8), tmp_path)
    assert flat(Checkpoint.load(path, "this")) == flat(CHECKPOINT)
    assert os.listdir(tmp_path) == [NAME]


def test_a_full_disk_is_called_so(tmp_path):
    """torch itself says "unexpected pos"."""
    (tmp_path / f"{NAME.removesuffix('.pt')}.{os.getpid()}.tmp").symlink_to("/dev/full")
    large = replace(CHECKPOINT, best=Best(5, 61.25, {"one": torch.zeros(1_000_000)}))
    with pytest.raises(RunError, match=rf"^store: no space left on {tmp_path} for {NAME}; free some and run"):
        save_checkpoint(large, tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_error_of_a_full_disk_is_found_behind_others(tmp_path):
    for hidden in (
        OSError(errno.ENOSPC, "full"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ):
        try:
            try:
                raise hidden
            finally:
                raise RuntimeError("unexpected pos 768 vs 662")
        except RuntimeError as error:
            message = str(cannot_write(tmp_path / "model", error))
        assert message.startswith(f"store: no space left on {tmp_path} for model; free some")


# The newest that is whole


@pytest.fixture
def log(tmp_path):
    (tmp_path / "train.jsonl").write_text("step 7\nstep 8\nstep 9\n")
    return tmp_path / "train.jsonl"


def save_three(folder, log) -> list[str]:
    """After steps 7, 8 and 9, each with the log until then."""
    for step in (7, 8, 9):
        mark = LogMark(7 * (step - 6), checksum(log.read_bytes()[: 7 * (step - 6)]))
        names = save_checkpoint(replace(CHECKPOINT, step=step, log=mark), folder)
    return names


def test_the_two_newest_are_kept(tmp_path, log):
    assert save_three(tmp_path, log) == ["checkpoint-00000009.pt", "checkpoint-00000008.pt"]
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-00000008.pt", "checkpoint-00000009.pt", "train.jsonl"]
    assert newest_checkpoint(tmp_path, "this", log).step == 9
    delete_checkpoints(tmp_path)
    assert os.listdir(tmp_path) == ["train.jsonl"]
    assert newest_checkpoint(tmp_path, "this", log) is None


@pytest.mark.parametrize("damaged", ["newest", "both", "end of log", "begin of log"])
def test_what_is_damaged_is_deleted_and_an_older_one_taken(tmp_path, log, caplog, damaged):
    newest, before = save_three(tmp_path, log)
    if damaged == "end of log":
        log.write_text(log.read_text().replace("step 9", "step 8"))
    elif damaged == "begin of log":
        log.write_text(log.read_text().replace("step 7", "step 8"))
    for name in {"newest": [newest], "both": [newest, before]}.get(damaged, []):
        content = bytearray((tmp_path / name).read_bytes())
        content[content.index(CHECKPOINT.state.encoder["one"].numpy().tobytes())] ^= 1
        (tmp_path / name).write_bytes(content)
    found = newest_checkpoint(tmp_path, "this", log)
    warnings = [record.getMessage() for record in caplog.records]
    assert "is damaged" in warnings[0]
    assert not any("\n" in warning for warning in warnings)
    if damaged in ("newest", "end of log"):
        assert found.step == 8
        assert len(warnings) == 1
        assert warnings[0].endswith("; trying the checkpoint before it")
        assert not (tmp_path / newest).exists()
    else:
        assert found is None
        assert warnings[1].endswith("; the training starts anew")
        assert not list(tmp_path.glob("*.pt"))


def rewritten(path, **changes) -> None:
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


@pytest.mark.parametrize(
    ("format", "complaint"),
    [
        (99, r"was written by a newer version of multicsr \(format 99\); upgrade$"),
        (1, r"was written by an older version of multicsr \(format 1\); go on with that, or delete"),
        ("?", r"was written by an older version of multicsr \(format \?\)"),
    ],
)
def test_another_format_is_one_line_and_stays(path, format, complaint):
    rewritten(path, format=format)
    with pytest.raises(SchemaError, match=complaint):
        newest_checkpoint(path.parent, "this", path.parent / "train.jsonl")
    assert path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"state": {}},
        {"state": {"encoder": [1], "exp_avg": {}, "exp_avg_sq": {}, "steps": 1, "loss_scale": {}}},
        {"step": "7"},
        {"best": {"step": 5}},
        {"best": 7},
        {"counts": "many"},
        {"cells": 3},
        {"log": {"size": "7", "checksum": ""}},
        {"not_better": None},
    ],
)
def test_other_fields_are_damage(path, changes):
    rewritten(path, **changes)
    assert_rejected(path)


def test_a_random_flipped_bit_is_rejected_or_harmless(path):
    """Bytes that only pad the file decide nothing."""
    whole, draw, messages = path.read_bytes(), random.Random(0), []
    for _ in range(100):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            loaded = Checkpoint.load(path, "this")
        except MulticsrError as error:
            messages.append(str(error))
        else:
            assert flat(loaded) == flat(CHECKPOINT)
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)
