"""The findings in README.md are written by hand; the numbers they quote are those of results/."""

import re
from pathlib import Path

import pandas as pd
import pytest
from freesound_tagging.reporting.scores import read_scores

from freesound_tagging.scoring.metrics import clip_metrics
from freesound_tagging.sounds.microcalls import class_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def finding(name: str) -> str:
    """Return the bullet about one data set, on one line."""
    text = " ".join((ROOT / "README.md").read_text().split())
    return re.search(rf"- \*\*[^*]*\({name}\).*?(?= - \*\*| A pretrained)", text)[0]


def differences(name: str, variant: str) -> pd.DataFrame:
    """Return MAP@3 of a representation minus log dB's, clip by clip and seed by seed."""
    scores, _ = read_scores(RESULTS / name)
    keys = ["clip_id", "seed", "fold", "label"]
    both = [clip_metrics(scores[v]).set_index(keys)["map3"] for v in (variant, "log_db")]
    return (both[0] - both[1]).rename("map3").reset_index()


@pytest.mark.parametrize("q", [2, 8])
def test_esc10(q):
    tests = pd.read_csv(RESULTS / "esc10" / "tests.csv")
    tests = tests[(tests["metric"] == "map3") & (tests["reference"] == "log_db")]
    row = tests.set_index("variant").loc[f"hires_q{q}"]
    interval = f"({row['low']:+.3f} to {row['high']:+.3f})"
    assert f"q = {q} {row['difference']:+.3f} {interval}" in finding("ESC-10")
    assert row["verdict"] not in ("better", "worse")
    assert f"{row['detectable']:.3f} (q = {q})" in finding("ESC-10")


@pytest.mark.parametrize(("q", "speakers"), [(1, 5), (2, 5), (4, 6), (8, 6)])
def test_fsdd(q, speakers):
    found = differences("fsdd", f"hires_q{q}")
    assert (found.groupby("fold")["map3"].mean() < 0).sum() == speakers
    said = finding("FSDD")
    assert "each for six of six speakers" in said and "lower for five of six" in said
    claims = pd.read_csv(RESULTS / "fsdd" / "speech" / "claims.csv").set_index("variant")
    longer = claims[claims["reference"] == "longer/log_db"].loc["longer/hires_q8"]
    interval = f"({longer['low']:+.3f} to {longer['high']:+.3f})"
    assert f"q = 8 {longer['difference']:+.3f} {interval} is {longer['verdict']}" in said
    assert longer["seeds"] == 1
    assert (
        claims[claims["reference"] == "grid/log_db"].loc["grid/hires_q8"]["verdict"]
        == "inconclusive"
    )
    if speakers == 6:
        assert f"q = {q} {found['map3'].mean():+.3f}" in said


def test_microcalls():
    found = differences("microcalls", "hires_q2")
    by_detail = found.groupby(found["label"].map(class_table()["detail"]))["map3"].mean()
    assert f"differ in time, q = 2 gains {by_detail['time']:+.3f}" in finding("microcalls")
    assert f"differ from log dB ({by_detail['frequency']:+.3f})" in finding("microcalls")
    controls = RESULTS / "microcalls" / "controls"
    pairs = pd.read_csv(controls / "details.csv").set_index(["detail", "variant", "reference"])
    unmoved = pairs.loc["time", "unmoved/gabor_q2", "grid/log_db"]
    assert f"its own filters gain {unmoved['difference']:+.3f} there" in finding("microcalls")
    own = pairs.loc["frequency", "grid/hires_q2", "unmoved/gabor_q2"]
    assert f"{own['difference']:+.3f} above its own filters" in finding("microcalls")
    claims = pd.read_csv(controls / "claims.csv").set_index(["variant", "reference"])
    worse = claims.loc["grid/hires_q8", "unmoved/gabor_q8"]
    assert f"worse than its own filters, {worse['difference']:.3f}" in finding("microcalls")
    assert [unmoved["verdict"], own["verdict"], worse["verdict"]] == ["better", "better", "worse"]
    more = pd.read_csv(RESULTS / "microcalls" / "learning" / "details.csv").set_index("variant")
    longer = more[more["reference"] == "20/gabor_q2"].set_index("detail").loc["frequency"]
    assert longer["difference"] < 0 and longer["verdict"] == "inconclusive" and longer["seeds"] == 1
    for clips in (60, 180):
        own = more[more["reference"] == f"{clips}/log_db"].loc[[f"{clips}/hires_q2"]]
        assert set(own["verdict"]) == {"worse"} and len(own) == 2 and set(own["seeds"]) == {1}
    open_ = pairs.loc["frequency", "grid/hires_q2", "grid/log_db"]
    assert open_["verdict"] == "inconclusive"


@pytest.mark.parametrize("q", [2, 8])
@pytest.mark.parametrize("dataset", ["esc10", "insectset32"])
def test_pretrained(dataset, q):
    tests = pd.read_csv(RESULTS / dataset / "pretrained" / "contrasts.csv")
    tests = tests[tests["metric"] == "map3"]
    (row,) = tests[tests["reference"] == f"gabor_q{q}"].to_dict("records")
    text = " ".join((ROOT / "README.md").read_text().split())
    interval = f"({row['low']:+.3f} to {row['high']:+.3f})"
    said = f"q = {q} {row['difference']:+.3f} {interval}"
    assert f"{said}, worse;" in text if row["verdict"] == "worse" else said in text
    told = [("esc10", "gabor_q8")] * (dataset == "esc10")
    clear = tests[tests["verdict"].isin(["better", "worse"])]
    assert [(dataset, reference) for reference in clear["reference"]] == told
    assert "None of the other contrasts" in text and set(tests["seeds"]) == {3}


def test_the_readme_can_be_read_in_five_minutes():
    text = (ROOT / "README.md").read_text()
    prose = re.sub(r"```.*?```|^\|.*?$|<!--.*?-->", "", text, flags=re.DOTALL | re.MULTILINE)
    assert len(prose.split()) <= 1000
