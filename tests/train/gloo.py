"""How the processes of a test meet: one that waits in vain fails, instead of keeping the tests waiting."""

from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

_TIMEOUT = timedelta(minutes=2)


def meet(place: Path, rank: int, workers: int) -> None:
    """Join the others of this test, with one thread of arithmetic.

    Args:
        place: a file that does not exist yet, the same for all.
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{place}", rank=rank, world_size=workers, timeout=_TIMEOUT
    )
