"""Threads for the compiled loops."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


def thread_count() -> int:
    """As many as torch is set to use where it is loaded, else the cores that this process may."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.get_num_threads()
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def thread_pool() -> Iterator:
    """A ``map`` over `thread_count` threads."""
    n_threads = thread_count()
    if n_threads == 1:
        yield map
        return
    with ThreadPoolExecutor(n_threads) as pool:

        def in_order(function: Callable, items: Iterable) -> Iterator:
            # A few tasks ahead of the consumer and no more: finished results take memory.
            ahead: deque = deque()
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 4 * n_threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

        yield in_order
