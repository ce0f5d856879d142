"""What stands in results/ and in the README can be computed again from the committed scores."""

import pandas as pd
import pytest

from freesound_tagging import evaluation, report
from freesound_tagging.experiment import ROOT

FOLDERS = sorted(file.parent for file in (ROOT / "results").glob("*/summary.csv"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_summary_and_differences_follow_from_the_committed_scores(folder):
    scores, table = report.unpack_scores(folder / "scores.csv.gz")
    summary = evaluation.summarise(scores, table)
    pd.testing.assert_frame_equal(summary, pd.read_csv(folder / "summary.csv"), rtol=1e-4)
    differences = report.compare(scores, table)
    pd.testing.assert_frame_equal(
        differences, pd.read_csv(folder / "differences.csv"), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_results_agree_with_the_committed_scores(folder):
    scores, _ = report.unpack_scores(folder / "scores.csv.gz")
    for row in pd.read_csv(folder / "results.csv").itertuples():
        frame = scores[row.variant]
        run = evaluation.clip_metrics(
            frame[(frame["fold"] == row.fold) & (frame["seed"] == row.seed)]
        )
        assert len(run) == row.n
        for metric in report.METRICS:
            assert run[metric].mean() == pytest.approx(getattr(row, metric), abs=1e-5)


def test_there_are_committed_results():
    assert FOLDERS, "make publish writes them"


def test_readme_shows_the_committed_results():
    assert report.results_section(ROOT / "results") in (ROOT / "README.md").read_text()


def test_scores_survive_packing(tmp_path):
    scores = {
        "log_db": pd.DataFrame(
            {
                "clip_id": ["b", "a"],
                "seed": 0,
                "fold": [0, 1],
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


def test_readme_without_marks_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="marks"):
        report.write_readme(readme, tmp_path)
    assert readme.read_text() == "no marks"
