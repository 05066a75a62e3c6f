"""One encoder on one task."""

from multicsr.evaluate.cosine import Encode
from multicsr.evaluate.score import Score
from multicsr.evaluate.sts import measure_sts
from multicsr.evaluate.tasks import StsTask, Task
from multicsr.evaluate.triplets import measure_triplets


def measure(task: Task, encode: Encode) -> Score:
    """Measure an encoder.

    Args:
        task: from `read_task` or `find_tasks`.
        encode: sentences [S] to vectors [S, D]; they need not have length 1.

    Raises:
        RunError: the encoder gives vectors that are not finite.
    """
    return measure_sts(task, encode) if isinstance(task, StsTask) else measure_triplets(task, encode)
