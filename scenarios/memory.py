"""The process's allocator, told that large tensors come and go (glibc; elsewhere nothing happens).

Rules this module obeys:

* It changes what memory costs, never what is computed.
* By default the allocator hands memory of some hundred kilobytes back to the system as soon as it is
  freed, and every use of it again costs a page fault per 4 KiB. Here freed pages stay with the process
  until it ends; the most that it holds is what it needed at its peak.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_pages"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST, _NEVER = 32 << 20, (1 << 31) - 1
"""Bytes: what glibc allows at most to be taken from memory that is kept; and when to give it back."""


def keep_pages() -> bool:
    """Keep the pages of freed tensors of up to 32 MiB, for the rest of this process; says whether it did."""
    if sys.platform == "win32":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _NEVER))
