"""Fixtures of the tests of swarms."""

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """Bits are the same in any batch on one thread of a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
