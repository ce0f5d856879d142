"""What stands in results/ and in the README can be computed again from the committed scores."""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from freesound_tagging.features.variants import VARIANTS
from freesound_tagging.reporting import analyses, answers, publish
from freesound_tagging.reporting import scores as report
from freesound_tagging.runs import questions
from freesound_tagging.runs.experiment import ROOT
from freesound_tagging.scoring import metrics as evaluation
from freesound_tagging.scoring import statistics

FOLDERS = [file.parent for file in sorted(publish.RESULTS.glob("**/scores"))]
STUDIES = [folder for folder in FOLDERS if folder.name in questions.STUDIES]
GRIDS = [folder for folder in FOLDERS if folder not in STUDIES]


def assert_as_committed(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    for name, table in tables.items():
        committed = pd.read_csv(folder / f"{name}.csv", dtype={"cell": str})
        pd.testing.assert_frame_equal(
            table.reset_index(drop=True), committed, rtol=1e-4, atol=1e-6, check_dtype=False
        )


def assert_scores_agree(results: pd.DataFrame, scores: dict[str, pd.DataFrame]) -> None:
    """Score every run again and compare with its row."""
    measured = {name: evaluation.clip_metrics(frame) for name, frame in scores.items()}
    for row in results.itertuples():
        run = measured[row.variant]
        run = run[(run["fold"] == row.fold) & (run["seed"] == row.seed)]
        assert len(run) == row.n
        for metric in set(statistics.METRICS) & set(results):
            assert run[metric].mean() == pytest.approx(getattr(row, metric), abs=1e-5)


@pytest.mark.parametrize("folder", GRIDS, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_a_committed_grid_can_be_scored_and_analysed_again(folder):
    results = pd.read_csv(folder / "results.csv")
    scores, table = report.read_scores(folder)
    assert set(scores) <= set(VARIANTS)
    assert_scores_agree(results, scores)
    assert_as_committed(analyses.analyse_grid(results, scores, table), folder)


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_a_committed_study_can_be_scored_and_analysed_again(folder):
    results = pd.read_csv(folder / "results.csv", dtype={"cell": str})
    scores, _ = report.read_cells(folder, results["cell"].unique())
    for cell, rows in results.groupby("cell"):
        assert_scores_agree(rows, scores[cell])
    assert_as_committed(publish.analyse_study(folder.name, folder), folder)


def test_tables_of_an_earlier_state_of_the_results_go(tmp_path):
    folder = shutil.copytree(ROOT / "results/esc10/pretrained/rates", tmp_path / "rates")
    kept = {file.name: file.read_bytes() for file in folder.glob("*.csv")}
    (folder / "variance.csv").write_text("of a grid with more seeds")
    publish.write_study(folder)
    assert {file.name: file.read_bytes() for file in folder.glob("*.csv")} == kept


def test_a_score_of_an_unknown_clip_is_not_packed():
    scores = pd.DataFrame({"clip_id": ["a", "b"], "seed": 0, "fold": 0, "label": "x", "x": 1.0})
    table = pd.DataFrame({"group": ["a"]}, index=pd.Index(["a"], name="clip_id"))
    with pytest.raises(ValueError, match="clip 'b' of 'log_db' is not in the table"):
        report.pack_scores({"log_db": scores}, table)


@pytest.mark.parametrize(("study", "drawn"), [("fine_rows", 2), ("speech", 2), ("speakers", 4)])
def test_of_unseen_speakers_it_is_speakers_that_are_drawn(study, drawn, tmp_path, monkeypatch):
    folder = tmp_path / "fsdd" / study
    (folder / "scores").mkdir(parents=True)
    clips = pd.Index(["0_ann_0", "0_ann_1", "0_bob_0", "0_bob_1"], name="clip_id")
    scores = pd.DataFrame({"clip_id": clips, "seed": 0, "fold": 0, "label": "0", "0": 1.0})
    table = pd.DataFrame({"group": clips}, index=clips)
    (folder / "scores" / "own.csv.gz").write_bytes(report.pack_scores({"log_db": scores}, table))
    pd.DataFrame({"cell": ["own"], "variant": "log_db", "dataset": "fsdd"}).to_csv(
        folder / "results.csv"
    )
    groups = []
    made = dict.fromkeys(("summary", "tests", "contrasts"))
    for name in ("analyse_grid", "judge_claims"):
        monkeypatch.setattr(analyses, name, lambda *given: groups.extend(given) or made)
    publish.analyse_study(study, folder)
    (table,) = (given for given in groups if isinstance(given, pd.DataFrame) and "group" in given)
    assert table["group"].nunique() == drawn


def test_whatever_the_profile_it_is_speakers_that_are_drawn_of_fsdd(tmp_path):
    folder = tmp_path / "fsdd" / "pretrained"
    (folder / "scores").mkdir(parents=True)
    clips = pd.Index(["0_ann_0", "0_ann_1", "0_bob_0", "0_bob_1"], name="clip_id")
    scores = pd.DataFrame({"clip_id": clips, "seed": 0, "fold": 0, "label": "0", "0": 1.0})
    content = report.pack_scores({"log_db": scores}, pd.DataFrame({"group": clips}, index=clips))
    (folder / "scores" / "log_db.csv.gz").write_bytes(content)
    pd.DataFrame({"variant": ["log_db"], "dataset": "fsdd"}).to_csv(folder / "results.csv")
    assert set(report.read_scores(folder)[1]["group"]) == {"ann", "bob"}


def test_there_are_committed_results():
    assert GRIDS and STUDIES, "make publish writes them"


def test_every_study_can_be_published():
    assert publish.ANSWERS.keys() == questions.STUDIES.keys() - set(publish.GRIDS)


@pytest.mark.parametrize("page", publish.PAGES)
def test_pages_show_the_committed_results(page):
    text = (ROOT / page).read_text()
    assert answers.fill_in(text, ROOT / "results") == text


def test_the_page_says_how_often_the_rule_is_wrong():
    folder = ROOT / "benchmarks" / "statistics"
    cases = pd.read_json(folder / "false_alarms.json")
    alarms = 100 * cases["false alarms in the family"]
    covered = 100 * cases["coverage of the 95 % interval"]
    error = 100 * math.sqrt(0.05 * 0.95 / cases["repetitions"].iloc[0])
    text = " ".join((folder / "README.md").read_text().split())
    for said in (
        f"in {len(cases)} cases of {cases['repetitions'].iloc[0]} repetitions",
        f"false alarms in {alarms.min():.1f} to {alarms.max():.1f} % of the families",
        f"{(alarms > 5).sum()} of the {len(cases)} cases lie above 5 %",
        f"by up to {(alarms.max() - 5) / error:.1f} standard errors",
        f"coverage {covered.min():.1f} to {covered.max():.1f} %",
    ):
        assert said in text


def test_sentences_quote_the_committed_results():
    text = " ".join((ROOT / "results" / "README.md").read_text().split())
    sentences = answers.MARKS.sub("", text)
    for file, chosen, words in QUOTED:
        frame = pd.read_csv(ROOT / "results" / file)
        for column, value in chosen.items():
            frame = frame[frame[column] == value]
        (row,) = frame.to_dict("records")
        quoted = words.format(**row)
        assert quoted in sentences, (file, quoted)
        sentences = sentences.replace(quoted, "", 1)
    assert not re.findall(r"[+-]0\.\d{3}", sentences)  # no figure without a source


INTERVAL = "{difference:+.3f} ({low:+.3f} to {high:+.3f})"
"""How a difference is quoted."""


def against_log_db(variant: str) -> dict[str, str]:
    return {"metric": "map3", "reference": "log_db", "variant": variant}


def claim(variant: str, reference: str) -> dict[str, str]:
    return {"variant": variant, "reference": reference}


CLAIMS = "microcalls/controls/claims.csv"
DETAILS = "microcalls/controls/details.csv"


def detail(kind: str, variant: str, reference: str) -> dict[str, str]:
    return {"detail": kind, **claim(variant, reference)}


def contrast(variant: str, reference: str) -> dict[str, str]:
    return {"metric": "map3", "variant": variant, "reference": reference}


MIXES = contrast("3ch_hires_q1_q8_log_db", "3ch_gabor_q1_q8_log_db")
PRETRAINED = "esc10/pretrained/contrasts.csv"
SPEECH = "fsdd/speech/claims.csv"
INSECT_RATES = "insectset32/pretrained/rates/conditions.csv"
FINE = "fsdd/fine_rows/tests.csv"
EVERY = "esc10/pretrained/representations/tests.csv"
INSECTS = "insectset32/pretrained/contrasts.csv"
RATES = "esc10/pretrained/rates/conditions.csv"
QUOTED = [
    (PRETRAINED, contrast("hires_q2", "gabor_q2"), f"q = 2 {INTERVAL}, {{verdict}}"),
    (PRETRAINED, contrast("hires_q8", "gabor_q8"), f"q = 8 {INTERVAL}, {{verdict}}"),
    (PRETRAINED, MIXES, f"mix {INTERVAL}, {{verdict}}"),
    ("esc10/pretrained/tests.csv", against_log_db("hires_q8"), f"log dB {INTERVAL}, {{verdict}}"),
    (EVERY, against_log_db("log_linear"), f"on the log axis {INTERVAL}, {{verdict}}"),
    (
        EVERY.replace("esc10", "insectset32"),
        against_log_db("linear_linear"),
        f"log dB {INTERVAL}, {{verdict}}. The smallest",
    ),
    (INSECTS, contrast("hires_q2", "gabor_q2"), f"q = 2 {INTERVAL}, {{verdict}}"),
    (INSECTS, contrast("hires_q8", "gabor_q8"), f"q = 8 {INTERVAL}, {{verdict}}"),
    (INSECTS, MIXES, f"mix {INTERVAL}, {{verdict}}"),
    (RATES, {"cell": "from_scratch"}, f"from scratch {INTERVAL}, {{verdict}}"),
    (RATES, {"cell": "one_rate"}, f"one rate for all layers {INTERVAL}, {{verdict}}"),
    (RATES, {"cell": "frozen_then_slice"}, f"a slice of rates {INTERVAL}, {{verdict}}"),
    (INSECT_RATES, {"cell": "from_scratch"}, f"from scratch {INTERVAL}, {{verdict}}"),
    (INSECT_RATES, {"cell": "head_alone"}, f"head alone {INTERVAL}, {{verdict}}"),
    (INSECT_RATES, {"cell": "one_rate"}, f"one rate {INTERVAL}, {{verdict}}"),
    (INSECT_RATES, {"cell": "frozen_then_slice"}, f"the slice {INTERVAL}, {{verdict}}"),
    ("esc10/tests.csv", against_log_db("hires_q2"), f"q = 2 {INTERVAL}, {{verdict}}"),
    ("esc10/tests.csv", against_log_db("hires_q8"), f"q = 8 {INTERVAL}, {{verdict}}"),
    ("fsdd/tests.csv", against_log_db("hires_q4"), f"q = 4 {INTERVAL}, {{verdict}}"),
    ("fsdd/tests.csv", against_log_db("hires_q8"), f"q = 8 {INTERVAL}, {{verdict}}"),
    ("fsdd/tests.csv", against_log_db("hires_q1"), f"q = 1 {INTERVAL}, {{verdict}}"),
    ("fsdd/tests.csv", against_log_db("hires_q2"), f"q = 2 {INTERVAL}, {{verdict}}"),
    (SPEECH, claim("longer/hires_q8", "longer/log_db"), f"{INTERVAL}, {{verdict}}, from log dB"),
    (SPEECH, claim("longer/hires_q8", "longer/gabor_q8"), f"{INTERVAL}, {{verdict}}, from its own"),
    (
        SPEECH,
        claim("grid/hires_q8", "grid/log_db"),
        f"five epochs, {INTERVAL}, {{verdict}}, is not",
    ),
    (SPEECH, claim("matched/hires_q8_mel", "matched/mel_htk_db"), f"{INTERVAL}, {{verdict}}. PCEN"),
    (SPEECH, claim("matched/log_pcen", "grid/log_db"), f"{INTERVAL}, {{verdict}}, than dB"),
    (FINE, against_log_db("hires_q8"), f"against log dB {INTERVAL}, {{verdict}}; against"),
    (
        FINE.replace("tests", "contrasts"),
        contrast("hires_q8", "gabor_q8"),
        f"{INTERVAL}, {{verdict}}, for each",
    ),
    (FINE, against_log_db("hires_q2"), f"q = 2 against log dB {INTERVAL}, {{verdict}}"),
    ("microcalls/tests.csv", against_log_db("hires_q2"), f"q = 2 {INTERVAL}, {{verdict}}"),
    ("microcalls/tests.csv", against_log_db("hires_q4"), f"q = 4 {INTERVAL}, {{verdict}}"),
    ("microcalls/tests.csv", against_log_db("hires_q8"), f"q = 8 {INTERVAL}, {{verdict}}"),
    ("microcalls/tests.csv", against_log_db("log_linear"), f"{INTERVAL}, {{verdict}}"),
    ("microcalls/tests.csv", against_log_db("3ch_linear_mel_log"), f"{INTERVAL}, {{verdict}}, aga"),
    (CLAIMS, claim("matched/hires_q2_magnitude", "grid/log_linear"), f"{INTERVAL}, {{verdict}}"),
    (CLAIMS, claim("grid/hires_q2", "matched/log_short_db"), f"{INTERVAL}, {{verdict}}"),
    (CLAIMS, claim("grid/hires_q8", "bins_13/hires_q8"), f"q = 8 {INTERVAL}, {{verdict}}"),
    (CLAIMS, claim("grid/log_db", "bins_13/log_db"), f"log dB {INTERVAL}, {{verdict}}"),
    (CLAIMS, claim("grid/hires_q8", "unmoved/gabor_q8"), f"q = 8, {INTERVAL}, {{verdict}}"),
    (CLAIMS, claim("grid/hires_q2", "unmoved/gabor_q2"), f"q = 2, {INTERVAL}, {{verdict}}"),
    (DETAILS, detail("time", "grid/hires_q2", "grid/log_db"), f"q = 2 has {INTERVAL}, {{verdict}}"),
    (
        DETAILS,
        detail("time", "unmoved/gabor_q2", "grid/log_db"),
        f"filters have {INTERVAL}, {{verdict}}: that",
    ),
    (
        DETAILS,
        detail("frequency", "unmoved/gabor_q2", "grid/log_db"),
        f"filters have {INTERVAL}, {{verdict}}, and",
    ),
    (
        DETAILS,
        detail("frequency", "grid/hires_q2", "unmoved/gabor_q2"),
        f"good: {INTERVAL}, {{verdict}}",
    ),
    (
        "microcalls/learning/details.csv",
        detail("frequency", "20/hires_q2", "20/gabor_q2"),
        f"{INTERVAL}, {{verdict}}, and with more clips",
    ),
    ("esc10/stack/conditions.csv", {"variant": "lightgbm"}, f"it has {INTERVAL}, {{verdict}}"),
    (
        "esc10/stack/conditions.csv",
        {"variant": "forest_on_statistics"},
        "top-1 accuracy is {top1_accuracy:.3f}",
    ),
]
"""File, row, and the words in results/README.md that its figures make."""


def test_other_systems_stand_below_the_representations_and_published_figures_apart(tmp_path):
    results = tmp_path / "results"
    for name in ("esc10", "microcalls"):
        (results / name).mkdir(parents=True)
        summary = {"variant": ["log_db", "mel_db"], "map3": [0.75, 0.5], "top1_accuracy": 0.625}
        pd.DataFrame(summary).to_csv(results / name / "summary.csv", index=False)
    rows = {
        "waveform": "network,waveform,1,0.25,0.5,0.375\ngrid,log_db,1,0.5,0.5,0.75",
        "recipe": "mfcc,3ch_mfcc_deltas,1,0.1,0.1,0.1\nwhole,3ch_mel_deltas,1,0.2,0.3,0.875",
        "stack": "stacked,lightgbm,1,0.1,0.1,0.9\nstacked,forest_on_statistics,1,0.7,0.1,0.8",
    }
    for study, text in rows.items():
        for name in ("microcalls", "esc10") if study == "stack" else ("microcalls",):
            (results / name / study).mkdir()
            head = "cell,variant,seeds,top1_accuracy,top3_error,map3"
            (results / name / study / "conditions.csv").write_text(f"{head}\n{text}\n")
    shutil.copytree(ROOT / "results" / "reference", results / "reference")
    lines = [line[1:-1].split("|") for line in answers.scoreboard(results).splitlines()]
    header, _, *body = [[cell.strip("* ") for cell in line] for line in lines]
    assert header[1:] == [
        "esc10",
        "microcalls",
        "esc10, top-1 accuracy",
        "published: FSDKaggle2018, top-3 error",
        "published: ESC-10, top-1 accuracy",
    ]
    found = {line[0].split(" (")[0]: [cell.strip() for cell in line[1:]] for line in body}
    assert [*found][:2] == ["log_db", "mel_db"]
    assert found["log_db"][:4] == ["0.750", "0.750", "0.625", "0.0932"]
    assert found["network on the waveform"][:4] == ["", "0.375", "", "0.173"]
    assert found["4th-place recipe"][:3] == ["", "0.875", ""]
    assert found["random forest on clip statistics"] == ["0.800", "0.800", "0.700", "", "0.727"]
    assert all("(1 seed)" in line[0] for line in body[2:])


@pytest.mark.parametrize("name", ["esc10/pretrained", "insectset32/pretrained"])
def test_averaged_networks_stand_below_their_grid(name):
    folder = ROOT / "results" / name
    together = pd.concat(report.read_scores(folder)[0].values())
    classes = together.columns.drop(["clip_id", "seed", "fold", "label"])
    mean = together.groupby(["clip_id", "label"])[classes].mean()
    right = mean.idxmax(axis=1) == mean.index.get_level_values("label")
    *_, last = answers.accuracies(ROOT / "results", name).splitlines()
    cells = [cell.strip() for cell in last.strip("|").split("|")]
    n = pd.read_csv(folder / "results.csv").groupby(["variant", "seed"]).ngroups
    assert cells[:2] == [f"all {n} averaged", ""]
    assert float(cells[2]) == pytest.approx(right.mean(), abs=6e-4)  # three digits
    by_class = right.groupby("label").mean().mean()
    assert float(cells[3]) == pytest.approx(by_class, abs=6e-4)


def test_the_pages_say_how_good_the_best_tagger_is():
    folder = ROOT / "results" / "esc10" / "pretrained" / "pretrained_tagger"
    steps = pd.read_csv(folder / "steps.csv").set_index("step")
    said = f"averaged are right for {100 * steps.loc['everything', 'top1_accuracy']:g} % of the"
    assert said in " ".join((ROOT / "results" / "README.md").read_text().split())
    clear = steps.index[steps["gain_low"] > 0]
    assert clear.tolist() == ["varied", "everything"]


def test_a_page_with_an_unknown_table_names_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown table 'prose'; the known ones are: scoreboard, ranking"
    ):
        answers.fill_in("<!-- table: prose --><!-- end of table -->", ROOT / "results")


def test_leaving_low_scores_out_of_a_large_set_changes_no_rank(monkeypatch, tmp_path):
    generator = np.random.default_rng(0)
    classes = [f"class {i}" for i in range(9)]
    frame = pd.DataFrame({"clip_id": [f"{i:03d}" for i in range(200)], "seed": 0, "fold": 0})
    frame["label"] = generator.choice(classes, 200)
    frame[classes] = generator.dirichlet(np.ones(9), 200)
    table = pd.DataFrame({"group": "g"}, index=pd.Index(frame["clip_id"]))
    monkeypatch.setattr(report, "FULL_SCORES", 100)
    (tmp_path / "scores.csv.gz").write_bytes(report.pack_scores({"log_db": frame}, table))
    again = report.unpack_scores(tmp_path / "scores.csv.gz")[0]["log_db"]
    assert (again[classes] == 0).to_numpy().mean() > 0.3
    before, after = (evaluation.clip_metrics(part) for part in (frame, again))
    ranks = before.columns.drop("log_loss")  # the one metric that low scores have a part in
    pd.testing.assert_frame_equal(after[ranks], before[ranks], check_dtype=False)


def test_scores_survive_packing(tmp_path):
    scores = {
        "log_db": pd.DataFrame(
            {
                "clip_id": ["a", "b"],
                "seed": 0,
                "fold": [1, 0],
                "label": ["x", "y"],
                "x": [0.75, 0.5],
                "y": [0.25, 0.5],
            }
        )
    }
    table = pd.DataFrame({"group": ["g", "h"]}, index=pd.Index(["a", "b"], name="clip_id"))
    packed = report.pack_scores(scores, table)
    assert packed == report.pack_scores(scores, table)
    (tmp_path / "scores.csv.gz").write_bytes(packed)
    again, groups = report.unpack_scores(tmp_path / "scores.csv.gz")
    pd.testing.assert_frame_equal(again["log_db"], scores["log_db"])
    assert groups["group"].to_dict() == {"a": "g", "b": "h"}


def test_packing_moves_no_rank_where_scores_are_all_but_equal(tmp_path):
    close = {"clip_id": ["a"], "seed": 0, "fold": 0, "label": ["y"], "x": [0.4], "y": [0.4000004]}
    frame = pd.DataFrame(close)
    table = pd.DataFrame({"group": ["g"]}, index=pd.Index(["a"], name="clip_id"))
    file = tmp_path / "scores.csv.gz"
    for true in ("x", "y"):
        scores = frame.assign(label=true)
        file.write_bytes(report.pack_scores({"log_db": scores}, table))
        again = report.unpack_scores(file)[0]["log_db"]
        assert evaluation.clip_metrics(again)["map3"].tolist() == [0.5 if true == "x" else 1.0]


def test_a_page_without_marks_is_left_alone():
    assert answers.fill_in("no marks", ROOT / "results") == "no marks"
