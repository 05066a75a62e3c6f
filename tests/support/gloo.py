"""How the processes of a test meet and part: who waits in vain fails, and keeps nobody waiting."""

import os
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

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


def leave() -> NoReturn:
    """End this process, when all have come so far.

    At once: once in hundreds of runs a process waited for ever while it took its group down, after its work.
    """
    dist.barrier()
    os._exit(0)
