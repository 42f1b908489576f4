"""Memory on a CPU: what is freed is kept for the next array."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
MOST_KEPT = 2**31 - 1  # bytes, the largest int
LARGEST_OWN_BLOCK = 2**25  # bytes; the most that glibc takes: larger blocks go to and from the system


def keep_freed_memory() -> bool:
    """Have glibc keep up to 2 GB that this process frees; False where another library allocates.

    Else it gives activations back to the system operator by operator, and each one is then fetched, and cleared, page
    by page. The process stays as large as it was at its largest.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*bound) for bound in ((M_TRIM_THRESHOLD, MOST_KEPT), (M_MMAP_THRESHOLD, LARGEST_OWN_BLOCK)))
