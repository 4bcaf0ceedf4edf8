"""What all tests share: hypothesis without deadlines, and GPU tests only where there is a GPU."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

sys.modules["sim_compiled__mypyc"] = None  # type: ignore[assignment]  # tests are of the sources


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell, which lets Ctrl-C be ignored: the tests send it themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    """A test that leaves the garbage collector frozen or tuned fails itself, not one that comes after it."""
    before = gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0
    yield
    assert (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 0) == before


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch, for tests that compare floats or measure nothing."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where torch finds no CUDA device (torch is imported only to ask that)."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
