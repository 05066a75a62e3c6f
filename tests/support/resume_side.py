"""One of several gloo processes: some steps from state to state, by several engines. Run by test_resume.py.

python -m tests.support.resume_side RANK WORKERS FOLDER ENGINE:FROM:TO...
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from multicsr.config import TrainConfig
from multicsr.models.encoder import Encoder, load_encoder
from multicsr.stages.train import distributed
from multicsr.stages.train.engines.base import TrainState
from multicsr.stages.train.engines.load import load_engine
from tests.support.gloo import meet

ENGINES = {
    "torch": {},
    **{f"ZeRO {zero}": {"deepspeed": {"zero": zero}} for zero in range(4)},
    "ZeRO 1 in bfloat16": {"deepspeed": {"zero": 1}, "dtype": "bfloat16"},
}
SENTENCES = ["ba de fi", "mi no pu ra so te", "fa", "ki lo mu", "re so", "na po pu ra"]
STEPS = 3


def steps(engine_name: str, encoder_name: str, state: TrainState | None) -> TrainState:
    """Three steps on the same sentences; every worker has some of them."""
    config = TrainConfig.model_validate({"weight_decay": 0.1, **ENGINES[engine_name], "global_batch": 12})
    torch.manual_seed(0)
    encoder = Encoder(load_encoder(encoder_name, pooling="cls"), mlp_head=True).eval()
    engine = load_engine(encoder, config, state)
    own = SENTENCES[distributed.own_rows(len(SENTENCES))]
    for _ in range(STEPS):
        engine.backward((engine.embed(encoder.tokenize(own), 0) ** 2).sum())
        engine.step(1e-3)
    return engine.state()


def main() -> None:
    rank, workers, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    name = (folder / "encoder.txt").read_text()
    meet(folder / f"meet-{sys.argv[4].rpartition(':')[2]}", rank, workers)
    for leg in sys.argv[4:]:
        engine_name, source, target = leg.split(":")
        state = None if source == "start" else TrainState(**torch.load(folder / f"{source}.pt"))
        result = steps(engine_name, name, state)
        if rank == 0:
            torch.save(vars(result), folder / f"{target}.pt")
        dist.barrier()


if __name__ == "__main__":
    main()
