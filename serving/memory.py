"""How glibc takes memory from the system, and how much of what was freed it keeps. Elsewhere this does nothing."""

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
LARGE_BYTES: Final = 8 * 1024 * 1024  # what is as large is no ordinary picture: those have up to 2 megapixels to resize
ARENAS: Final = 2
# For the environment of a model server: glibc asks for pages of 2 MiB, which Linux gives where
# /sys/kernel/mm/transparent_hugepage/enabled says madvise. The processor then looks up few places for all weights and
# maps. That costs most after a pause, when others have taken the caches, and in a virtual machine, where it is twofold.
HUGE_PAGES: Final = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def bound() -> None:
    """Let go of blocks of LARGE_BYTES when they are freed, and keep at most as much free at the end of each arena.

    By itself glibc raises the first bound to 32 MB as blocks come and go, and keeps an arena for each thread: threads
    that decode large pictures in turn would each hold on to hundreds of megabytes. With lower bounds each picture's
    memory comes from the system anew, page by page: a sixth of the processor time of a picture of 600 x 450 pixels.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, LARGE_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)


def trim() -> None:
    """Give back what lies free between small blocks.

    40 MiB were left so by thousands of clients that hung up, 400 by a model whose weights became constants.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)
