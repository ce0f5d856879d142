"""Each study runs at its smallest; tables come from committed scores, and bad ones are named."""

import gzip
import io
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from freesound_tagging.errors import DataError
from freesound_tagging.scoring.metrics import clip_metrics
from freesound_tagging.sounds.microcalls import CALLS, FAMILIES
from results import recompute
from studies import again, common, grid, plan, rates, schedule, stack, tagger, waveform
from studies.scores import pack, read

CALL = next(iter(CALLS))
CLASSES = ["cricket", "NA", "rain, far"]


def scores_of(skill: float, seeds: int = 3, draw: int = 0) -> pd.DataFrame:
    """Return out-of-fold scores of 24 clips: greater skill, fewer errors."""
    clip, random, frames = np.arange(24), np.random.default_rng(draw), []
    keys = pd.DataFrame({"clip_id": [f"clip{i:02d}" for i in clip], "seed": 0})
    keys = keys.assign(fold=clip % 2, label=np.array(CLASSES)[clip % 3])
    for seed in range(seeds):
        logits = random.standard_normal((24, 3)) + skill * np.eye(3)[clip % 3]
        values = pd.DataFrame(softmax(logits, axis=1), columns=CLASSES)
        frames.append(keys.assign(seed=seed).join(values))
    return pd.concat(frames, ignore_index=True)


def write(folder: Path, **scores: pd.DataFrame) -> None:
    """Write a folder of results, and the clips of its data set."""
    (folder / "scores").mkdir(parents=True)
    made = {"transform": version("spectral-hyperresolution")}
    (folder / "settings.json").write_text(json.dumps(made))
    for name, frame in scores.items():
        (folder / "scores" / f"{name}.csv.gz").write_bytes(pack(frame))


@pytest.fixture
def results(tmp_path) -> Path:
    """Results of one data set: a grid, a study, and the rows of two runs."""
    made = {"log_db": scores_of(1), "mel_db": scores_of(1, draw=1), "hires_q2": scores_of(9, 4)}
    write(tmp_path / "esc10" / "pretrained", **made)
    write(tmp_path / "esc10" / "pretrained" / "rates", slower_early_layers=scores_of(0))
    clips = scores_of(0, 1).set_index("clip_id")[["label", "fold"]]
    clips.assign(group=clips.index).to_csv(tmp_path / "esc10" / "clips.csv")
    rows = pd.DataFrame({"variant": "log_db", "fold": [0, 1], "seconds": [60.0, 120.0]})
    rows = rows.assign(machine="a desk")
    rows.to_csv(tmp_path / "esc10" / "pretrained" / "runs.csv", index=False)
    return tmp_path


def test_packed_scores_keep_every_metric_and_every_name():
    scores = scores_of(0.5, 3)
    scores.loc[0, CLASSES] = [0.1234567, 0.1234571, 0.7]  # equal at five digits
    scores.loc[0, "label"] = "NA"
    packed = pack(scores.sample(frac=1, random_state=0))
    assert packed == pack(scores)
    text = gzip.decompress(packed).decode()
    order = ["seed", "clip_id"]
    back = read(io.StringIO(text)).sort_values(order, ignore_index=True)
    before, after = (clip_metrics(f) for f in (scores.sort_values(order, ignore_index=True), back))
    pd.testing.assert_frame_equal(after, before, rtol=1e-4)
    exact = ["label", "top1_accuracy", "top3_error", "map3"]
    pd.testing.assert_frame_equal(after[exact], before[exact], check_exact=True)


def test_every_table_is_made_from_the_scores(results):
    tables = recompute.recompute(results)
    contrasts = tables["contrasts esc10/pretrained"]
    assert contrasts[["variant", "reference"]].to_numpy().tolist() == [["hires_q2", "log_db"]]
    assert contrasts.loc[0, "seeds"] == 3 and contrasts.loc[0, "verdict"] == "better"
    assert contrasts.loc[0, "p_holm"] == pytest.approx(11 * contrasts.loc[0, "p"])
    summary = tables["summary esc10/pretrained"].set_index("variant")
    assert summary.loc["hires_q2", ["n", "seeds"]].tolist() == [24, 4]
    assert summary.loc["log_db", "minus_log_db"] == 0
    rates = tables["conditions esc10/pretrained/rates"]
    assert rates["condition"].tolist() == ["slower_early_layers", "log_db"]
    assert rates.loc[0, "difference"] < 0 and pd.isna(rates.loc[1, "difference"])
    assert tables["tagger esc10"].loc[0, "seeds"] == 1
    costs = tables["costs ."].loc[0]
    assert (costs["runs"], costs["minutes_a_run"], costs["hours"]) == (2, 1.5, 0.05)
    assert (results / "differences.png").stat().st_size > 5000
    before = {file: file.read_bytes() for file in results.rglob("*.*")}
    recompute.recompute(results)
    assert {file: file.read_bytes() for file in results.rglob("*.*")} == before


def test_pages_show_the_tables_and_keep_their_words(results):
    tables = recompute.recompute(results)
    tables |= recompute.tables_of_pages(tables)
    page = "before\n<!-- table: answer -->\nold\n<!-- end of table -->\nafter"
    filled = recompute.fill_in(page, tables)
    assert "old" not in filled and filled.startswith("before") and filled.endswith("after")
    row = next(line for line in filled.splitlines() if line.startswith("| hires_q2"))
    level = tables["summary esc10/pretrained"].set_index("variant").at["hires_q2", "top1_accuracy"]
    assert f"**{level:.3f}**" in row  # better than log dB's
    assert "| people | 0.957 |" in filled
    assert recompute.fill_in(filled, tables) == filled
    with pytest.raises(DataError, match="no table 'answers'; the known ones are: summary esc10"):
        recompute.fill_in(page.replace("answer", "answers"), tables)


def test_microcalls_are_compared_by_what_sets_them_apart():
    detail = {name: FAMILIES[call.family] for name, call in CALLS.items()}
    table = pd.DataFrame({"detail": detail})
    labels = np.repeat(table.index, 4)
    keys = {"clip_id": [f"c{i:03d}" for i in range(len(labels))], "fold": 0, "label": labels}
    clips = pd.DataFrame(keys).assign(group=keys["clip_id"]).set_index("clip_id")
    right = labels.map(table["detail"]) == "time"

    def made(right):
        hit = np.where(right, labels, np.roll(table.index, 1)[table.index.get_indexer(labels)])
        values = pd.DataFrame((hit[:, None] == table.index.to_numpy()) + 0.01, columns=table.index)
        one = pd.DataFrame(keys).assign(seed=0).join(values)
        return pd.concat([one.assign(seed=seed) for seed in range(3)])

    scores = {"hires_q2": made(right), "log_db": made(~right)}
    own = recompute.compare_planned("microcalls", "cpu", scores, clips).set_index("classes")
    assert own["difference"].to_dict() == {"all": 0, "frequency": -1, "time": 1}
    assert own["verdict"].to_dict() == {
        "all": "no difference found",
        "frequency": "worse",
        "time": "better",
    }
    assert own.loc["time", "p_holm"] == pytest.approx(15 * own.loc["time", "p"])
    scores |= {"hires_q2_smooth": scores["log_db"]}  # asked later: causes are judged apart
    both = recompute.compare_planned("microcalls", "cpu", scores, clips).set_index("classes")
    causes = both[both["variant"] == "hires_q2_smooth"]
    pd.testing.assert_frame_equal(both[both["variant"] == "hires_q2"], own)
    assert causes.loc["time", "p_holm"] == pytest.approx(12 * causes.loc["time", "p"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.iloc[1:], "clip 'clip00' is missing, seed 0"),
        (lambda frame: frame[frame["fold"] != 1], "clip 'clip01' is missing, seed 0"),
        (lambda frame: frame.iloc[[*range(72), 7]], "clip 'clip07' is scored twice, seed 0"),
        (lambda frame: frame.assign(cricket=np.nan), "clip 'clip00' has scores that are not"),
        (lambda frame: frame.replace("clip03", "clip99"), "clip 'clip03' is missing"),
        (lambda frame: frame.replace("NA", "cricket"), "clip 'clip01' has another label or fold"),
    ],
)
def test_a_file_whose_scores_are_not_of_these_clips_is_named(results, spoil, message):
    file = results / "esc10" / "pretrained" / "scores" / "mel_db.csv.gz"
    spoilt = spoil(scores_of(1, draw=1))
    file.write_bytes(gzip.compress(spoilt.to_csv(index=False).encode()))
    with pytest.raises(DataError, match=rf"mel_db\.csv\.gz.*{message}"):
        recompute.recompute(results)


def test_results_of_another_version_of_the_transform_stop_it(results, monkeypatch, capsys):
    file = results / "esc10" / "pretrained" / "settings.json"
    file.write_text(json.dumps({"transform": "0.0.7"}))
    monkeypatch.setattr(recompute, "RESULTS", results)
    assert recompute.main() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file}: these scores were made with version 0.0.7")
    assert f"this is version {version('spectral-hyperresolution')}" in said
    assert not (results / "costs.csv").exists()


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({"one_rate": (0.3, 0.3), "slower": (0.2, 0.31), "head": (0.31, 0.2)}, "one_rate"),
        ({"one_rate": (0.3, 0.3), "slower": (0.2, 0.29), "head": (0.25, 0.25)}, "slower"),
        ({"one_rate": (0.3, 0.3), "slower": (0.29, 0.28), "head": (0.25, 0.25)}, "head"),
    ],
)
def test_another_schedule_must_be_better_with_both(losses, expected):
    table = pd.DataFrame.from_dict(losses, orient="index", columns=["log_db", "mel_db"])
    assert plan.choose_schedule(table) == expected


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Where all studies of this file make their sounds, spectrograms and runs."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work")
        patch.setenv("WORK_FOLDER", str(folder))
        patch.delenv("SEEDS", raising=False)
        patch.setattr(common, "commit", lambda: "abc")
        yield folder


def make(study, work: Path, *options: str) -> Path:
    """Make a study of microcalls with the smoke profile; return its folder of results."""
    out = work / "results"
    study.main(["--dataset", "microcalls", "--profile", "smoke", "--out", str(out), *options])
    return out / "microcalls" / "smoke"


def test_the_grid_is_kept_seed_by_seed_and_goes_on(work, monkeypatch):
    folder = make(grid, work, "--seeds", "1", "log_db", "mel_db")
    first = read(folder / "scores" / "log_db.csv.gz")
    assert first["seed"].unique().tolist() == [0]
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["transform"] == version("spectral-hyperresolution")
    assert settings["commits"] == ["abc"] and settings["settings"]["epochs"] == 1
    monkeypatch.setattr(common, "commit", lambda: "def")
    make(grid, work, "--seeds", "2", "log_db")
    both = read(folder / "scores" / "log_db.csv.gz")
    pd.testing.assert_frame_equal(both[both["seed"] == 0], first)
    assert json.loads((folder / "settings.json").read_text())["commits"] == ["abc", "def"]
    runs = pd.read_csv(folder / "runs.csv")
    assert len(runs) == 2 * 2 + 2  # two folds; the second seed of log_db alone
    before = {file: file.read_bytes() for file in folder.rglob("*.*")}
    monkeypatch.setattr(common, "commit", lambda: "no run was made with it")
    monkeypatch.setenv("WORK_FOLDER", str(work / "another"))  # so all runs come from the results
    make(grid, work, "--seeds", "2", "log_db")
    assert all(file.read_bytes() == content for file, content in before.items())
    assert runs["machine"].eq(common.machine()).all()


def test_committed_runs_are_made_again_and_compared(work):
    folder = make(grid, work, "--seeds", "1", "log_db", "mel_db")
    file = folder / "scores" / "mel_db.csv.gz"
    content, frame = file.read_bytes(), read(file)
    first = frame["fold"].eq(0) & frame.groupby("fold").cumcount().eq(0)
    file.write_bytes(pack(frame.assign(**{CALL: frame[CALL] + 0.25 * first})))
    make(again, work, "log_db", "mel_db")
    file.write_bytes(content)
    made = pd.read_csv(folder / "again.csv").set_index(["variant", "fold"])
    assert (made.loc["log_db", "largest_difference"] < 1e-5).all()  # kept with five digits
    assert (made.loc["log_db", "accuracy_then"] == made.loc["log_db", "accuracy_now"]).all()
    assert made.at[("mel_db", 0), "largest_difference"] == pytest.approx(0.25, abs=1e-5)
    assert made.at[("mel_db", 1), "largest_difference"] < 1e-5
    assert made["processor"].str.len().all()
    own = clip_metrics(frame)[["fold", "top1_accuracy"]].groupby("fold")["top1_accuracy"].mean()
    assert made.loc["mel_db", "accuracy_now"].tolist() == own.tolist()
    make(again, work, "log_db")
    assert len(pd.read_csv(folder / "again.csv")) == len(made)


def test_inner_folds_leave_the_outer_one_out(work, monkeypatch):
    every = schedule.schedules(24)
    assert [one.get("frozen_epochs", 0) + one.get("epochs", 24) for one in every.values()] == [
        24
    ] * 4
    few = {name: every[name] for name in ("one_rate", "slower_early_layers")}
    monkeypatch.setattr(schedule, "schedules", lambda epochs: few)
    monkeypatch.setattr(schedule, "REPRESENTATIONS", ("log_db",))
    folder = make(schedule, work) / "schedule"
    names = {file.name.removesuffix(".csv.gz") for file in (folder / "scores").iterdir()}
    assert names == {"one_rate-log_db", "slower_early_layers-log_db"}
    frame = read(folder / "scores" / "slower_early_layers-log_db.csv.gz")
    clips = pd.read_csv(folder.parents[1] / "clips.csv", index_col="clip_id")
    assert set(frame["fold"]) == {1, 2} and set(frame["clip_id"]) == set(
        clips.index[clips["fold"].isin([1, 2])]
    )
    assert (clips["fold"].loc[frame["clip_id"]].to_numpy() == frame["fold"]).all()
    made = json.loads((folder / "settings.json").read_text())["conditions"]
    assert made == few


@pytest.mark.parametrize("study", [rates, waveform])
def test_a_study_of_conditions_keeps_each_of_them(work, study):
    folder = make(study, work, "--seeds", "1") / study.__name__.removeprefix("studies.")
    (name,) = study.conditions(common.open_experiment("microcalls", "smoke").profile)
    assert read(folder / "scores" / f"{name}.csv.gz")["clip_id"].is_unique
    assert pd.read_csv(folder / "runs.csv")["condition"].unique().tolist() == [name]


def test_no_label_of_a_fold_reaches_its_own_stack():
    table = scores_of(0, 1).set_index("clip_id").assign(fold=np.arange(24) // 3 % 3)
    outer = {"log_db": scores_of(2, 1).assign(fold=table["fold"].to_numpy())}
    whole = outer["log_db"]
    inner = {
        frozenset(pair): {"log_db": whole[whole["fold"].isin(pair)]}
        for pair in ((0, 1), (0, 2), (1, 2))
    }
    stacked = stack.stack(table, outer, inner, None).set_index("clip_id")
    changed = table.copy()
    own = changed["fold"] == 1
    changed.loc[own, "label"] = np.roll(changed.loc[own, "label"], 1)
    again = stack.stack(changed, outer, inner, None).set_index("clip_id")
    fold = table.index[own]
    np.testing.assert_array_equal(again.loc[fold, CLASSES], stacked.loc[fold, CLASSES])
    other = table.index[~own]
    assert (again.loc[other, CLASSES] != stacked.loc[other, CLASSES]).to_numpy().any()


def test_the_stack_runs(work, monkeypatch):
    monkeypatch.setattr(stack, "MEMBERS", ("log_db",))
    folder = make(stack, work, "--seeds", "1") / "stack" / "scores"
    assert len(list(folder.iterdir())) == 3
    stacked = read(folder / "lightgbm.csv.gz")
    values = stacked.drop(columns=["clip_id", "seed", "fold", "label"]).to_numpy()
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-3)
    assert stacked["clip_id"].is_unique


def test_the_tagger_averages_audio_one_to_one(results):
    write(results / "esc10" / "audio", head=scores_of(3, 1, draw=5))
    averaged = tagger.average_everything(results / "esc10")
    assert list(averaged) == ["spectrograms", "audio", "spectrograms and audio"]
    first, second, both = (own.set_index("clip_id")[CLASSES] for own in averaged.values())
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-9)
    grid_scores = [read(f) for f in (results / "esc10" / "pretrained" / "scores").iterdir()]
    expected = pd.concat(grid_scores).groupby("clip_id")[CLASSES].mean()
    np.testing.assert_allclose(first, expected)
