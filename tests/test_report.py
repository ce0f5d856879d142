"""What stands in results/ and in the README can be computed again from the committed scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from freesound_tagging.features.variants import VARIANTS
from freesound_tagging.reporting import answers, readme
from freesound_tagging.reporting import publish as report
from freesound_tagging.runs.experiment import ROOT
from freesound_tagging.runs.questions import STUDIES as STUDIES_ASKED
from freesound_tagging.scoring import metrics as evaluation
from freesound_tagging.scoring import statistics

FOLDERS = sorted(file.parent for file in (ROOT / "results").glob("*/summary.csv"))


STUDIES = sorted(
    file.parent
    for file in (ROOT / "results").glob("*/*/results.csv")
    if file.parent.name in STUDIES_ASKED
)


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
        for metric in statistics.METRICS:
            assert run[metric].mean() == pytest.approx(getattr(row, metric), abs=1e-5)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_committed_grid_can_be_scored_and_analysed_again(folder):
    results = pd.read_csv(folder / "results.csv")
    scores, table = report.read_scores(folder)
    assert set(scores) <= set(VARIANTS)
    assert_scores_agree(results, scores)
    assert_as_committed(report.analyse_grid(results, scores, table), folder)


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_a_committed_study_can_be_scored_and_analysed_again(folder):
    results = pd.read_csv(folder / "results.csv", dtype={"cell": str})
    scores, _ = report.read_cells(folder, results["cell"].unique())
    for cell, rows in results.groupby("cell"):
        assert_scores_agree(rows, scores[cell])
    assert_as_committed(report.analyse_study(folder.name, folder), folder)


def test_there_are_committed_results():
    assert FOLDERS, "make publish writes them"


def test_pages_show_the_committed_results():
    results = ROOT / "results"
    assert readme.scoreboard(results) in (ROOT / "README.md").read_text()
    assert answers.full_size_costs(report.COSTS) in (ROOT / "docs" / "running.md").read_text()
    assert answers.results_page(results) == (results / "README.md").read_text()


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
    pd.testing.assert_frame_equal(
        evaluation.clip_metrics(again), evaluation.clip_metrics(frame), check_dtype=False
    )


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


def test_readme_without_marks_is_left_alone(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="marks"):
        readme.write_section(page, report.RESULTS_MARKS, "a section")
    assert page.read_text() == "no marks"
