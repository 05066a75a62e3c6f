"""One of several gloo processes: the gradient of one global batch, by every engine. Run by test_workers.py.

python -m tests.support.worker_side RANK WORKERS FOLDER BREAK
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from multicsr.config import TrainConfig
from multicsr.models.encoder import Encoder, load_encoder
from multicsr.stages.train import distributed, gradient
from multicsr.stages.train.batches import LossBatch
from multicsr.stages.train.data.index import digest_labelled, digest_rows, join_index
from multicsr.stages.train.data.loader import feed
from multicsr.stages.train.data.plan import make_plan
from multicsr.stages.train.data.source import from_table
from multicsr.stages.train.engines.load import load_engine
from multicsr.stages.train.engines.torch import TorchEngine
from multicsr.stages.train.mask_model import read_mask
from multicsr.stages.train.mask_model.model import InsideEmbedder, MaskModel
from multicsr.stages.train.mask_model.vector_cache import MaskVectors
from multicsr.stages.train.objectives import mask
from tests.support.gloo import meet

CASES = {
    "float64": ({}, torch.float64),
    "float64, micro-batches": ({"micro_batch": 4}, torch.float64),
    "float64, GradCache": ({"micro_batch": 4, "grad_cache": True}, torch.float64),
    "labelled": ({}, torch.float64),
    "labelled, GradCache": ({"micro_batch": 4, "grad_cache": True}, torch.float64),
    "gist": ({"objective": "gist"}, torch.float64),
    "gist, GradCache": ({"objective": "gist", "micro_batch": 4, "grad_cache": True}, torch.float64),
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
LABELLED = {"labelled", "labelled, GradCache"}
"""Cases in which half of the rows are labelled: with weights, some of them pairs."""
GIST = {"gist", "gist, GradCache"}
"""Cases with a loss that compares premises with premises too."""
DROPOUT = {"float64, micro-batches", "float64, GradCache", "labelled, GradCache"}
"""Cases with dropout on: the same on any number of workers, where all have whole micro-batches."""

NEEDS_WHOLE = {case for case in CASES if case.startswith(("ZeRO 2", "ZeRO 3"))}
"""Cases that are refused where the batch cannot be cut evenly."""


def run(case: str, folder: Path) -> dict[str, object]:
    """Loss, masked share and gradient of the first global batch."""
    settings, dtype = CASES[case]
    common = TrainConfig.model_validate_json((folder / "config.json").read_text())
    tree = common.model_dump(exclude_unset=True) | settings
    if case in GIST:
        tree["mask"].pop("sigma")
    config = TrainConfig.model_validate(tree)
    table = pq.read_table(folder / "triplets.parquet")
    parts = [digest_rows(table, config.objective)]
    if case in LABELLED:
        labelled = pq.read_table(folder / "labelled.parquet")
        parts = [
            digest_rows(table.slice(0, 48), config.objective),
            digest_labelled(labelled, config.objective),
        ]
        tables = [table, labelled.select(table.column_names)]
        table = pa.concat_tables(tables, promote_options="default")
    index = join_index(parts)
    plan = make_plan(config, index, seed=3)
    torch.manual_seed(0)
    encoder = Encoder(load_encoder(config.encoder, pooling="cls"), mlp_head=True).to(dtype)
    encoder.train(case in DROPOUT)
    source = from_table(table, index, config.objective)
    batch = next(feed(source, plan, 0, encoder.tokenize, config, 3))
    vectors = MaskVectors(InsideEmbedder(MaskModel(config.mask, "cpu")), len(index.sentence_T), 1.0)
    vector_GSD = vectors.take(vectors.ask(index.text_RS[batch.row_G], batch.own.sentences))
    read = read_mask.read_mask(config, vector_GSD)
    by = load_engine(encoder, config, None)
    weight_G, has_negative_G = (
        None if values is None else torch.from_numpy(values[batch.row_G])
        for values in (index.weight_R, index.has_negative_R)
    )
    ready = LossBatch(batch, read.keep_NC, None, weight_G, has_negative_G, read.keep_same_N2G)
    result = gradient.Gradients(config, by).add(ready)
    by.step(0.0)
    # From nothing, AdamW's first moment is a tenth of the gradient.
    moments = by.state().exp_avg
    return {"loss": result.loss, "masked": result.masked, "gradient": {n: 10 * m for n, m in moments.items()}}


def break_on_purpose(what: str) -> None:
    """Put a mistake into the library that only several workers can show."""
    if what == "offset":  # every worker believes to own the rows of the worker at the other end

        def own_rows(num_rows: int) -> slice:
            return distributed.rows_of(distributed.size() - 1 - distributed.rank(), num_rows)

        class Mirrored:
            """`distributed` as the loss and the mask see it."""

            def __getattr__(self, name: str) -> object:
                return own_rows if name == "own_rows" else getattr(distributed, name)

        gradient.distributed = read_mask.distributed = Mirrored()
    if what == "average":
        from multicsr.stages.train.engines.deepspeed import DeepSpeedEngine

        DeepSpeedEngine.backward = lambda self, loss: self._engine.backward(loss)
        torch_engine_add = TorchEngine._add_gradients

        def averaged(self: TorchEngine) -> None:
            torch_engine_add(self)
            for parameter in self._trained.values():
                parameter.grad /= distributed.size()

        TorchEngine._add_gradients = averaged
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
