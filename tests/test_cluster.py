"""On a cluster of two worker processes: the same bytes, also when one of them is killed."""

import os
import signal
import socket
import sys
from multiprocessing import forkserver
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

from freesound_tagging import cli, jobs, runs
from freesound_tagging.errors import DataError
from freesound_tagging.features import store as stores
from freesound_tagging.jobs import check_scheduler, run_jobs


@pytest.fixture(scope="module", autouse=True)
def quick_workers():
    """Fork workers from a process that has loaded what runs need, which takes seconds."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context().set_forkserver_preload(["distributed", "freesound_tagging.runs"])
        yield
    forkserver._forkserver._stop()  # it would stay, with half a gigabyte


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of two workers, named by SCHEDULER."""
    options = {"threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(n_workers=2, env={"CUDA_VISIBLE_DEVICES": ""}, **options) as cluster:
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        monkeypatch.setenv("SCHEDULER", cluster.scheduler_address)
        yield cluster


def kill_at_first_write(marker: Path) -> None:
    """Let this process kill itself at the first scores that it writes."""

    def write(file: Path, content: bytes) -> None:
        marker.write_text(str(file))
        os.kill(os.getpid(), signal.SIGKILL)

    runs.write_atomically = write


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_store_and_scores_have_the_same_bytes_though_a_worker_is_killed(
    cluster, table, profile, small_batches, tmp_path, monkeypatch
):
    def make(name: str) -> dict[str, bytes]:
        folder = tmp_path / name
        store = stores.build(table, ["log", "mel"], profile.grid, folder, n_jobs=1, progress=False)
        if name == "many":
            with Client(cluster, set_as_default=False) as client:
                doomed = next(iter(client.nthreads()))
                client.run(kill_at_first_write, tmp_path / "killed", workers=[doomed])
        runs.run_grid(table, store, ["log_db", "mel_db"], profile, folder, n_jobs=1)
        files = [*folder.rglob("*.safetensors"), *folder.rglob("*.csv")]
        return {str(file.relative_to(folder)): file.read_bytes() for file in files}

    many = make("many")
    assert Path((tmp_path / "killed").read_text()).parent.parent.parent == tmp_path / "many"
    monkeypatch.delenv("SCHEDULER")
    assert make("one") == many and len(many) == 2 * 3 + 2 * -(-len(table) // small_batches)


def test_a_silent_scheduler_is_one_line_before_any_work(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(jobs, "CONNECT_SECONDS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("SCHEDULER", address)
        monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
        assert cli.main(["run", "--dataset", "microcalls", "--profile", "smoke"]) == 2
    out, said = capsys.readouterr()
    assert out == "" and said.startswith("error: ") and address in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("workers", "threads"), [(0, 1), (1, 2)])
def test_workers_that_cannot_be_used_are_refused(monkeypatch, workers, threads):
    monkeypatch.setattr(jobs, "CONNECT_SECONDS", 1)
    options = {"processes": False, "protocol": "tcp://", "dashboard_address": ":0"}
    with LocalCluster(n_workers=workers, threads_per_worker=threads, **options) as cluster:
        monkeypatch.setenv("SCHEDULER", cluster.scheduler_address)
        with pytest.raises(DataError, match=r"needs workers of one thread each.*dask worker"):
            check_scheduler()


def test_without_an_address_no_cluster_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setenv("SCHEDULER", " ")
    check_scheduler()
    assert list(run_jobs(os.getpid, [()], 1)) == [os.getpid()]
    monkeypatch.setenv("SCHEDULER", "tcp://localhost:8786")
    with pytest.raises(DataError, match="needs Dask"):
        check_scheduler()
