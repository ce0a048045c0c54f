"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    # Sums depend on the number of threads, and two threads beside other work are ten times slower.
    torch.set_num_threads(1)
