"""Silence of libraries that warn while an encoder is exported."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from multicsr.models.resolve import quiet_loading


@contextmanager
def without_warnings() -> Iterator[None]:
    """Leave out warnings of torch's exporter, of ONNX Runtime and about half precision on a CPU.

    Whether the result is right is checked afterwards.
    """
    before = logging.root.manager.disable
    with quiet_loading(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)
