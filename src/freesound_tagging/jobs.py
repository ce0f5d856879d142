"""The jobs of a step, on the cores of this machine or on the workers of a Dask cluster.

With the environment variable ``SCHEDULER``, for example ``tcp://host:8786``, joblib hands the jobs
to that scheduler's workers. They run in this environment and see this machine's folders under the
same paths. Each has one thread, for random numbers and torch's settings belong to a process::

    dask worker tcp://host:8786 --nworkers 4 --nthreads 1

A job can be made twice and leaves the same bytes, so the jobs of a lost worker go to another.
"""

import asyncio
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import joblib

from freesound_tagging.errors import DataError

CONNECT_SECONDS = 5  # to the scheduler, and then to its first worker


def run_jobs(function: Callable, jobs: Iterable[tuple], n_jobs: int) -> Iterator[Any]:
    """Yield the result of ``function(*job)`` for every job, as they come.

    Workers must be able to import the function. ``n_jobs`` processes of this machine take part; a
    cluster uses all of its workers instead.
    """
    # joblib replaces a worker that keeps memory, as training does on purpose: no news.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    with _backend(n_jobs) as backend:
        with joblib.parallel_config(**backend):
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        # Whole calls, not arguments: Dask would share those out and lose them with a worker.
        yield from parallel(joblib.delayed(partial(function, *job))() for job in jobs)


def check_scheduler() -> None:
    """Raise an error where SCHEDULER is set and names no cluster that can be used."""
    with _backend(1):
        pass


@contextmanager
def _backend(n_jobs: int) -> Iterator[dict[str, Any]]:
    """Yield what `joblib.parallel_config` takes; raises as `check_scheduler`."""
    address = os.environ.get("SCHEDULER", "").strip()
    if not address:
        yield {"backend": "loky", "n_jobs": n_jobs}
        return
    if not re.fullmatch(r"(tcp|tls)://[^:].*:\d+", address):
        raise DataError(f"SCHEDULER must read like tcp://host:8786, got {address!r}")
    if not importlib.util.find_spec("distributed"):
        raise DataError("SCHEDULER needs Dask, which is not installed: pip install -e '.[cluster]'")
    from distributed import Client

    with Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client:
        with suppress(TimeoutError, asyncio.TimeoutError):  # one and the same from Python 3.11
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        threads = sorted(client.nthreads().values())
        if set(threads) != {1}:
            raise DataError(
                f"SCHEDULER={address} needs workers of one thread each, and its workers' threads "
                f"are {threads}; start some: dask worker {address} --nworkers 4 --nthreads 1"
            )
        yield {"backend": "dask", "client": client, "n_jobs": -1}
