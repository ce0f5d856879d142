"""The jobs of a step, on the cores of this machine or on the workers of a Dask cluster.

Without the environment variable ``SCHEDULER`` joblib runs the jobs in processes here. With it, for
example ``SCHEDULER=tcp://host:8786``, they go to the workers of that scheduler, which may be on
many machines. What that takes:

- The scheduler and all workers run in this environment (the same requirements.lock) and see this
  machine's folders, sounds and all, under the same paths: a shared file system. Jobs return
  little, at most the weights of a network; they write files, each atomically and named by what it
  holds.
- Each worker has one thread: ``dask worker tcp://host:8786 --nworkers 4 --nthreads 1``. Random
  numbers and torch's settings belong to a process, so two runs in one process would disturb each
  other.

Every job can be made twice and leaves the same bytes, so when a worker is lost Dask gives its jobs
to another. A job whose workers die four times over is given up as an error. Between machines the
bytes are the same as far as their processors round alike.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import joblib

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 5
"""How long to wait for the scheduler, and then for its first worker."""

_ONE_AT_A_TIME = threading.Lock()


class ClusterError(ValueError):
    """The cluster that SCHEDULER names cannot be used, or lost a job for good."""


def run_jobs(function: Callable, jobs: Iterable[tuple], n_jobs: int) -> Iterator[Any]:
    """Yield the result of ``function(*job)`` for every job, as they come.

    Parameters
    ----------
    function : one that a worker can import; called twice with a job, it does no harm.
    jobs : the arguments of each call.
    n_jobs : processes on this machine; a cluster uses all of its workers instead.

    Raises
    ------
    ClusterError
        As `check_scheduler`; or where the cluster gave a job up.
    Exception
        Whatever a job raises, here or on a cluster; the jobs that have not begun are dropped.
    """
    if not _address():
        # joblib replaces a worker that keeps memory, as training does on purpose: no news.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")
        yield from parallel(joblib.delayed(function)(*job) for job in jobs)
        return
    with _connect() as client:  # what has not begun is dropped when it closes
        from distributed import as_completed

        futures = [client.submit(_alone, function, job, pure=False) for job in jobs]
        for future in as_completed(futures, loop=client.loop):
            try:
                result, error = future.result()
            except Exception as lost:  # its workers died again and again, or could not load it
                raise ClusterError(
                    f"the cluster gave a job up; what is finished is kept: {lost!r}"
                ) from lost
            if error is not None:
                raise error
            future.release()
            yield result


def check_scheduler() -> None:
    """Do nothing where SCHEDULER is empty or names a cluster that can be used.

    Raises
    ------
    ClusterError
        Where SCHEDULER is malformed, ``distributed`` is not installed, nothing answers there, no
        worker is there, or one has several threads.
    """
    if _address():
        with _connect():
            pass


def _address() -> str:
    return os.environ.get("SCHEDULER", "").strip()


@contextmanager
def _connect() -> "Iterator[Client]":
    """Yield a client of the scheduler that SCHEDULER names; raises as `check_scheduler`."""
    address = _address()
    if not _is_well_formed(address):
        raise ClusterError(f"SCHEDULER must read like tcp://host:8786, got {address!r}")
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            f"SCHEDULER={address} needs the package distributed, which is not installed: "
            "pip install -e '.[cluster]'"
        ) from error
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise ClusterError(
            f"SCHEDULER={address}: no scheduler answers there within {CONNECT_SECONDS} s"
        ) from error
    with client:
        command = f"dask worker {address} --nworkers 4 --nthreads 1"
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            raise ClusterError(
                f"SCHEDULER={address} has no workers; start some: {command}"
            ) from error
        threads = client.nthreads()
        wide = [worker for worker, number in threads.items() if number != 1]
        if wide:
            raise ClusterError(
                f"SCHEDULER={address}: a worker must have one thread, and {wide[0]} has "
                f"{threads[wide[0]]}; start workers so: {command}"
            )
        yield client


def _is_well_formed(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("tcp", "tls") and bool(parts.hostname and parts.port)
    except ValueError:  # the port is not a number, or too large
        return False


def _alone(function: Callable, job: tuple) -> tuple[Any, Exception | None]:
    """Make a job with no other beside it in this process; return its result, or its error.

    `_connect` refuses workers of several threads, but one may join later.
    """
    with _ONE_AT_A_TIME:
        try:
            return function(*job), None
        except Exception as error:
            return None, error
