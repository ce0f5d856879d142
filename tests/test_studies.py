"""Studies change what they name and nothing else; settings are chosen without what judges them."""

import json
import re
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freesound_tagging import cli
from freesound_tagging.features.variants import CONTROL_VARIANTS, VARIANTS, get_variant
from freesound_tagging.learning.learner import OPTIMIZERS
from freesound_tagging.learning.profiles import PROFILES
from freesound_tagging.runs import run as run_module
from freesound_tagging.runs import studies
from freesound_tagging.runs.experiment import open_experiment
from freesound_tagging.runs.grid import RESULT_COLUMNS, plan_runs
from freesound_tagging.runs.questions import COMPARED, STUDIES, TAGGER_STEPS, Condition
from freesound_tagging.runs.studies import (
    choose_trials,
    digit_and_speaker,
    load_study_scores,
    open_study,
    pair_of,
    run_study,
    study_folder,
)
from freesound_tagging.scoring.metrics import KEYS
from freesound_tagging.sounds.archives import read_manifest
from freesound_tagging.sounds.catalogue import NAMES

ASKED = [
    (study, dataset)
    for study, asked in STUDIES.items()
    for dataset in asked.datasets
    if dataset in NAMES and asked.profile in PROFILES
]
CLASSES = ["a", "b", "c", "d"]
TRIALS = {condition.name: condition.settings for condition in STUDIES["trials"].conditions}
TAGGER = {condition.name: condition for condition in STUDIES["tagger"].conditions}
STEPS = TAGGER_STEPS["tagger"]


def inner_scores(table: pd.DataFrame, variants, n_trials: int, seed: int = 0) -> dict:
    """Return scores of trials as `plan_trials` makes them: of each pair of folds, held out."""
    generator = np.random.default_rng(seed)
    folds = sorted(table["fold"].unique())
    classes = sorted(table["label"].unique())
    trials = {}
    for trial in range(n_trials):
        trials[f"trial{trial:02d}"] = {}
        for variant in variants:
            frames = []
            for pair, first in enumerate(folds):
                rows = table[table["fold"].isin(pair_of(first, folds))]
                frame = pd.DataFrame({"clip_id": rows.index, "seed": 0, "fold": pair})
                frame["label"] = rows["label"].to_numpy()
                frame[classes] = generator.dirichlet(np.ones(len(classes)), len(rows))
                frames.append(frame)
            trials[f"trial{trial:02d}"][variant] = pd.concat(frames, ignore_index=True)
    return trials


@pytest.fixture
def planned(plan_study, monkeypatch):
    """Plan any study, those that choose settings as if the trials had been run."""

    def plan(study: str, dataset: str):
        table = open_experiment(dataset, "cpu").load_table()
        if study == "tuned":
            trials = inner_scores(table, COMPARED, len(TRIALS))
            monkeypatch.setattr(studies, "load_study_scores", lambda *given, **options: trials)
        if study == "optimizers":
            tried = STUDIES["optimizer_trials"].conditions
            made = inner_scores(table, tried[0].variants, len(tried)).values()
            named = dict(zip((trial.name for trial in tried), made, strict=True))
            monkeypatch.setattr(studies, "load_study_scores", lambda *given, **options: named)
        return plan_study(study, dataset)

    return plan


def runs_of(cells) -> list:
    return [run for cell in cells for run in cell.runs]


def changes(profile, base) -> dict:
    """Return the settings in which a profile differs from another; seeds are how many runs."""
    before = asdict(base)
    return {
        name: value
        for name, value in asdict(profile).items()
        if value != before[name] and name != "seeds"
    }


def grid_changes(profile, base) -> dict:
    changed = changes(profile, base)
    assert changed.keys() <= {"grid"}
    before = asdict(base.grid)
    return {name: value for name, value in asdict(profile.grid).items() if value != before[name]}


def is_main(run, experiment) -> bool:
    """Say whether a run is one of the main grid's."""
    return run.place.is_relative_to(experiment.run_folder / "runs")


# --- what is asked -----------------------------------------------------------------------------


def test_unknown_study_lists_the_known_ones(capsys):
    with pytest.raises(ValueError, match="unknown STUDY 'nonesuch'") as caught:
        run_study(open_experiment("microcalls", "cpu"), "nonesuch")
    assert all(study in str(caught.value) for study in STUDIES)
    assert cli.main(["study", "--dataset", "microcalls", "--study", "nonesuch"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1 and said.err.startswith("error: unknown STUDY")


@pytest.mark.parametrize("study", STUDIES)
def test_a_data_set_that_is_not_asked_is_told_which_are(study, capsys):
    asked = STUDIES[study].datasets
    dataset = next(name for name in ("fsdd", "esc10", "microcalls") if name not in asked)
    with pytest.raises(ValueError, match=f"STUDY={study} is asked on .*, not on {dataset}") as said:
        run_study(open_experiment(dataset, "cpu"), study)
    assert all(name in str(said.value) for name in asked)
    assert cli.main(["study", "--dataset", dataset, "--study", study]) == 2
    assert f"STUDY={study}" in capsys.readouterr().err


def test_unknown_data_set_and_a_bad_number_of_seeds_are_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    assert cli.main(["study", "--dataset", "nonesuch", "--study", "controls"]) == 2
    monkeypatch.setenv("SEEDS", "many")
    assert cli.main(["study", "--dataset", "microcalls", "--study", "difficulty"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "DATASET 'nonesuch'" in first
    assert "SEEDS" in second and "'many'" in second
    assert not list(tmp_path.iterdir())


def test_no_profile_makes_its_runs_where_another_has_its_own():
    folders = {study_folder(open_study("esc10", "controls", name), "controls") for name in PROFILES}
    assert len(folders) == len(PROFILES)


# --- plans -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("study", "dataset"), ASKED)
def test_every_run_of_a_plan_can_be_made(planned, study, dataset):
    experiment, cells = planned(study, dataset)
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    runs = runs_of(cells)
    assert len({run.place for run in runs}) == len(runs)  # no run writes over another
    for run in runs:
        assert run.store.grid == run.profile.grid
        assert set(get_variant(run.variant).channels) <= set(run.store.places)
        assert set(run.table.index) <= set(run.store.places[get_variant(run.variant).channels[0]])
        held_out = run.table["fold"] == run.fold
        assert held_out.any()
        assert set(run.table.loc[~held_out, "label"]) == set(run.table["label"])
        assert run.profile.optimizer in OPTIMIZERS
        assert (run.dataset, run.profile_name) == (dataset, STUDIES[study].profile)
        own = study_folder(experiment, study)
        assert run.place.is_relative_to(own) or is_main(run, experiment)
    for cell in cells:  # scores are looked for by the cell's name, else among the main grid's
        if cell.runs[0].place.is_relative_to(study_folder(experiment, study)):
            places = {run.place.parents[2] for run in cell.runs}
            assert places == {study_folder(experiment, study) / cell.name}
        else:
            assert all(is_main(run, experiment) for run in cell.runs)
    assert not experiment.run_folder.exists()  # a plan trains nothing


@pytest.mark.parametrize(("study", "dataset"), ASKED)
def test_runs_of_the_main_grid_are_the_ones_that_make_run_makes(planned, study, dataset):
    experiment, cells = planned(study, dataset)
    mine = [run for run in runs_of(cells) if is_main(run, experiment)]
    if not mine:
        return
    table = experiment.load_table()
    profile = replace(experiment.profile, seeds=tuple({run.seed for run in mine}))
    usual = plan_runs(
        table,
        experiment.build_store(table),
        list(VARIANTS),
        profile,
        experiment.run_folder,
        dataset=experiment.name,
        profile_name=experiment.profile_name,
    )
    assert {(run.place, run.key) for run in mine} <= {(run.place, run.key) for run in usual}


@pytest.mark.parametrize("dataset", STUDIES["controls"].datasets)
def test_a_control_undoes_what_it_is_named_for_and_nothing_else(planned, dataset):
    experiment, cells = planned("controls", dataset)
    base, table = experiment.profile, experiment.load_table()
    by_name = {cell.name: cell for cell in cells}
    assert {run.variant for run in by_name["matched"].runs} == set(CONTROL_VARIANTS)
    assert {run.variant for run in by_name["grid"].runs} <= set(VARIANTS)
    unmoved = {run.variant for run in by_name["unmoved"].runs}
    assert {name.replace("gabor", "hires") for name in unmoved} == {
        run.variant for run in by_name["grid"].runs if run.variant.startswith("hires")
    }
    assert set(COMPARED) <= {run.variant for run in by_name["grid"].runs}
    units = {"hop": ("hop_length", (197, 512)), "bins": ("bins_per_octave", (13.0, 26.2))}
    for name, cell in by_name.items():
        expected = {}
        if name not in ("grid", "matched", "unmoved"):
            kind, number = name.split("_")
            setting, values = units[kind]
            expected = {setting: next(value for value in values if int(value) == int(number))}
        for run in cell.runs:
            assert grid_changes(run.profile, base) == expected, name
            pd.testing.assert_frame_equal(run.table, table)
        assert all(is_main(run, experiment) for run in cell.runs) == (name in ("grid", "unmoved"))
    # Whatever the data set's own grid, there is one with each hop and each number of rows.
    grids = [cell.runs[0].profile.grid for cell in cells]
    assert {197, 394, 512} <= {grid.hop_length for grid in grids}
    assert {13.0, 26.2} <= {grid.bins_per_octave for grid in grids}
    # All are compared on the same folds and seeds.
    assert len({tuple(sorted({(r.fold, r.seed) for r in cell.runs})) for cell in cells}) == 1


@pytest.mark.parametrize(
    ("study", "values", "option", "unit"),
    [
        ("difficulty", (0.5, 1.0, 2.0, 4.0), "difficulty", ""),
        ("noise", (-9.0, -1.0, 7.0, 21.0), "snr_db", "dB"),
    ],
)
def test_other_sounds_are_the_same_clips_in_the_same_networks(planned, study, values, option, unit):
    experiment, cells = planned(study, "microcalls")
    assert [float(cell.name.removesuffix(unit)) for cell in cells] == list(values)
    base, usual = experiment.profile, experiment.load_table()
    keys = set()
    for cell, value in zip(cells, values, strict=True):
        assert {run.variant for run in cell.runs} == set(COMPARED)
        assert all(changes(run.profile, base) == {} for run in cell.runs)
        # All points of a curve are of the same clips.
        assert {run.fold for run in cell.runs} == {0, 1, 2}
        assert {run.seed for run in cell.runs} == {0, 1, 2}
        (table,) = {id(run.table): run.table for run in cell.runs}.values()
        pd.testing.assert_frame_equal(table.drop(columns="path"), usual.drop(columns="path"))
        as_it_is = study == "difficulty" and value == 1
        assert all(is_main(run, experiment) for run in cell.runs) == as_it_is
        said = dict(re.findall(r"(\w+)=([-\d.]+)", table["path"].iloc[0]))
        assert int(said.pop("clips_per_class")) == base.clips_per_class
        assert {name: float(number) for name, number in said.items()} == (
            {} if as_it_is else {option: value}
        )
        keys |= {run.key for run in cell.runs}
    assert len(keys) == len(cells) * len(COMPARED)  # no cell takes another's runs for its own


def test_digits_and_speakers_are_told_in_the_main_grids_networks(planned):
    experiment, (cell,) = planned("speakers", "fsdd")
    assert {run.variant for run in cell.runs} == set(COMPARED)
    for run in cell.runs:
        assert changes(run.profile, experiment.profile) == {}
        assert run.table["label"].nunique() == 60
    assert {run.fold for run in cell.runs} == set(range(5))


def test_speech_is_trained_longer_and_changed_in_nothing_else(planned):
    experiment, cells = planned("speech", "fsdd")
    for cell in cells:
        expected = {"epochs": 20} if cell.name == "longer" else {}
        assert all(changes(run.profile, experiment.profile) == expected for run in cell.runs)
        assert {run.fold for run in cell.runs} == set(range(6))
    assert experiment.profile.epochs < 20


@pytest.mark.parametrize("study", ["pretrained_tagger", "insect_tagger"])
def test_every_step_of_the_pretrained_taggers_keeps_what_those_before_added(study):
    conditions = STUDIES[study].conditions
    assert [condition.name for condition in conditions] == list(TAGGER_STEPS[study])
    for before, after in pairwise(conditions):
        assert before.variants[0] == after.variants[0]
        assert before.grid.items() <= after.grid.items()
        assert before.settings.keys() <= after.settings.keys()
        again = {name for name, value in before.settings.items() if after.settings[name] != value}
        assert again <= {"epochs"}
        assert (before.grid, before.settings) != (after.grid, after.settings)


def test_every_step_of_the_tagger_adds_what_it_declares_to_those_before(planned):
    experiment, cells = planned("tagger", "esc10")
    assert [cell.name for cell in cells] == list(STEPS)
    base = experiment.profile
    before = base
    for cell, (name, words) in zip(cells, STEPS.items(), strict=True):
        declared = TAGGER[name].settings
        assert {run.variant for run in cell.runs} == set(TAGGER[name].variants)
        assert {run.fold for run in cell.runs} == set(range(5))
        (profile,) = {replace(run.profile, seeds=()) for run in cell.runs}
        changed = changes(profile, before)
        assert changed.pop("grid", None) == (
            asdict(replace(before.grid, duration=5.0)) if name == "crops" else None
        )
        assert len(changed) <= (2 if name == "plain" else 1)  # against the profile, with them all
        for setting, word in (("epochs", "epochs"), ("width", "channels in")):
            if word in words:
                factor = {"twice": 2, "half": 1.5}[words.split()[0]]
                assert declared[setting] == factor * getattr(before, setting)
        before = profile
    # A crop is as long as the pictures were before.
    assert profile.crop * profile.grid.duration == pytest.approx(base.grid.duration)
    # Where all augmentation is on, the network is the main grid's, which is not trained again.
    assert [cell.name for cell in cells if is_main(cell.runs[0], experiment)] == ["mixup", "stack"]
    seeds = [{run.seed for run in cell.runs} for cell in cells]
    assert all(own == {0} for own in seeds[:-1])
    assert seeds[-1] == {0, 1, 2}  # to be averaged


# --- trials ------------------------------------------------------------------------------------


def test_every_trial_is_another_setting_and_the_first_is_the_default():
    trials = list(TRIALS.values())
    assert len({tuple(sorted(trial.items())) for trial in trials}) == len(trials)
    profile = open_experiment("esc10", "cpu").profile
    assert changes(replace(profile, **trials[0]), profile).keys() == {"epochs"}
    assert {trial["optimizer"] for trial in trials} == set(OPTIMIZERS)
    for optimizer in OPTIMIZERS:  # each gets as many chances
        own = [trial for trial in trials if trial["optimizer"] == optimizer]
        assert len(own) == len(TRIALS) / len(OPTIMIZERS)
        assert {trial["mixup"] > 0 for trial in own} == {True, False}


def test_a_trial_never_trains_on_what_it_is_scored_on(planned):
    experiment, cells = planned("trials", "esc10")
    table = experiment.load_table()
    assert len(cells) == len(TRIALS)
    for cell, expected in zip(cells, TRIALS.values(), strict=True):
        for variant in COMPARED:
            runs = [run for run in cell.runs if run.variant == variant]
            held_out = []
            for run in runs:
                assert run.keep_diverged
                own = run.table.index[run.table["fold"] == run.fold]
                folds = set(table.loc[own, "fold"])
                assert set(own) == set(table.index[table["fold"].isin(folds)])  # whole folds
                assert folds == {*pair_of(run.fold, range(5))}
                trained = run.table.index[run.table["fold"] != run.fold]
                assert not folds & set(table.loc[trained, "fold"])
                assert not set(table.loc[own, "group"]) & set(table.loc[trained, "group"])
                held_out += sorted(folds)
            assert Counter(held_out) == dict.fromkeys(range(5), 2)
        for run in cell.runs:
            assert all(getattr(run.profile, name) == value for name, value in expected.items())
            assert changes(run.profile, experiment.profile).keys() <= expected.keys()


@given(
    st.lists(st.integers(-5, 50), min_size=2, max_size=9, unique=True).map(sorted),
)
def test_pairs_are_neighbours_and_cover_every_fold_twice(folds):
    pairs = [pair_of(fold, folds) for fold in folds]
    assert Counter(fold for pair in pairs for fold in pair) == dict.fromkeys(folds, 2)
    for (first, second), (following, _) in zip(pairs, [*pairs[1:], pairs[0]], strict=True):
        assert first != second
        assert second == following


@pytest.fixture(scope="module")
def outer() -> pd.DataFrame:
    """Five folds of eight clips in four classes."""
    rows = [
        (f"{fold}-{take}-{label}", label, fold)
        for fold in range(5)
        for take in range(2)
        for label in CLASSES
    ]
    return pd.DataFrame(rows, columns=["clip_id", "label", "fold"]).set_index("clip_id")


def own_folds(scores: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    return scores["clip_id"].map(table["fold"]).to_numpy()


def judges(scores: pd.DataFrame, table: pd.DataFrame, fold: int) -> np.ndarray:
    """Return which scores may choose for a fold: of other clips, by runs that left it out."""
    left_out = [fold in pair_of(pair, range(5)) for pair in scores["fold"]]
    return np.array(left_out) & (own_folds(scores, table) != fold)


def spoil(scores: pd.DataFrame, rows: np.ndarray, how: str, seed: int) -> pd.DataFrame:
    """Return the scores with some rows shuffled, perfect, or quite wrong."""
    changed = scores.copy()
    values = scores.loc[rows, CLASSES].to_numpy()
    if how == "shuffled":
        values = np.random.default_rng(seed).permuted(values, axis=1)
    else:
        right = scores.loc[rows, "label"].to_numpy()[:, None] == np.array(CLASSES)[None, :]
        values = np.where(right, 0.97, 0.01) if how == "perfect" else np.where(right, 0.01, 0.33)
    changed.loc[rows, CLASSES] = values
    return changed


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    fold=st.integers(0, 4),
    whose=st.sampled_from(["its own clips", "all but the judges"]),
    how=st.lists(st.sampled_from(["shuffled", "perfect", "wrong"]), min_size=3, max_size=3),
)
def test_no_score_of_a_folds_own_clips_moves_its_choice(outer, seed, fold, whose, how):
    trials = inner_scores(outer, ["log_db", "hires_q8"], 3, seed)
    before = choose_trials(trials, outer)
    changed = {}
    for (name, variants), way in zip(trials.items(), how, strict=True):
        changed[name] = {}
        for variant, scores in variants.items():
            rows = own_folds(scores, outer) == fold
            if whose == "all but the judges":
                rows = ~judges(scores, outer, fold)
            changed[name][variant] = spoil(scores, rows, way, seed)
            assert not changed[name][variant].equals(scores)
    after = choose_trials(changed, outer)
    pd.testing.assert_frame_equal(after[after["fold"] == fold], before[before["fold"] == fold])


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), fold=st.integers(0, 4), best=st.integers(0, 2))
def test_the_judges_choose(outer, seed, fold, best):
    trials = inner_scores(outer, ["log_db", "hires_q8"], 3, seed)
    before = choose_trials(trials, outer)
    changed = {name: dict(variants) for name, variants in trials.items()}
    for number, (name, variants) in enumerate(trials.items()):
        scores = variants["hires_q8"]
        how = "perfect" if number == best else "wrong"
        changed[name]["hires_q8"] = spoil(scores, judges(scores, outer, fold), how, seed)
    after = choose_trials(changed, outer)
    (chosen,) = after[(after["variant"] == "hires_q8") & (after["fold"] == fold)].itertuples()
    assert (chosen.trial, chosen.inner_score) == (f"trial{best:02d}", 1.0)
    other = after["variant"] == "log_db"
    pd.testing.assert_frame_equal(after[other], before[other])


def test_a_trial_that_is_best_everywhere_is_chosen_everywhere(outer):
    trials = inner_scores(outer, COMPARED, 4)
    everything = np.ones(len(trials["trial02"]["log_db"]), dtype=bool)
    for variant in COMPARED:
        trials["trial02"][variant] = spoil(trials["trial02"][variant], everything, "perfect", 0)
    choices = choose_trials(trials, outer)
    assert choices.columns.tolist() == ["variant", "fold", "trial", "inner_score", "inner_clips"]
    assert set(choices["trial"]) == {"trial02"}
    assert Counter(choices["variant"]) == dict.fromkeys(COMPARED, 5)
    assert (choices.groupby("variant")["fold"].apply(list).map(tuple) == tuple(range(5))).all()
    assert (choices["inner_clips"] == 16).all()  # two folds of eight clips, each once


def test_of_equal_trials_the_first_is_taken(outer):
    trials = inner_scores(outer, ["log_db"], 1)
    equal = {name: trials["trial00"] for name in ("trial05", "trial01", "trial03")}
    assert set(choose_trials(equal, outer)["trial"]) == {"trial05"}


def test_tuned_runs_take_the_settings_that_were_chosen_for_their_fold(planned):
    experiment, (grid, tuned) = planned("tuned", "esc10")
    assert (grid.name, tuned.name) == ("grid", "tuned")
    trials = studies.load_study_scores(experiment, "trials")
    table = experiment.load_table()
    choices = choose_trials(trials, table).set_index(["variant", "fold"])["trial"]
    assert len({*choices}) > 3  # it can go wrong
    assert len(tuned.runs) == len(COMPARED) * 5
    for run in tuned.runs:
        trial = {**TRIALS[choices[run.variant, run.fold]], "epochs": experiment.profile.epochs}
        assert all(getattr(run.profile, name) == value for name, value in trial.items())
        assert changes(run.profile, experiment.profile).keys() <= trial.keys()
        pd.testing.assert_frame_equal(run.table, table)  # trained on all other folds, in full
    pairs = [{(run.variant, run.fold, run.seed) for run in cell.runs} for cell in (grid, tuned)]
    assert pairs[0] == pairs[1]


# --- digits and speakers -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken() -> pd.DataFrame:
    """All clips of FSDD, as its manifest lists them, in no particular order."""
    clip_ids = [PurePosixPath(file).stem for file in read_manifest("fsdd")]
    table = pd.DataFrame({"clip_id": clip_ids, "path": "", "split": "train", "verified": True})
    table["label"] = table["clip_id"].str[0]
    table["fold"] = table["group"] = -1
    return table.set_index("clip_id").sample(frac=1, random_state=0)


def test_sixty_classes_of_digit_and_speaker_in_every_fold(spoken):
    table = digit_and_speaker(spoken)
    assert table.index.equals(spoken.index)
    assert table["label"].nunique() == 60
    assert sorted(table["fold"].unique()) == [0, 1, 2, 3, 4]
    each = table.groupby(["label", "fold"]).size()
    assert len(each) == 300
    assert each.nunique() == 1
    assert (table["group"] == table.index).all()
    for clip_id, row in table.iloc[::50].iterrows():
        digit, speaker, take = clip_id.split("_")
        assert row["label"] == f"{digit} {speaker}"
        assert row["fold"] == int(take) % 5
    assert table["path"].equals(spoken["path"])


# --- from sounds to scores ---------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Two difficulties, two variants and two folds of a few generated clips, on this core alone."""
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    monkeypatch.delenv("SEEDS", raising=False)
    monkeypatch.setitem(PROFILES, "smoke", replace(PROFILES["smoke"], clips_per_class=2))
    conditions = tuple(
        Condition(name, ("log_db", "hires_q8"), sounds=sounds, folds=2)
        for name, sounds in (("1", {}), ("4", {"difficulty": 4.0}))
    )
    short = replace(STUDIES["difficulty"], conditions=conditions, profile="smoke", seeds=1)
    monkeypatch.setitem(STUDIES, "difficulty", short)
    return open_study("microcalls", "difficulty")


def test_a_study_has_its_own_seeds_or_as_many_as_are_asked_for(monkeypatch):
    monkeypatch.delenv("SEEDS", raising=False)
    assert open_study("microcalls", "recipe").profile.seeds == (0,)
    monkeypatch.setenv("SEEDS", "2")
    assert open_study("microcalls", "recipe").profile.seeds == (0, 1)
    assert open_study("microcalls", "recipe", seeds=3).profile.seeds == (0, 1, 2)


def test_a_study_is_made_once_and_goes_on_where_it_was(tiny, monkeypatch, capsys):
    with pytest.raises(FileNotFoundError, match="make study DATASET=microcalls STUDY=difficulty"):
        load_study_scores(tiny, "difficulty")
    results = run_study(tiny, "difficulty", progress=False)
    assert list(results.columns) == ["cell", *RESULT_COLUMNS]
    cells, variants, folds = ("1", "4"), ("log_db", "hires_q8"), (0, 1)
    order = [(cell, name, fold) for cell in cells for name in variants for fold in folds]
    found = zip(results["cell"], results["variant"], results["fold"], strict=True)
    assert list(found) == order
    file = study_folder(tiny, "difficulty") / "results.csv"
    pd.testing.assert_frame_equal(pd.read_csv(file, dtype={"cell": str}), results)

    scores = load_study_scores(tiny, "difficulty")
    assert [(cell, name) for cell, own in scores.items() for name in own] == [
        (cell, name) for cell in cells for name in variants
    ]
    table = tiny.load_table()
    labels = sorted(table["label"].unique())
    for own in scores.values():
        for frame in own.values():
            assert list(frame.columns) == [*KEYS, *labels]
            assert sorted(frame["clip_id"]) == sorted(table.index[table["fold"].isin(folds)])
    assert not scores["1"]["log_db"].equals(scores["4"]["log_db"])  # other sounds
    grid, easier = (tiny.run_folder / "runs", study_folder(tiny, "difficulty") / "4")
    runs = {path: path.read_bytes() for root in (grid, easier) for path in root.rglob("*.csv")}
    assert len(runs) == len(order)
    assert sum(path.is_relative_to(grid) for path in runs) == 4  # difficulty 1 is the main grid

    # Killed in the middle: one run and the table of results are missing.
    (easier / "runs" / "hires_q8" / "fold1-seed0.json").unlink()
    file.unlink()
    original, made = run_module.train_and_score, []

    def noted(table, store, variant, fold, seed, *others, **options):
        made.append((variant, fold, seed))
        return original(table, store, variant, fold, seed, *others, **options)

    monkeypatch.setattr(run_module, "train_and_score", noted)
    again = run_study(tiny, "difficulty", progress=False)
    assert made == [("hires_q8", 1, 0)]
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), results.drop(columns="seconds"))
    assert {path: path.read_bytes() for path in runs} == runs
    record = json.loads((easier / "runs" / "hires_q8" / "fold1-seed0.json").read_text())
    assert record["row"]["variant"] == "hires_q8"

    # As a person calls it: nothing is left to do, and the table is printed.
    capsys.readouterr()
    assert cli.main(["study", "--dataset", "microcalls", "--study", "difficulty"]) == 0
    assert len(made) == 1
    said = capsys.readouterr().out
    assert all(word in said for word in ("hires_q8", "log_db", "map3"))
