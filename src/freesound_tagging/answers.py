"""What is committed under ``results/`` -> tables and sentences of README.md and results/README.md.

Every number is read from a CSV file; a table whose study is not published is left out.
"""

from pathlib import Path

import pandas as pd

from freesound_tagging.statistics import LEVEL, VERDICT_METRIC
from freesound_tagging.variants import VARIANTS

REFERENCE = "reference"
"""Folder of the published experiment's figures, which were not measured here."""

TITLES = {"map3": "MAP@3", "top1_accuracy": "top-1 accuracy", "top3_error": "top-3 error"}


def measured_in(folder: Path) -> list[str]:
    """Return the names of the data sets that have results in a folder."""
    return sorted(file.parent.name for file in folder.glob("*/summary.csv"))


def markdown(frame: pd.DataFrame) -> str:
    """Return a table of strings as Markdown."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def _signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}"


def _between(low: float, high: float, digits: int = 3) -> str:
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def _p(value: float) -> str:
    if pd.isna(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def ranking(folder: Path, name: str) -> str:
    """Return one data set's ranked table with its paired tests against log_db and mel_db."""
    summary, tests = (pd.read_csv(folder / name / f"{file}.csv") for file in ("summary", "tests"))
    tests = tests[tests["metric"] == VERDICT_METRIC].set_index(["reference", "variant"])
    rows = []
    for row in summary.sort_values("map3", ascending=False).itertuples():
        cells = {
            "variant": row.variant,
            "MAP@3": f"{row.map3:.3f}",
            "top-1 accuracy": f"{row.top1_accuracy:.3f}",
            "top-3 error": f"{row.top3_error:.4f}",
            "95 % interval": f"{row.top3_error_low:.4f} to {row.top3_error_high:.4f}",
        }
        for reference in ("log_db", "mel_db"):
            difference = p_holm = ""
            if (reference, row.variant) in tests.index:
                test = tests.loc[(reference, row.variant)]
                difference, p_holm = _signed(test["difference"]), _p(test["p_holm"])
                if test["better"] or test["worse"]:
                    difference = f"**{difference}**" + ("?" if test["fragile"] else "")
            cells |= {f"MAP@3 minus {reference}'s": difference, f"p, {reference} (Holm)": p_holm}
        rows.append(cells)
    return markdown(pd.DataFrame(rows))


def heading(folder: Path, name: str) -> str:
    """Return a line with a data set's name, profile, number of clips and seeds."""
    summary = pd.read_csv(folder / name / "summary.csv")
    profile = pd.read_csv(folder / name / "results.csv")["profile"].iloc[0]
    seeds = summary["seeds"].max()
    plural = "s" if seeds > 1 else ""
    return f"{name} ({profile} profile, {summary['n'].max()} clips, {seeds} seed{plural})"


def beside_the_reference(folder: Path) -> str:
    """Return every variant's top-3 error on each data set, the reference's in its own column."""
    columns = {"variant": list(VARIANTS)}
    for name in measured_in(folder):
        own = pd.read_csv(folder / name / "summary.csv").set_index("variant")["top3_error"]
        columns[f"{name}, measured here"] = [f"{own[v]:.4f}" if v in own else "" for v in VARIANTS]
    published = pd.read_csv(folder / REFERENCE / "results.csv").set_index("variant")["top3_error"]
    columns["*FSDKaggle2018, as published, not measured here*"] = [
        f"*{published[v]:.4f}*" if v in published else "" for v in VARIANTS
    ]
    return markdown(pd.DataFrame(columns))


def variance(folder: Path, names: list[str]) -> str:
    """Return the shares of the variance of MAP@3 between runs, by data set."""
    rows = []
    for name in names:
        file = folder / name / "variance.csv"
        if not file.exists():
            continue
        frame = pd.read_csv(file)
        own = frame[frame["metric"] == VERDICT_METRIC].set_index("source")
        shares = {source: f"{100 * own.loc[source, 'share']:.0f} %" for source in own.index}
        rows.append(
            {
                "data set": name,
                **shares,
                "deviation from seed to seed": f"{own.loc['seed', 'deviation']:.3f}",
                "smallest detectable difference from log_db": detectable(folder, name),
            }
        )
    return markdown(pd.DataFrame(rows))


def detectable(folder: Path, name: str) -> str:
    """Return the range of smallest detectable differences of MAP@3 from log_db."""
    tests = pd.read_csv(folder / name / "tests.csv")
    chosen = tests[(tests["metric"] == VERDICT_METRIC) & (tests["reference"] == "log_db")]
    return f"{chosen['detectable'].min():.3f} to {chosen['detectable'].max():.3f}"


def claims(folder: Path, name: str) -> str:
    """Return how the controls' claims came out on a data set."""
    frame = pd.read_csv(folder / name / "controls" / "claims.csv")
    rows = [
        {
            "claim": row.claim,
            "picture": row.picture,
            "than": row.than,
            "MAP@3, difference": _signed(row.difference),
            "95 % interval": _between(row.low, row.high),
            "p (Holm)": _p(row.p_holm),
            "outcome": f"**{row.outcome}**" if row.p_holm < 0.05 else row.outcome,
        }
        for row in frame.itertuples()
    ]
    return markdown(pd.DataFrame(rows))


def tuning(folder: Path, name: str) -> str:
    """Return what tuning gained, and the ranking of the tuned."""
    frame = pd.read_csv(folder / name / "tuned" / "tuned.csv")
    rows = [
        {
            "variant": row.variant,
            "default": f"{row.map3_default:.3f}",
            "tuned": f"{row.map3_tuned:.3f}",
            "gain": f"{_signed(row.gain)} ({_between(row.gain_low, row.gain_high)})",
            "p, gain (Holm)": _p(row.gain_p_holm),
            "tuned minus tuned log_db": ""
            if pd.isna(row.difference)
            else f"{_signed(row.difference)} ({_between(row.low, row.high)})",
            "p (Holm)": _p(row.p_holm),
        }
        for row in frame.itertuples()
    ]
    return markdown(pd.DataFrame(rows))


def choices(folder: Path, name: str) -> str:
    """Return which setting was chosen for each variant on each outer fold."""
    frame = pd.read_csv(folder / name / "trials" / "choices.csv")
    words = [f"{row.optimizer} {row.lr_max:g}, mixup {row.mixup:g}" for row in frame.itertuples()]
    wide = frame.assign(words=words).pivot(index="variant", columns="fold", values="words")
    wide.columns = [f"fold {fold}" for fold in wide.columns]
    return markdown(wide.reset_index())


def tagger(folder: Path, name: str) -> str:
    """Return the steps of the tagger with the gain of each."""
    frame = pd.read_csv(folder / name / "tagger" / "steps.csv")
    rows = [
        {
            "step": row.step,
            "adds": row.adds,
            "top-1 accuracy": f"{row.top1_accuracy:.4f}",
            "95 % interval": f"{row.low:.3f} to {row.high:.3f}",
            "gain": ""
            if pd.isna(row.gain)
            else f"{_signed(row.gain, 4)} ({_between(row.gain_low, row.gain_high)})",
            "top-3 error": f"{row.top3_error:.4f}",
            "MAP@3": f"{row.map3:.3f}",
            "seconds a fold, one core": f"{row.seconds_per_run:.0f}",
        }
        for row in frame.itertuples()
    ]
    return markdown(pd.DataFrame(rows))


def speakers(folder: Path) -> str:
    """Return digits by themselves and digits x speakers side by side, MAP@3 against log_db."""
    rows = []
    for task, place in {
        "10 digits, unseen speaker": "fsdd",
        "60 digits x speakers": "fsdd/speakers",
    }.items():
        tests = pd.read_csv(folder / place / "tests.csv")
        summary = pd.read_csv(folder / place / "summary.csv").set_index("variant")
        own = tests[(tests["metric"] == VERDICT_METRIC) & (tests["reference"] == "log_db")]
        own = own.set_index("variant")
        for variant in pd.read_csv(folder / "fsdd" / "speakers" / "results.csv")[
            "variant"
        ].unique():
            row = {
                "task": task,
                "variant": variant,
                "MAP@3": f"{summary.loc[variant, 'map3']:.3f}",
                "top-1 accuracy": f"{summary.loc[variant, 'top1_accuracy']:.3f}",
                "top-3 error": f"{summary.loc[variant, 'top3_error']:.4f}",
                "MAP@3 minus log_db's": "",
                "95 % interval": "",
                "p (Holm)": "",
            }
            if variant in own.index:
                test = own.loc[variant]
                row["MAP@3 minus log_db's"] = _signed(test["difference"])
                row["95 % interval"] = _between(test["low"], test["high"])
                row["p (Holm)"] = _p(test["p_holm"])
            rows.append(row)
    return markdown(pd.DataFrame(rows))


def results_page(folder: Path) -> str:
    """Return results/README.md: every table that is published in a folder."""
    names = measured_in(folder)
    parts = [
        "# Results",
        "",
        "Written by `make report` from the CSV files beside it; each folder's README says how and "
        "when they were measured. MAP@3 carries the verdict (fixed beforehand, "
        "`freesound_tagging.statistics`). Differences are paired by clip and seed, intervals and p "
        "values bootstrapped over source recordings; bold: told apart after Holm's correction over "
        "all variants; a question mark: no longer so once the spread from seed to seed is added.",
        "",
    ]
    for name in names:
        parts += [f"## {heading(folder, name)}", "", ranking(folder, name), ""]
        parts += [f"![{name}: top-3 error]({name}/chart.png)", ""]
        parts += [f"![{name}: MAP@3 against log_db]({name}/differences.png)", ""]
    parts += ["## Where the variance comes from (MAP@3)", "", variance(folder, names), ""]
    for name in names:
        if (folder / name / "controls").exists():
            parts += [f"## Controls on {name}", "", claims(folder, name), ""]
    if (folder / "microcalls" / "difficulty").exists():
        parts += ["## Finer distinctions, more noise", ""]
        parts += ["![accuracy by difficulty](microcalls/difficulty/curve.png)", ""]
        parts += ["![accuracy by noise](microcalls/noise/curve.png)", ""]
    if (folder / "fsdd" / "speakers").exists():
        parts += ["## Digits, and digits x speakers", "", speakers(folder), ""]
    if (folder / "esc10" / "tuned").exists():
        parts += ["## Tuned by inner folds, judged by outer ones (esc10)", ""]
        parts += [choices(folder, "esc10"), "", tuning(folder, "esc10"), ""]
    if (folder / "esc10" / "tagger").exists():
        parts += ["## The tagger, step by step (esc10)", "", tagger(folder, "esc10"), ""]
    parts += ["## Beside the reference experiment: top-3 error", "", beside_the_reference(folder)]
    return "\n".join(parts) + "\n"


def _test(folder: Path, place: str, variant: str, reference: str = "log_db") -> pd.Series:
    """Return one row of the verdict's tests."""
    tests = pd.read_csv(folder / place / "tests.csv")
    chosen = (tests["metric"] == VERDICT_METRIC) & (tests["reference"] == reference)
    return tests[chosen].set_index("variant").loc[variant]


def _told(test: pd.Series) -> str:
    """Return a difference in words: its size, its interval, and whether it is told apart."""
    words = f"{_signed(test['difference'])} ({_between(test['low'], test['high'])})"
    if not test["p_holm"] < LEVEL:
        return f"{words}, not told apart"
    return words + (", fragile" if test.get("fragile", False) else ", told apart")


def _claim(folder: Path, name: str, picture: str, than: str) -> str:
    """Return how one claim of the controls came out, in words."""
    frame = pd.read_csv(folder / name / "controls" / "claims.csv")
    return _told(frame.set_index(["picture", "than"]).loc[(picture, than)])


def findings_section(folder: Path) -> str:
    """Return the README's findings in sentences, every number read from the published tables."""
    names = measured_in(folder)
    parts = [beside_the_reference(folder), ""]
    parts += [f"![{name}: MAP@3 against log dB](results/{name}/differences.png)" for name in names]
    return "\n".join(parts) + "\n"
