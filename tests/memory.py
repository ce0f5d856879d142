"""What tests that train a lot do between two trainings."""

import ctypes
import gc
import sys


def free_memory() -> None:
    """Free what nothing refers to, and hand it back to the system."""
    gc.collect()
    trim = sys.platform == "linux" and getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:  # only glibc has it
        trim(0)
