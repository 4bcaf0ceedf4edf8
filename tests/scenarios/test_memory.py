"""Freed pages are kept where the allocator is glibc's; numbers are nobody's business here."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from scenarios.memory import keep_pages

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_pages()
def touch():
    return [np.ones(4 << 20, dtype=np.uint8) for _ in range(8)]
touch()
before = faults()
for _ in range(20):
    touch()
print(kept, faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, faults = found.stdout.split()
    assert kept == "True"
    assert int(faults) < 8 * 1024, "eight arrays of 4 MiB have so many pages; they were touched 20 times"
