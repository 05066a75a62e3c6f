"""One of several gloo processes: the gradient of one global batch, by every engine. Run by test_workers.py.

python -m tests.train.worker_side RANK WORKERS FOLDER BREAK
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch

from multicsr.config import TrainConfig
from multicsr.train import engine, gradient, mask, world
from multicsr.train.encoder import Encoder, load_encoder
from multicsr.train.feed import feed
from multicsr.train.index import digest_rows, join_index
from multicsr.train.mask_model import InsideEmbedder, MaskModel
from multicsr.train.mask_vectors import MaskVectors
from multicsr.train.plan import make_plan
from multicsr.train.source import from_table
from tests.train.gloo import meet

CASES = {
    "float64": ({}, torch.float64),
    "float64, micro-batches": ({"micro_batch": 4}, torch.float64),
    "float64, GradCache": ({"micro_batch": 4, "grad_cache": True}, torch.float64),
    "float32": ({}, torch.float32),
    "float32, GradCache": ({"micro_batch": 4, "grad_cache": True}, torch.float32),
    **{f"ZeRO {zero}": ({"deepspeed": {"zero": zero}}, torch.float32) for zero in range(4)},
    **{
        f"ZeRO {zero}, GradCache": (
            {"deepspeed": {"zero": zero}, "micro_batch": 4, "grad_cache": True},
            torch.float32,
        )
        for zero in range(4)
    },
}
DROPOUT = {"float64, micro-batches", "float64, GradCache"}
"""Cases with dropout on: the same on any number of workers, where all have whole micro-batches."""

NEEDS_WHOLE = {case for case in CASES if case.startswith(("ZeRO 2", "ZeRO 3"))}
"""Cases that are refused where the batch cannot be cut evenly."""


def run(case: str, folder: Path) -> dict[str, object]:
    """Loss, masked share and gradient of the first global batch."""
    settings, dtype = CASES[case]
    common = TrainConfig.model_validate_json((folder / "config.json").read_text())
    config = TrainConfig.model_validate(common.model_dump(exclude_unset=True) | settings)
    table = pq.read_table(folder / "triplets.parquet")
    index = join_index([digest_rows(table, config.objective)])
    plan = make_plan(config, index, seed=3)
    torch.manual_seed(0)
    encoder = Encoder(load_encoder(config.encoder, pooling="cls"), mlp_head=True).to(dtype)
    encoder.train(case in DROPOUT)
    source = from_table(table, index, config.objective)
    batch = next(feed(source, plan, 0, encoder.tokenize, config, 3))
    vectors = MaskVectors(InsideEmbedder(MaskModel(config.mask, "cpu")), len(index.sentence_T), 1.0)
    vector_GSD = vectors.take(vectors.ask(index.text_RS[batch.row_G], batch.own.sentences))
    keep_NC = gradient.read_mask(config, vector_GSD).keep_NC
    by = engine.load_engine(encoder, config, None)
    result = gradient.Gradients(config, by).add(batch, keep_NC, None)
    by.step(0.0)
    # From nothing, AdamW's first moment is a tenth of the gradient.
    moments = by.state().exp_avg
    return {"loss": result.loss, "masked": result.masked, "gradient": {n: 10 * m for n, m in moments.items()}}


def break_on_purpose(what: str) -> None:
    """Put a mistake into the library that only several workers can show."""
    if what == "offset":  # every worker believes to own the rows of the worker at the other end

        def own_rows(num_rows: int) -> slice:
            return world.rows_of(world.size() - 1 - world.rank(), num_rows)

        class Mirrored:
            """`world` as the loss sees it."""

            def __getattr__(self, name: str) -> object:
                return own_rows if name == "own_rows" else getattr(world, name)

        gradient.world = Mirrored()
    if what == "average":
        from multicsr.train.deepspeed_engine import DeepSpeedEngine

        DeepSpeedEngine.backward = lambda self, loss: self._engine.backward(loss)
        torch_engine_add = engine.TorchEngine._add_gradients

        def averaged(self: engine.TorchEngine) -> None:
            torch_engine_add(self)
            for parameter in self._trained.values():
                parameter.grad /= world.size()

        engine.TorchEngine._add_gradients = averaged
    if what == "diagonal":  # the own hard negative is looked for where worker 0 has it
        own_row = mask.own_row

        def shifted(anchors: int, candidates: int, offset: int, device: torch.device) -> torch.Tensor:
            own_NC = own_row(anchors, candidates, offset, device)
            own_NC[:, candidates // 2 :] = own_row(anchors, candidates, 0, device)[:, candidates // 2 :]
            return own_NC

        mask.own_row = shifted


def main() -> None:
    rank, workers, folder, broken = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    meet(folder / f"meet-{workers}-{broken}", rank, workers)
    break_on_purpose(broken)
    cases = ["float64", "float32", "ZeRO 1", "ZeRO 2"]
    if broken == "nothing":
        cases = sorted(CASES.keys() - (NEEDS_WHOLE if workers == 3 else set()))
    results = {case: run(case, folder) for case in cases}
    if rank == 0:
        torch.save(results, folder / f"{workers}-{broken}.pt")


if __name__ == "__main__":
    main()
