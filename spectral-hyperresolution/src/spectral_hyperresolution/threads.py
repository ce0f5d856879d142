"""Threads for the compiled loops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def thread_pool() -> Iterator:
    """A ``map`` over as many threads as torch is set to use."""
    n_threads = torch.get_num_threads()
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
