"""Threads for the compiled loops."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache


def thread_count() -> int:
    """As many as torch is set to use where it is loaded, else the cores that this process may."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.get_num_threads()
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def pool_of(n_threads: int, process: int) -> ThreadPoolExecutor:
    """A pool that is kept: starting threads takes as long as a short clip. One for each process,
    because threads do not outlive a fork.
    """
    return ThreadPoolExecutor(n_threads)


def in_threads(function: Callable, items: Iterable) -> Iterator:
    """``map`` over `thread_count` threads."""
    n_threads = thread_count()
    if n_threads == 1:
        yield from map(function, items)
        return
    pool = pool_of(n_threads, os.getpid())
    # A few tasks ahead of the consumer and no more: finished results take memory.
    ahead: deque = deque()
    for item in items:
        ahead.append(pool.submit(function, item))
        if len(ahead) > 4 * n_threads:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()
