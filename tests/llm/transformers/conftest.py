"""Small models compute the same bits on one thread, and sooner."""

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass
