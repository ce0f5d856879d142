"""On a cluster of two worker processes: the same bytes, also when one of them is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from multiprocessing import forkserver
from multiprocessing.pool import ThreadPool
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

from freesound_tagging import cli
from freesound_tagging import jobs as cluster_module
from freesound_tagging import run as run_module
from freesound_tagging.features import store
from freesound_tagging.jobs import ClusterError, check_scheduler, run_jobs
from freesound_tagging.run_grid import collect_results, make_runs, plan_runs

NAMES = {"dataset": "tiny", "profile_name": "smoke"}


@pytest.fixture(scope="module", autouse=True)
def quick_workers():
    """Fork workers from a process that has loaded what runs need, which takes seconds."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["distributed", "freesound_tagging.run"])
        yield
    forkserver._forkserver._stop()  # it would stay, with half a gigabyte


@pytest.fixture(scope="module")
def _cluster():
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        env={"CUDA_VISIBLE_DEVICES": ""},
    ) as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster, monkeypatch) -> LocalCluster:
    """A cluster of two workers, named by SCHEDULER; whoever kills one has to wait for the next."""
    with Client(_cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    monkeypatch.setenv("SCHEDULER", _cluster.scheduler_address)
    return _cluster


@pytest.fixture(scope="module")
def small_store(_table, grid, tmp_path_factory) -> store.Store:
    folder = tmp_path_factory.mktemp("pictures")
    return store.build(_table, ["log", "mel"], grid, folder, n_jobs=1, progress=False)


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob(pattern))
    }


# --- the same bytes ----------------------------------------------------------------------------


def test_the_store_has_the_same_bytes(
    cluster, small_table, small_batches, grid, tmp_path, monkeypatch
):
    channels = ["log", "mel"]
    with monkeypatch.context() as alone:
        alone.delenv("SCHEDULER")
        store.build(small_table, channels, grid, tmp_path / "one", n_jobs=1, progress=False)
    built = store.build(small_table, channels, grid, tmp_path / "many", progress=False)
    one, many = (contents(tmp_path / name, "*.safetensors*") for name in ("one", "many"))
    assert len(one) == 2 * len(small_table) // small_batches
    assert many == one
    assert built.read("log", list(small_table.index)).any()


def kill_at_first_write(marker: Path) -> int:
    """Let this process kill itself at the first scores that it writes; return its id."""

    def write(file: Path, scores) -> None:
        marker.write_text(str(file))
        os.kill(os.getpid(), signal.SIGKILL)

    run_module._write_scores = write
    return os.getpid()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_a_worker_killed_in_mid_run_changes_no_score(
    cluster, table, small_store, profile, tmp_path, monkeypatch
):
    short = replace(profile, frozen_epochs=1, epochs=1, folds=2)
    plan = partial(plan_runs, table, small_store, ["log_db", "mel_db"], short, **NAMES)
    with monkeypatch.context() as alone:
        alone.delenv("SCHEDULER")
        make_runs(plan(tmp_path / "one"), n_jobs=1, progress=False)
    marker = tmp_path / "killed"
    with Client(cluster, set_as_default=False) as client:
        before = client.run(os.getpid)
        doomed = next(iter(before))
        client.run(kill_at_first_write, marker, workers=[doomed])
        runs = plan(tmp_path / "many")
        make_runs(runs, progress=False)
        assert before[doomed] not in client.run(os.getpid).values()
    assert Path(marker.read_text()) in [run.score_file for run in runs]
    one, many = (contents(tmp_path / name, "*.csv") for name in ("one", "many"))
    assert len(one) == 4
    assert many == one
    results = [collect_results(plan(tmp_path / name)) for name in ("one", "many")]
    same = [frame.drop(columns="seconds") for frame in results]
    assert same[0].equals(same[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_are_made_by_the_workers(monkeypatch, workers):
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        monkeypatch.setenv("SCHEDULER", cluster.scheduler_address)
        with Client(cluster, set_as_default=False) as client:
            processes = set(client.run(os.getpid).values())
        assert len(processes) == workers
        made = list(run_jobs(os.getpid, [()] * 4, 1))
        assert len(made) == 4
        assert set(made) <= processes


# --- faults of a job ---------------------------------------------------------------------------


def test_a_run_that_diverges_is_an_error_here_too(cluster, table, small_store, profile, tmp_path):
    wild = replace(profile, frozen_epochs=1, epochs=1, lr_max=1e30, frozen_lr=1e30, folds=1)
    runs = plan_runs(table, small_store, ["log_db"], wild, tmp_path, **NAMES)
    with pytest.raises(ValueError, match="log_db, fold 0, seed 0: training diverged"):
        make_runs(runs, progress=False)


class Broken:
    """An argument that can be sent and not be read."""

    def __reduce__(self):
        return json.loads, ("{",)


def test_a_job_that_the_cluster_gives_up_is_an_error_and_no_endless_wait(cluster):
    with pytest.raises(ClusterError, match="the cluster gave a job up"):
        list(run_jobs(str, [(Broken(),)], 1))
    assert sorted(run_jobs(str, [(1,), (2,)], 1)) == ["1", "2"]


def test_a_worker_that_joins_with_several_threads_still_makes_one_job_at_a_time():
    inside = threading.Lock()

    def job() -> bool:
        alone = inside.acquire(blocking=False)
        time.sleep(0.05)
        inside.release()
        return alone

    with ThreadPool(2) as threads:
        made = threads.starmap(cluster_module._alone, [(job, ())] * 4)
    assert made == [(True, None)] * 4


# --- faults of the address ---------------------------------------------------------------------


@pytest.fixture(params=["check", "jobs", "make run"])
def refused(request, monkeypatch, tmp_path, capsys):
    """Return a function: set SCHEDULER and return what is said, by each way to use it."""

    def refuse(address: str) -> str:
        monkeypatch.setenv("SCHEDULER", address)
        monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
        if request.param == "make run":
            assert cli.main(["run", "--dataset", "microcalls", "--profile", "smoke"]) == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert said.err.startswith("error: ")
            assert said.err.count("\n") == 1
            assert not list(tmp_path.iterdir())
            return said.err
        with pytest.raises(ClusterError) as caught:
            check_scheduler() if request.param == "check" else list(run_jobs(str, [(1,)], 1))
        return str(caught.value)

    return refuse


@pytest.mark.parametrize(
    "address", ["host", "host:8786", "tcp://host", "tcp://host:x", "tcp://:8786", "http://host:80"]
)
def test_a_malformed_address_is_refused(refused, address):
    assert f"SCHEDULER must read like tcp://host:8786, got {address!r}" in refused(address)


def test_a_scheduler_that_is_not_there_is_named(refused, monkeypatch):
    monkeypatch.setattr("freesound_tagging.jobs.CONNECT_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        assert f"SCHEDULER={address}: no scheduler answers there within 1 s" in refused(address)


def test_a_missing_package_is_named_with_the_command(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = refused("tcp://host:8786")
    assert "needs the package distributed" in said
    assert "pip install -e '.[cluster]'" in said


@pytest.mark.parametrize(
    ("workers", "threads", "said"),
    [(0, 1, "has no workers; start some: dask worker"), (1, 2, "a worker must have one thread")],
)
def test_workers_that_cannot_be_used_are_refused(monkeypatch, workers, threads, said):
    monkeypatch.setattr("freesound_tagging.jobs.CONNECT_SECONDS", 1)
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=False,
        protocol="tcp://",
        dashboard_address=":0",
    ) as cluster:
        monkeypatch.setenv("SCHEDULER", cluster.scheduler_address)
        with pytest.raises(ClusterError, match=said):
            check_scheduler()


@pytest.mark.parametrize("address", [None, "", " "])
def test_without_an_address_all_stays_on_this_machine(monkeypatch, address):
    monkeypatch.setitem(sys.modules, "distributed", None)
    if address is None:
        monkeypatch.delenv("SCHEDULER", raising=False)
    else:
        monkeypatch.setenv("SCHEDULER", address)
    check_scheduler()
    assert list(run_jobs(os.getpid, [()], 1)) == [os.getpid()]


def test_one_machine_needs_no_distributed():
    code = "import sys, freesound_tagging.jobs; assert 'distributed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
