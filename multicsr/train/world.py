"""What the workers of one training exchange. Without a process group there is one worker, and nothing to do.

    K workers     N own rows     G rows of the global batch     D width

Worker k owns rows k*G/K to (k+1)*G/K of every global batch, rounded down: any number of workers will do.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """This worker's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """The number of workers, K."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rows_of(worker: int, num_rows: int) -> slice:
    """The rows of a global batch that a worker owns."""
    return slice(worker * num_rows // size(), (worker + 1) * num_rows // size())


def own_rows(num_rows: int) -> slice:
    """The rows of a global batch that this worker owns."""
    return rows_of(rank(), num_rows)


def gather(own_ND: Tensor, num_rows: int, *, with_gradient: bool = True) -> Tensor:
    """All workers' rows [G, ...], in their order.

    Args:
        own_ND: this worker's rows; any number of dimensions after the first.
        num_rows: G.
        with_gradient: a row's gradient is the sum over all workers' losses. False: rows of other workers are
            constants, SimCSE's convention.
    """
    if size() == 1:
        return own_ND
    if with_gradient:
        gathered: Tensor = _Gather.apply(own_ND, num_rows)  # type: ignore[no-untyped-call]
        return gathered
    others_GD = gather_ragged(own_ND.detach(), _counts(num_rows))
    own = own_rows(num_rows)
    return torch.cat([others_GD[: own.start], own_ND, others_GD[own.stop :]])


def gather_ragged(own_ND: Tensor, counts: Sequence[int]) -> Tensor:
    """All workers' rows [sum of counts, ...], without gradient; worker k has counts[k] of them."""
    if size() == 1:
        return own_ND
    padded_PD = own_ND.new_zeros(max(counts), *own_ND.shape[1:])
    padded_PD[: len(own_ND)] = own_ND
    parts = [torch.empty_like(padded_PD) for _ in counts]
    dist.all_gather(parts, padded_PD)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def to_wire(values: Tensor) -> Tensor:
    """Where the workers' exchange wants a tensor: on the GPU for NCCL."""
    return values.cuda() if dist.is_initialized() and dist.get_backend() == "nccl" else values


def add(values: Tensor) -> Tensor:
    """Sum over all workers, in place."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def add_numbers(*values: float) -> list[float]:
    """The sum of each number over all workers."""
    if size() == 1:
        return list(values)
    summed: list[float] = add(to_wire(torch.tensor(values, dtype=torch.float64))).tolist()
    return summed


def from_first(value: T) -> T:
    """Worker 0's value; of the others the argument is ignored."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: T) -> list[T]:
    """Every worker's value, in their order."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def _counts(num_rows: int) -> list[int]:
    slices = [rows_of(worker, num_rows) for worker in range(size())]
    return [rows.stop - rows.start for rows in slices]


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass adds up what every worker's loss wants of a row."""

    @staticmethod
    def forward(ctx: Any, own_ND: Tensor, num_rows: int) -> Tensor:  # noqa: ANN401 - torch's own type
        ctx.num_rows = num_rows
        return gather_ragged(own_ND, _counts(num_rows))

    @staticmethod
    def backward(ctx: Any, gradient_GD: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return add(gradient_GD.contiguous().clone())[own_rows(ctx.num_rows)], None
