"""`make run` and `make study` as commands: stopped by Ctrl-C, started twice."""

import json
import os
import signal
import subprocess
import sys
import threading

import pandas as pd
import pytest
from filelock import FileLock
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError

from freesound_tagging import cli
from freesound_tagging import notebooks as run
from freesound_tagging.cli import STOPPED
from freesound_tagging.experiment import Experiment


@pytest.fixture(autouse=True)
def work_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_sounds(monkeypatch):
    monkeypatch.setattr(Experiment, "load_table", lambda experiment: None)
    monkeypatch.setattr(Experiment, "check_sounds", lambda experiment, table: None)


def raiser(error: BaseException):
    def fail(*args, **kwargs):
        raise error

    return fail


# papermill raises the first where it hears of Ctrl-C itself, the second where the kernel did.
IN_THE_KERNEL = PapermillExecutionError(0, 1, "", "KeyboardInterrupt", "", [])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), IN_THE_KERNEL], ids=["here", "kernel"])
def test_a_stopped_run_says_how_to_go_on(no_sounds, monkeypatch, capsys, error):
    monkeypatch.setattr(run, "run_notebook", raiser(error))
    assert cli.main(["run", "--dataset", "esc10", "--profile", "smoke"]) == STOPPED
    said = capsys.readouterr().err
    assert "what is finished is kept" in said
    assert "make run DATASET=esc10 PROFILE=smoke" in said


def test_going_on_takes_the_same_settings(no_sounds, work_folder, monkeypatch, capsys):
    monkeypatch.setattr(run, "run_notebook", raiser(KeyboardInterrupt()))
    monkeypatch.setenv("DATA_MIRROR", str(work_folder / "my archives"))
    monkeypatch.setenv("SEEDS", "2")
    monkeypatch.delenv("STRICT", raising=False)
    assert cli.main(["run", "--dataset", "esc10", "--profile", "smoke"]) == STOPPED
    said = capsys.readouterr().err
    command = f"make run DATASET=esc10 PROFILE=smoke WORK_FOLDER={work_folder} "
    assert f"{command}DATA_MIRROR='{work_folder}/my archives' SEEDS=2\n" in said


def test_a_work_folder_that_cannot_be_made_is_one_line(work_folder, monkeypatch, capsys):
    (work_folder / "file").write_text("in the way")
    monkeypatch.setenv("WORK_FOLDER", str(work_folder / "file"))
    assert cli.main(["run", "--dataset", "esc10", "--profile", "smoke"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "cannot be made" in said and "WORK_FOLDER" in said


def test_tables_of_the_same_name_do_not_overwrite_each_other(
    no_sounds, work_folder, monkeypatch, capsys
):
    monkeypatch.setattr(run, "run_notebooks", lambda experiment, sources: 1)  # no outcome to print
    tables = [work_folder / place / "birds.csv" for place in ("mine", "yours")]
    for table in tables:
        table.parent.mkdir()
        table.touch()
    mine, yours = (["run", "--dataset", str(table), "--profile", "smoke"] for table in tables)
    assert cli.main(mine) == cli.main(mine) == 1
    assert cli.main(yours) == 2
    said = capsys.readouterr().err
    assert all(str(table) in said for table in tables)
    assert "rename one of them" in said
    tables[0].unlink()  # it was moved: its runs go with it
    assert cli.main(yours) == 1


def test_stopped_while_sounds_are_fetched(monkeypatch, capsys):
    monkeypatch.setattr(Experiment, "load_table", raiser(KeyboardInterrupt()))
    assert cli.main(["run", "--dataset", "esc10"]) == STOPPED
    assert "make run DATASET=esc10 PROFILE=cpu" in capsys.readouterr().err


def test_a_fault_in_a_notebook_is_no_stop(no_sounds, monkeypatch, capsys):
    fault = PapermillExecutionError(0, 1, "", "ValueError", "five folds", [])
    monkeypatch.setattr(run, "run_notebook", raiser(fault))
    assert cli.main(["run", "--profile", "smoke"]) == 1
    assert "ValueError: five folds" in capsys.readouterr().err


def test_a_stopped_model_says_how_to_go_on(monkeypatch, capsys):
    monkeypatch.setattr(Experiment, "load_table", raiser(KeyboardInterrupt()))
    named = ["--representation", "mel_db", "--representation", "log_db"]
    assert cli.main(["model", "--dataset", "esc10", *named]) == STOPPED
    command = "make model DATASET=esc10 PROFILE=cpu REPRESENTATION='mel_db log_db'"
    assert command in capsys.readouterr().err


def test_a_second_run_of_a_data_set_waits_and_says_so(no_sounds, work_folder, monkeypatch, hears):
    started = threading.Event()
    monkeypatch.setattr(run, "run_notebooks", lambda experiment, sources: started.set() or 1)
    folder = work_folder / "runs" / "esc10"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        second = threading.Thread(target=cli.main, args=(["run", "--dataset", "esc10"],))
        second.start()
        assert str(folder) in hears(second, "another run is training into this folder")
        assert not started.is_set()
    second.join(60)
    assert started.is_set()


def test_notebooks_run_in_this_python_whatever_else_is_called_python3(work_folder, monkeypatch):
    other = work_folder / "kernels" / "python3"
    other.mkdir(parents=True)
    about = {"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}
    (other / "kernel.json").write_text(json.dumps(about))
    monkeypatch.setenv("JUPYTER_PATH", str(work_folder))
    assert AsyncKernelManager(kernel_name="python3").kernel_spec.argv == ["/bin/false"]
    command = run.ThisPython(kernel_name="python3").format_kernel_cmd()
    assert command[0] == sys.executable


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_with_three_classes_or_fewer_map3_ranks_and_that_is_said(work_folder, capsys, classes):
    summary = pd.DataFrame({"variant": ["a", "b"], "classes": classes})
    summary.to_csv(work_folder / "summary.csv", index=False)
    run.print_outcome(work_folder)
    said = capsys.readouterr().out
    assert ("by out-of-fold MAP@3" in said) == ("classes or fewer" in said) == (classes <= 3)
    assert ("by out-of-fold top-3 error" in said) == (classes > 3)


def test_the_status_after_ctrl_c_is_ours_wherever_it_fell(tmp_path):
    """In an exec of text, too: there CPython would end the process by SIGINT after all."""
    (tmp_path / "sitecustomize.py").write_text("""
from freesound_tagging import cli

def main():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        return cli.STOPPED

cli.main = main
""")
    command = [sys.executable, "-m", "freesound_tagging"]
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert ran.returncode == STOPPED


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX process groups and SIGINT")
def test_ctrl_c_in_the_middle_of_a_run(work_folder):
    """The real thing: the whole process group gets SIGINT, kernel and workers too."""
    command = [sys.executable, "-m", "freesound_tagging", "run", "--profile", "smoke"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell starts what runs in its background deaf to SIGINT, and so may these tests be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        for line in running.stdout:
            if line.startswith("01_download_data.ipynb ..."):
                break
        os.killpg(running.pid, signal.SIGINT)
        said, _ = running.communicate(timeout=120)
    assert running.returncode == STOPPED, said
    assert "make run DATASET=microcalls PROFILE=smoke" in said
    assert "Traceback" not in said
