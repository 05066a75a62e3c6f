import io
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from multicsr.errors import RunError
from multicsr.train.checkpoint import Best, Checkpoint
from multicsr.train.engine import TrainState
from multicsr.train.survey import Survey


def tensors(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {"one": torch.randn(20, 30, generator=draw), "count": torch.tensor(seed), "empty": torch.zeros(0)}


CHECKPOINT = Checkpoint(
    run="this",
    step=7,
    state=TrainState(tensors(0), tensors(1), tensors(2), steps=7, loss_scale={"scale": 2.0**16}),
    best=Best(step=5, dev=61.25, model=tensors(3)),
    not_better=2,
    survey=Survey(np.arange(80), [(2**64 - 1, 3, 5, 0, 0.97), (2**63, 5, 3, 1, 0.91)]),
)


@pytest.fixture
def path(tmp_path):
    CHECKPOINT.save(tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def flat(checkpoint: Checkpoint) -> dict[str, object]:
    """Everything in a checkpoint, in types that know whether they are equal."""
    plain = vars(checkpoint) | {f"state.{name}": value for name, value in vars(checkpoint.state).items()}
    plain |= {
        "best": None,
        **({f"best.{n}": v for n, v in vars(checkpoint.best).items()} if checkpoint.best else {}),
    }
    plain |= {"survey": (checkpoint.survey.counts.tolist(), checkpoint.survey.cells)}
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
        replace(CHECKPOINT, best=None, survey=Survey()),
        replace(CHECKPOINT, state=TrainState(tensors(0), {}, {}, steps=0, loss_scale={})),
    ],
)
def test_what_is_saved_is_what_is_loaded(checkpoint, tmp_path):
    checkpoint.save(tmp_path / "checkpoint.pt")
    assert flat(Checkpoint.load(tmp_path / "checkpoint.pt", "this")) == flat(checkpoint)
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_none_and_another_runs(path, tmp_path):
    assert Checkpoint.load(tmp_path / "none.pt", "this") is None
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"is of a run with other settings or triplets; delete it"):
        Checkpoint.load(path, "another")
    assert path.read_bytes() == before


def assert_refused(path) -> None:
    with pytest.raises(RunError, match=r"is damaged: [^\n]*; delete it to start anew$") as caught:
        Checkpoint.load(path, "this")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match=r"^checkpoint s3://bucket/training/7/checkpoint.pt is damaged"):
        Checkpoint.load(path, "this", "s3://bucket/training/7")


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.7, 0.99, 0.9999])
def test_a_file_that_was_cut_off_is_refused(share, path):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert_refused(path)


@pytest.mark.parametrize("place", ["name", "run", "weight"])
def test_a_file_with_another_byte_is_refused(place, path):
    """Even where it would load: a checksum tells."""
    content = bytearray(path.read_bytes())
    weight = CHECKPOINT.state.encoder["one"].numpy().tobytes()
    position = content.index({"name": b"exp_avg_sq", "run": b"this", "weight": weight}[place])
    content[position] ^= 1
    path.write_bytes(content)
    assert_refused(path)


def test_other_files_are_refused(path):
    for content in (b"hello\n", b"\x80\x02", bytes(1000)):
        path.write_bytes(content)
        assert_refused(path)


class Attack:
    def __init__(self, folder) -> None:
        self._folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self._folder),)


def test_loading_runs_no_code(path, tmp_path):
    file = io.BytesIO()
    torch.save({"run": "this", "step": Attack(tmp_path / "attacked")}, file)
    path.write_bytes(file.getvalue())
    assert_refused(path)
    assert not (tmp_path / "attacked").exists()


def test_what_cannot_be_written_is_one_line_and_leaves_the_old_one(path, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"^store: cannot write checkpoint [^\n]*no space left$"):
        replace(CHECKPOINT, step=8).save(path)
    assert flat(Checkpoint.load(path, "this")) == flat(CHECKPOINT)
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
