"""Collective operations of the workers of one training.

Without a process group there is only one worker, and every operation returns at once.

    K workers     N own rows     G rows of the global batch     D width

Worker k owns the rows k*G/K to (k+1)*G/K of every global batch, rounded down, so any number of workers works.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """Return the number of this worker, counted from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of workers, K."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rows_of(worker: int, num_rows: int) -> slice:
    """Return the rows of a global batch that a worker owns.

    Args:
        worker: number of the worker, counted from 0.
        num_rows: G.
    """
    return slice(worker * num_rows // size(), (worker + 1) * num_rows // size())


def own_rows(num_rows: int) -> slice:
    """Return the rows of a global batch that this worker owns; `num_rows` is G."""
    return rows_of(rank(), num_rows)


def gather(own_ND: Tensor, num_rows: int) -> Tensor:
    """Return the rows of all workers in order, with gradient: the sum over all workers' losses.

    SimCSE's public code keeps the gradient of a worker's own rows only when it gathers anchors and
    candidates, computes the loss of the whole batch on every worker and averages the gradients. Each of its
    gradients is therefore the one here divided by K.

    Args:
        own_ND: this worker's rows, with any number of dimensions after the first.
        num_rows: G.

    Returns:
        Rows [G, ...].
    """
    if size() == 1:
        return own_ND
    gathered: Tensor = _Gather.apply(own_ND, num_rows)  # type: ignore[no-untyped-call]
    return gathered


def gather_ragged(own_ND: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the rows of all workers in order, without gradient.

    Args:
        own_ND: this worker's rows, with any number of dimensions after the first.
        counts: number of rows of each worker.

    Returns:
        Rows [sum of counts, ...].
    """
    if size() == 1:
        return own_ND
    padded_PD = own_ND.new_zeros(max(counts), *own_ND.shape[1:])
    padded_PD[: len(own_ND)] = own_ND
    parts = [torch.empty_like(padded_PD) for _ in counts]
    dist.all_gather(parts, padded_PD)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def to_wire(values: Tensor) -> Tensor:
    """Return the tensor on the device that the backend exchanges from: on the GPU for NCCL."""
    return values.cuda() if dist.is_initialized() and dist.get_backend() == "nccl" else values


def add(values: Tensor) -> Tensor:
    """Sum the values over all workers, in place, and return them."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def add_numbers(*values: float) -> list[float]:
    """Return the sum of each number over all workers, computed in float64."""
    if size() == 1:
        return list(values)
    summed: list[float] = add(to_wire(torch.tensor(values, dtype=torch.float64))).tolist()
    return summed


def from_first(value: T) -> T:
    """Return worker 0's value on every worker; the arguments of the other workers are ignored."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: T) -> list[T]:
    """Return the values of all workers, in the order of their numbers."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def _counts(num_rows: int) -> list[int]:
    """Return the number of rows that each worker owns of a global batch."""
    slices = [rows_of(worker, num_rows) for worker in range(size())]
    return [rows.stop - rows.start for rows in slices]


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass sums the gradients of all workers' losses for each row."""

    @staticmethod
    def forward(ctx: Any, own_ND: Tensor, num_rows: int) -> Tensor:  # noqa: ANN401 - torch's own type
        """Return the rows of all workers [G, ...]; `num_rows` is G."""
        ctx.num_rows = num_rows
        return gather_ragged(own_ND, _counts(num_rows))

    @staticmethod
    def backward(ctx: Any, gradient_GD: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        """Return the gradient of this worker's rows, summed over all workers."""
        return add(gradient_GD.contiguous().clone())[own_rows(ctx.num_rows)], None
