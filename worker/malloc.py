"""The C library's allocator, told what kind of process this is."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of GNU's malloc.h


def keep_memory(block_bytes: int) -> None:
    """Has the memory of one image kept for the next: blocks up to so large, and twice as much in all.

    To get it from the kernel anew, page by page, costs a small image a fifth of its time, here and in a loader process.
    What is larger goes back at once. Does nothing where the C library is not GNU's.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, block_bytes)
        mallopt(M_TRIM_THRESHOLD, 2 * block_bytes)
