"""How glibc keeps the memory that pictures leave behind: hardly at all. Elsewhere this does nothing."""

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_M_ARENA_MAX: Final = -8
LARGE_BYTES: Final = 1024 * 1024


def give_back() -> None:
    """Let each block of LARGE_BYTES go back to the system when it is freed.

    By itself glibc raises that threshold to 32 MB as blocks come and go, and keeps an arena for each thread: threads
    that decode large pictures in turn would each hold on to hundreds of megabytes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_ARENA_MAX, 4)


def trim() -> None:
    """Give back what lies free between small blocks: 40 MiB were left so by thousands of clients that hung up."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)
