"""A state goes on under another engine and on another number of workers as if nothing had happened."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT
from tests.support.resume_side import STEPS

pytestmark = pytest.mark.cluster


ENGINES_ON_TWO = ["torch", "ZeRO 0", "ZeRO 1", "ZeRO 2", "ZeRO 3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_bert) -> Path:
    """States after three and six steps, by way of every engine; two workers do their part, one the rest."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "encoder.txt").write_text(str(tiny_bert))
    half_precision = "ZeRO 1 in bfloat16"
    run(
        folder,
        1,
        "torch:start:half",
        "torch:half:whole",
        f"{half_precision}:start:bf16",
        f"{half_precision}:bf16:bf16 once",
        f"{half_precision}:bf16:bf16 again",
    )
    run(folder, 2, *(f"{e}:half:{e} on" for e in ENGINES_ON_TWO), *(f"{e}:start:{e}" for e in ENGINES_ON_TWO))
    run(folder, 1, *(f"torch:{e}:{e} back" for e in ENGINES_ON_TWO))
    return folder


def run(folder: Path, workers: int, *legs: str) -> None:
    command = [sys.executable, "-m", "tests.support.resume_side"]
    processes = [
        subprocess.Popen([*command, str(rank), str(workers), str(folder), *legs], cwd=ROOT)
        for rank in range(workers)
    ]
    assert [process.wait(timeout=200) for process in processes] == [0] * workers


def assert_close(state: dict, other: dict, rtol: float = 1e-5) -> None:
    assert state["steps"] == other["steps"]
    for part in ("encoder", "exp_avg", "exp_avg_sq"):
        assert state[part].keys() == other[part].keys(), part
        for name, tensor in state[part].items():
            if rtol and name.endswith("key.bias"):
                continue  # adds the same to all scores, so its gradient is nothing but rounding
            scale = other[part][name].float().abs().max().item()
            torch.testing.assert_close(
                tensor.float(),
                other[part][name].float(),
                rtol=0,
                atol=rtol * scale + 1e-12,
                msg=lambda text, where=f"{part} {name}": f"{where}: {text}",
            )


@pytest.mark.parametrize("engine", ENGINES_ON_TWO)
def test_any_engine_on_two_workers_goes_on_from_one_and_back(folder, engine):
    whole = torch.load(folder / "whole.pt")
    assert whole["steps"] == 2 * STEPS
    assert_close(torch.load(folder / f"{engine} on.pt"), whole)
    assert_close(torch.load(folder / f"{engine} back.pt"), whole)


def test_bfloat16_keeps_parameters_in_full_precision(folder):
    """And going on from its state is the same to the bit, as often as it is done."""
    first = torch.load(folder / "bf16.pt")
    trained = {name: tensor for name, tensor in first["encoder"].items() if name in first["exp_avg"]}
    assert any(not torch.equal(tensor.bfloat16().float(), tensor) for tensor in trained.values())
    once, again = (torch.load(folder / f"bf16 {time}.pt") for time in ("once", "again"))
    assert_close(once, again, rtol=0)
