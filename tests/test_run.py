"""`make run` as a command: stopped by Ctrl-C, started twice, and what it prints."""

import json
import os
import signal
import subprocess
import sys
import threading

import nbformat
import pandas as pd
import pytest
from filelock import FileLock
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError

from freesound_tagging import cli, notebooks
from freesound_tagging.cli import STOPPED
from freesound_tagging.experiment import Experiment, open_experiment


@pytest.fixture(autouse=True)
def work_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_sounds(monkeypatch, table):
    monkeypatch.setattr(Experiment, "load_table", lambda experiment, split="train": table)


# papermill raises this where the kernel was first to hear of Ctrl-C.
IN_THE_KERNEL = PapermillExecutionError(0, 1, "", "KeyboardInterrupt", "", [])
A_FAULT = PapermillExecutionError(0, 1, "", "ValueError", "five folds", [])


@pytest.mark.parametrize(
    ("command", "error", "status", "words"),
    [
        ("run", KeyboardInterrupt(), STOPPED, "the same command goes on"),
        ("run", IN_THE_KERNEL, STOPPED, "the same command goes on"),
        ("run", A_FAULT, 1, "01_from_sound_to_tag.ipynb: ValueError: five folds"),
        ("model", KeyboardInterrupt(), STOPPED, "the same command goes on"),
    ],
)
def test_a_stop_is_told_from_a_fault(
    no_sounds, work_folder, monkeypatch, capsys, command, error, status, words
):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(notebooks, "run_notebook", fail)
    monkeypatch.setattr(Experiment, "build_store", fail)
    assert cli.main([command, "--dataset", "esc10", "--profile", "smoke"]) == status
    assert words in capsys.readouterr().err


def test_a_second_run_of_a_data_set_waits_and_says_so(no_sounds, work_folder, monkeypatch, capsys):
    started = threading.Event()
    monkeypatch.setattr(notebooks, "notebook_files", lambda neighbours: started.set() or [])
    monkeypatch.setattr(notebooks, "print_outcome", lambda experiment: None)
    folder = work_folder / "runs" / "esc10"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        second = threading.Thread(target=cli.main, args=(["run", "--dataset", "esc10"],))
        second.start()
        said = ""
        for _ in range(600):
            second.join(0.05)
            said += capsys.readouterr().out
            if "another run" in said:
                break
        assert f"{folder}: another run is training into this folder" in said
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
    command = notebooks.ThisPython(kernel_name="python3").format_kernel_cmd()
    assert command[0] == sys.executable


def test_of_a_progress_bar_the_last_state_stays(tmp_path):
    bar = "import time, tqdm\nfor _ in tqdm.tqdm(range(3)): time.sleep(0.3)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(bar)])
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": ""}
    nbformat.write(notebook, tmp_path / "bar.ipynb")
    notebooks.run_notebook(tmp_path / "bar.ipynb", tmp_path / "{m}.ipynb", "microcalls", "smoke")
    (output,) = nbformat.read(tmp_path / "{m}.ipynb", 4).cells[-1].outputs
    assert output.text.count("%") == 1 and output.text.startswith("100%")


def test_the_outcome_names_ranks_files_and_what_was_left_out(work_folder, capsys):
    experiment = open_experiment("microcalls", "smoke")
    experiment.run_folder.mkdir(parents=True)
    summary = pd.DataFrame({"variant": ["log_db", "mel_db"], "top1_accuracy": 0.5})
    summary.to_csv(experiment.run_folder / "summary.csv", index=False)
    left_out = pd.DataFrame({"clip_id": ["a", "b"], "reason": "empty"})
    left_out.to_csv(experiment.run_folder / "unreadable.csv", index=False)
    notebooks.print_outcome(experiment)
    said = capsys.readouterr().out
    assert "by out-of-fold top-1 accuracy" in said
    assert "mel_db" in said and str(experiment.run_folder) in said
    assert "2 clips could not be read" in said and "these scores say nothing" in said


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX process groups and SIGINT")
def test_ctrl_c_in_the_middle_of_a_run():
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
            if line.startswith("01_from_sound_to_tag.ipynb ..."):
                break
        os.killpg(running.pid, signal.SIGINT)
        said, _ = running.communicate(timeout=120)
    assert running.returncode == STOPPED, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
