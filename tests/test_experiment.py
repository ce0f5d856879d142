"""What a person types: data set, profile, seeds, folders; and what a wrong word gets."""

from dataclasses import replace

import pandas as pd
import pytest

from freesound_tagging import cli
from freesound_tagging.experiment import ROOT, open_experiment, thin
from freesound_tagging.learning.profiles import PROFILES, get_profile
from freesound_tagging.sounds.catalogue import NAMES


@pytest.fixture(autouse=True)
def work_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("SEEDS", raising=False)
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path / "work"))
    return tmp_path / "work"


WRONG = {
    "data set": (["run", "--dataset", "nonesuch"], {}, ["DATASET 'nonesuch'", *NAMES, ".csv"]),
    "profile": (["run", "--profile", "tpu"], {}, ["PROFILE 'tpu'", *PROFILES]),
    "table": (["run", "--dataset", "missing.csv"], {}, ["missing.csv", "no such table"]),
    "row": (["run", "--dataset", "{folder}/mine.csv"], {}, ["mine.csv, line 3"]),
    "representation": (["model", "--representation", "log_bd"], {}, ["'log_bd'", "log_db"]),
    "no seed": (["run"], {"SEEDS": "0"}, ["SEEDS", "'0'"]),
    "half a seed": (["run"], {"SEEDS": "1.5"}, ["SEEDS", "'1.5'"]),
    "audio": (["run", "--profile", "audio"], {}, ["PROFILE=audio"]),  # has no notebooks
    "no scheme": (["run"], {"SCHEDULER": "http://host:80"}, ["SCHEDULER", "'http://host:80'"]),
    "no port": (["run"], {"SCHEDULER": "tcp://host"}, ["tcp://host:8786", "'tcp://host'"]),
    "work folder": (["run"], {"WORK_FOLDER": "{folder}/a.wav"}, ["a.wav", "ot a directory"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_word_is_answered_in_one_line_before_any_work(
    wrong, tmp_path, work_folder, monkeypatch, capsys
):
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "mine.csv").write_text("file,label\na.wav,x\na.wav,x\n")
    words, settings, said = WRONG[wrong]
    for name, value in settings.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))
    assert cli.main([word.format(folder=tmp_path) for word in words]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in said), error
    assert not [file for file in work_folder.rglob("*") if file.is_file() and file.name != ".lock"]


def test_folders_of_a_data_set_and_of_a_table(tmp_path, monkeypatch):
    named, own = (open_experiment(name, "cpu") for name in ("esc10", str(tmp_path / "birds.csv")))
    assert named.run_folder.parts[-3:] == ("runs", "esc10", "cpu")
    assert own.run_folder.parts[-3:] == ("runs", "birds", "cpu")
    assert own.store_folder.name == "birds"
    monkeypatch.delenv("WORK_FOLDER")
    named = open_experiment("esc10", "cpu")
    assert named.run_folder == ROOT / "runs" / "esc10" / "cpu" and (ROOT / "notebooks").is_dir()


def test_thinning_keeps_every_label_and_fold_and_needs_no_order(table):
    few = thin(table, 12)
    assert len(few) == few.groupby(["label", "fold"]).ngroups == 9
    pd.testing.assert_frame_equal(few, thin(table.sort_index(ascending=False), 12))
    assert thin(table, None) is table and len(thin(table, 27)) == 27


@pytest.mark.parametrize(
    ("asked", "argument", "number"), [("3", None, 3), ("", 3, 3), ("2", 3, 3), ("", None, None)]
)
def test_seeds_count_from_0_and_nothing_else_changes(monkeypatch, asked, argument, number):
    monkeypatch.setenv("SEEDS", asked)
    profile = get_profile("cpu", "fsdd")
    expected = replace(profile, seeds=tuple(range(number))) if number else profile
    assert open_experiment("fsdd", "cpu", argument).profile == expected
