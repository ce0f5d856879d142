"""What README.md says by hand is what results/ holds, and its table is made from the scores."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from freesound_tagging.scoring.metrics import METRIC, clip_metrics
from freesound_tagging.scoring.statistics import by_fold_and_seed, paired_differences
from results.recompute import PAGES, fill_in, recompute, tables_of_pages
from studies.plan import families_of
from studies.scores import read

ROOT = Path(__file__).resolve().parents[1]


def test_the_short_answer_quotes_the_results():
    table = pd.read_csv(ROOT / "results" / "microcalls" / "cpu" / "contrasts.csv")
    found = table.set_index(["variant", "reference", "classes"])
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    answer = " ".join(text.split("## Short answer")[1].split("##")[0].split())
    for pair, verdict in (
        (("hires_q8", "gabor_q8", "all"), "worse"),
        (("hires_q2", "gabor_q2", "frequency"), "better"),
        (("gabor_q8", "log_db", "all"), "better"),
    ):
        row = found.loc[pair]
        assert row["verdict"] == verdict
        assert f" {abs(row['difference']):.3f}" in answer
    masked = found.loc[("gabor_q8_masked", "gabor_q8", "all")]
    assert masked["verdict"] == "worse" and f"alone cost {-masked['difference']:.3f}" in answer
    calls, heard, strong = (
        pd.read_csv(ROOT / "results" / place / "summary.csv").loc[0]  # the best comes first
        for place in ("microcalls/cpu", "insectset32/pretrained", "esc10/pretrained")
    )
    assert calls["variant"] == heard["variant"] == "gabor_q8_magnitude"
    best = f"{calls['top1_accuracy']:.3f} on generated sounds, {heard['top1_accuracy']:.3f} on"
    most = f"`{strong['variant']}` was best, with {strong['top1_accuracy'] + 1e-9:.3f}"
    assert f"were best: {best} InsectSet32. On ESC-10 {most}" in answer
    assert found.loc[("hires_q2", "log_db", "frequency"), "verdict"] == "no difference found"
    above = found["verdict"].eq("better").unstack("reference")
    assert not (above["log_db"] & above.drop(columns="log_db").any(axis=1)).any()
    strong, insects = (
        pd.read_csv(ROOT / f"results/{name}/pretrained/contrasts.csv").dropna(subset="low")
        for name in ("esc10", "insectset32")
    )
    asked = pd.concat([strong, insects]).query("variant != 'log_linear'")
    assert set(asked["seeds"]) == {3} and set(asked["verdict"]) == {"no difference found"}
    strong, insects = (own.set_index(["variant", "reference"]) for own in (strong, insects))
    assert f"had {-strong.loc[('hires_q2', 'log_db'), 'difference']:.3f} less" in answer
    room = insects.loc[[("hires_q2", "log_db"), ("hires_q8", "log_db")], "high"].max()
    assert f"intervals allow gains of up to {room:.3f} over log dB" in answer
    spoken = pd.read_csv(ROOT / "results" / "fsdd" / "cpu" / "contrasts.csv")
    lost = spoken.set_index(["variant", "reference"]).loc[("hires_q2", "gabor_q2"), "difference"]
    assert f"reassignment lost {-lost:.3f} to its filters. Six" in answer
    small = pd.read_csv(ROOT / "results" / "esc10" / "cpu" / "contrasts.csv")
    assert spoken["verdict"].isna().all() and set(small["verdict"]) == {"no difference found"}
    heard = pd.read_csv(ROOT / "results" / "esc10" / "audio" / "summary.csv").set_index("variant")
    assert f"{heard.loc['yamnet', 'top1_accuracy']:.1%}".replace("%", " %") in answer


def test_the_results_page_quotes_the_scores():
    results = ROOT / "results"
    text = " ".join((results / "README.md").read_text(encoding="utf-8").split())
    calls = pd.read_csv(results / "microcalls/cpu/summary.csv").set_index("variant")
    assert f"and gains {calls.loc['log_linear', 'minus_log_db']:.3f}" in text
    assert f"`gabor_q8_magnitude` with {calls['top1_accuracy'].max():.3f}" in text
    asked = pd.read_csv(results / "microcalls/cpu/contrasts.csv")
    causes = asked[asked["classes"] == "all"].set_index("variant")["difference"]
    assert f"nothing moved, {-causes['gabor_q8_masked']:.3f} is lost" in text
    assert f"`hires_q8` gains {causes['hires_q8_smooth']:.3f}, about half" in text
    assert f"the loss is {-causes['hires_q8_magnitude']:.3f}, and still" in text
    strong = pd.read_csv(results / "esc10/pretrained/summary.csv").set_index("variant")
    levels = strong["top1_accuracy"]
    assert f"`log_db` has {levels['log_db']:.4f} and `hires_q2` {levels['hires_q2']:.3f}" in text
    assert strong.at["log_linear", "seeds"] == 1 and set(strong["seeds"]) == {1, 3}
    first = clip_metrics(read(results / "esc10/pretrained/scores/log_db.csv.gz")).query("seed == 0")
    assert f"{levels['log_linear']:.3f}, and `log_db` {first[METRIC].mean():.4f}, one clip" in text
    assert f"`hires_q8_magnitude` has {levels.max():.4f}, the most of all" in text
    row = pd.read_csv(results / "esc10/pretrained/contrasts.csv").iloc[0]
    assert (row["variant"], row["reference"]) == ("hires_q2", "log_db")
    assert f"a gain of {row['high']:.3f} over log dB." in text
    assert f"It also allows a loss of {-row['low']:.4f}." in text
    for name, said in (("esc10", "{} of {} planned"), ("insectset32", "")):
        planned = sum(map(len, families_of(name, "pretrained")))
        judged = len(pd.read_csv(results / name / "pretrained/contrasts.csv").dropna(subset="p"))
        assert said.format(planned - judged, planned) in text and (said or planned == judged == 12)
    for name in ("gabor_q8", "hires_q8"):
        place = results / "insectset32/pretrained/scores"
        pair = [read(place / f"{own}.csv.gz") for own in (f"{name}_magnitude", name)]
        gains = paired_differences(*pair).mean()
        assert (gains > 0).all() and f"{gains.mean():.3f} with `{name}`" in text
    small = pd.read_csv(results / "esc10/cpu/summary.csv").set_index("variant")["top1_accuracy"]
    assert f"`hires_q2` has {small['hires_q2']:.3f} and `log_db` {small['log_db']:.3f}. No" in text
    row = pd.read_csv(results / "insectset32/pretrained/contrasts.csv").iloc[0]
    assert (row["variant"], row["reference"]) == ("hires_q2", "log_db")
    said = f"a gain of {row['high']:.3f} over log dB, and a loss of {-row['low']:.3f}, could"
    assert said in text
    own = {name: read(results / f"fsdd/cpu/scores/{name}_q2.csv.gz") for name in ("hires", "gabor")}
    dots = by_fold_and_seed(own["hires"], own["gabor"]).to_numpy()
    assert (
        f"{-dots.mean():.3f} below its own filters. In {(dots < 0).sum()} of the {dots.size} runs"
        in text
    )
    assert f"one speaker the loss is {-dots.mean(axis=1).min():.3f}, more than" in text
    names = ("audio", "spectrograms", "spectrograms and audio")
    own = pd.read_csv(results / "insectset32/tagger.csv").set_index("variant")["top1_accuracy"]
    one, two, three = (f"{own[name]:.3f}" for name in names)
    assert f"have {one}. Our spectrogram networks, averaged, have {two}." in text
    assert f"averaged in they have {three}" in text
    rates = pd.read_csv(results / "esc10/pretrained/rates/conditions.csv").iloc[0]
    low, high = rates["low"], rates["high"]
    assert f"{-rates['difference']:.3f} less top-1 accuracy ({low:+.3f} to {high:+.3f})" in text
    averages = pd.read_csv(results / "esc10/tagger.csv").set_index("variant")["top1_accuracy"]
    assert f"a linear layer have {averages['audio']:.3f}" in text
    assert f"it has {averages['spectrograms and audio']:.4f}, and nothing" in text
    tuned = pd.read_csv(results / "esc10/audio/finetuned/conditions.csv").set_index("condition")
    assert f"YAMNet has {tuned.loc['all_layers', 'top1_accuracy']:.3f}" in text


def test_the_results_page_says_what_another_processor_changed():
    results = ROOT / "results"
    text = " ".join((results / "README.md").read_text(encoding="utf-8").split())
    again = pd.read_csv(results / "microcalls/cpu/again.csv").dropna()  # on Intel
    again = again.pivot_table(["accuracy_then", "accuracy_now"], "seed", "variant")
    then, now = again["accuracy_then"], again["accuracy_now"]
    assert now.shape == (5, 8) and (now - then).mean().abs().max() < 0.0105
    asked = pd.read_csv(results / "microcalls/cpu/contrasts.csv").query("classes == 'all'")
    turned = {}
    for one, other, verdict in asked[["variant", "reference", "verdict"]].itertuples(index=False):
        if {one, other} <= set(now) and verdict != "no difference found":
            before, after = then[one] - then[other], now[one] - now[other]
            turned[one, other] = list(before.index[np.sign(before) != np.sign(after)])
    assert sorted(turned.values()) == [[], [], [0]] and turned["gabor_q8", "log_db"] == [0]
    before, after = (own.at[0, "gabor_q8"] - own.at[0, "log_db"] for own in (then, now))
    assert f"`gabor_q8` was {before:.3f} above log dB, and on Intel {-after:.3f} below" in text


def test_the_tables_of_the_pages_are_those_of_the_scores(tmp_path):
    copy = tmp_path / "results"
    shutil.copytree(ROOT / "results", copy)
    tables = recompute(copy)
    tables |= tables_of_pages(tables)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert fill_in(text, tables) == text
    for file in copy.rglob("*.csv"):
        committed = ROOT / "results" / file.relative_to(copy)
        assert file.read_text() == committed.read_text(), committed


def test_reassigned_and_unmoved_were_run_on_the_same_machines():
    for file in (ROOT / "results").glob("*/*/runs.csv"):
        runs = pd.read_csv(file)
        grid = runs[runs["condition"].isna()].set_index(["fold", "seed"])
        machines = {name: own["machine"] for name, own in grid.groupby("variant")}
        for name in [name for name in machines if name.startswith("hires_q")]:
            filters = machines.get(name.replace("hires", "gabor"), machines[name])
            assert (filters == machines[name].reindex(filters.index)).all(), (file, name)


def test_the_pages_are_short():
    for name, most in (("README.md", 800), ("results/README.md", 1_500)):
        text = re.sub(r"^\|.*\|$", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.M)
        assert len(text.split()) <= most
