"""What a person types: the data set, the profile, the variant; and what a wrong word gets."""

from dataclasses import replace

import pandas as pd
import pytest

from freesound_tagging import cli
from freesound_tagging import experiment as experiments
from freesound_tagging.experiment import open_experiment, thin
from freesound_tagging.learning.profiles import PROFILES, get_profile
from freesound_tagging.sounds.catalogue import NAMES


@pytest.fixture(autouse=True)
def work_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path / "work"))


def only_error(capsys) -> str:
    """Return the one line that was printed, on stderr."""
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


def test_unknown_data_set_lists_the_known_ones(capsys):
    assert cli.main(["run", "--dataset", "nonesuch", "--profile", "smoke"]) == 2
    said = only_error(capsys)
    assert "DATASET 'nonesuch'" in said
    assert all(name in said for name in NAMES)
    assert ".csv" in said


def test_unknown_profile_lists_the_known_ones(capsys):
    assert cli.main(["run", "--dataset", "microcalls", "--profile", "tpu"]) == 2
    said = only_error(capsys)
    assert "PROFILE 'tpu'" in said
    assert all(name in said for name in PROFILES)


def test_a_table_that_is_not_there_is_named(capsys, tmp_path):
    assert cli.main(["run", "--dataset", str(tmp_path / "mine.csv"), "--profile", "smoke"]) == 2
    assert "mine.csv" in only_error(capsys)


def test_a_fault_in_a_table_names_its_line(capsys, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "mine.csv").write_text("file,label\na.wav,x\na.wav,x\n")
    assert cli.main(["run", "--dataset", str(tmp_path / "mine.csv"), "--profile", "smoke"]) == 2
    said = only_error(capsys)
    assert "mine.csv" in said and "line 3" in said


def test_an_unknown_representation_of_a_model_is_told_before_any_sound_is_read(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    command = ["model", "--dataset", "microcalls", "--representation", "log_bd"]
    assert cli.main(command) == 2
    assert "unknown representation 'log_bd'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_scores_of_the_smoke_profile_are_not_published(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    for study in ([], ["--study", "controls"]):
        command = ["publish", "--dataset", "microcalls", "--profile", "smoke", *study]
        assert cli.main(command) == 2
        assert "say nothing; publish another" in capsys.readouterr().err


def test_folders_of_a_data_set_and_of_a_table(tmp_path):
    named, own = (open_experiment(name, "cpu") for name in ("esc10", str(tmp_path / "birds.csv")))
    assert named.run_folder.parts[-3:] == ("runs", "esc10", "cpu")
    assert own.run_folder.parts[-3:] == ("runs", "birds", "cpu")
    assert own.store_folder.name == "birds"
    assert own.results_folder.name == "birds"


def test_results_that_are_not_there_say_how_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setattr(experiments.Experiment, "run_folder", property(lambda self: tmp_path))
    with pytest.raises(FileNotFoundError, match="make run DATASET=esc10 PROFILE=smoke"):
        open_experiment("esc10", "smoke").load_results()


def test_thinning_keeps_every_label_and_fold(table):
    few = thin(table, 12)
    assert len(few) == 9
    assert few.groupby(["label", "fold"]).ngroups == 9
    assert thin(table, None) is table
    assert len(thin(table, 27)) == 27


def test_thinning_takes_the_same_clips_from_any_order(table):
    first, second = thin(table.sort_index(), 12), thin(table.iloc[::-1], 12)
    pd.testing.assert_frame_equal(first, second)


# --- seeds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "seeds"), [("1", (0,)), ("2", (0, 1)), ("5", (0, 1, 2, 3, 4))])
def test_seeds_of_the_environment_count_from_0(monkeypatch, asked, seeds):
    monkeypatch.setenv("SEEDS", asked)
    profile = open_experiment("fsdd", "cpu").profile
    assert profile.seeds == seeds
    # Nothing else changes, the data set's adjustments among it.
    assert replace(profile, seeds=(0,)) == get_profile("cpu", "fsdd")


@pytest.mark.parametrize("asked", [None, ""])
def test_without_a_word_on_seeds_the_profile_says(monkeypatch, asked):
    if asked is None:
        monkeypatch.delenv("SEEDS", raising=False)
    else:
        monkeypatch.setenv("SEEDS", asked)
    for name in PROFILES:
        assert open_experiment("esc10", name).profile == get_profile(name, "esc10")


@pytest.mark.parametrize("asked", ["0", "x", "-1", "1.5", "2 "])
def test_seeds_that_are_no_number_are_refused_before_any_work(monkeypatch, capsys, tmp_path, asked):
    monkeypatch.setenv("SEEDS", asked)
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    with pytest.raises(ValueError, match=f"SEEDS must be a whole number of 1 or more, .*{asked!r}"):
        _ = open_experiment("microcalls", "smoke").profile
    assert cli.main(["run", "--dataset", "microcalls", "--profile", "smoke"]) == 2
    assert "SEEDS" in only_error(capsys)
    assert not list(tmp_path.iterdir())
