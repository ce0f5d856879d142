"""What is committed under ``results/`` -> tables in Markdown. Every number is read from a file.

In a page, a table stands between two marks, ``<!-- table: ranking esc10 -->`` and
``<!-- end of table -->``; `fill_in` writes it anew. The sentences around it are written by hand.
"""

import json
import re
from pathlib import Path

import pandas as pd

from freesound_tagging.errors import look_up
from freesound_tagging.features.variants import VARIANTS
from freesound_tagging.learning.profiles import PROFILES
from freesound_tagging.runs.questions import FINE_TUNING, RECIPE
from freesound_tagging.scoring.statistics import VERDICT_METRIC

REFERENCE = "reference"
"""Folder of the published experiment's figures, which were not measured here."""

TRAIN_CLIPS = 9_473
"""Of FSDKaggle2018."""

REFERENCE_FOLD_MINUTES = 15
"""What one fold took on the reference experiment's GPU, by its report."""

SYSTEMS = {
    "waveform/network/waveform": "network on the waveform",
    "recipe/whole/3ch_mel_deltas": "4th-place recipe",
    "stack/stacked/lightgbm": "stack of three networks and clip statistics",
    "stack/stacked/forest_on_statistics": "random forest on clip statistics",
}
"""The systems of notebooks 10 to 12: study, condition and representation, and what it is called."""

PUBLISHED_INSECTS = "*0.62 (0.57 to 0.67)*"
"""A CNN on mel spectrograms (Faiss and Stowell 2023, PLOS Computational Biology 19(10): e1011541);
their split has recordings of one session on both sides."""

COSTS = "fsdkaggle2018/full_size.json"

MARKS = re.compile(r"<!-- table: (?P<words>.+?) -->.*?<!-- end of table -->", re.DOTALL)


def measured_in(folder: Path) -> list[str]:
    """Return the names of the data sets that have results of the small network in a folder."""
    return sorted(file.parent.name for file in folder.glob("*/summary.csv"))


def markdown(frame: pd.DataFrame) -> str:
    """Return a table of strings as Markdown."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def _signed(value: float, digits: int = 3) -> str:
    return "" if pd.isna(value) else f"{value:+.{digits}f}"


def _difference(row: pd.Series) -> str:
    """Return a difference with its 95 % interval; empty where there is none."""
    if pd.isna(row["difference"]):
        return ""
    return f"{row['difference']:+.3f} ({_between(row['low'], row['high'])})"


def _between(low: float, high: float) -> str:
    return f"{low:+.3f} to {high:+.3f}"


def _p(value: float) -> str:
    if pd.isna(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _verdicts(folder: Path, place: str, reference: str) -> pd.DataFrame:
    """Return the tests of the verdict's metric against one reference, by variant."""
    tests = pd.read_csv(folder / place / "tests.csv")
    chosen = (tests["metric"] == VERDICT_METRIC) & (tests["reference"] == reference)
    return tests[chosen].set_index("variant")


def ranking(folder: Path, name: str) -> str:
    """Return one grid's ranked table with its paired tests against log_db and mel_db."""
    summary = pd.read_csv(folder / name / "summary.csv").sort_values("map3", ascending=False)
    tests = {reference: _verdicts(folder, name, reference) for reference in ("log_db", "mel_db")}
    rows = []
    for row in summary.itertuples():
        cells = {
            "representation": row.variant,
            "seeds": row.seeds,
            "MAP@3": f"{row.map3:.3f}",
            "top-1 accuracy": f"{row.top1_accuracy:.3f}",
            "top-3 error (95 %)": f"{row.top3_error:.4f} "
            f"({row.top3_error_low:.4f} to {row.top3_error_high:.4f})",
            "log loss": f"{row.log_loss:.3f}",
        }
        for reference, own in tests.items():
            difference = verdict = ""
            if row.variant in own.index:
                test = own.loc[row.variant]
                difference, verdict = _difference(test), f"{test['verdict']}, {_p(test['p_holm'])}"
            cells[f"MAP@3 minus {reference}'s (95 %)"] = difference
            cells[f"verdict, p ({reference})"] = verdict
        rows.append(cells)
    return markdown(pd.DataFrame(rows))


def accuracies(folder: Path, name: str) -> str:
    """Return how often one grid's networks are right, and all of them averaged; of InsectSet32
    beside what others published."""
    own = pd.read_csv(folder / name / "summary.csv").sort_values("map3", ascending=False)
    averaged = pd.read_csv(folder / name / "averaged.csv").assign(seeds="")
    rows = pd.concat([own.astype({"seeds": str}), averaged])
    table = pd.DataFrame(
        {
            "representation": rows["variant"],
            "seeds": rows["seeds"],
            "top-1 accuracy": rows["top1_accuracy"].map("{:.3f}".format),
            "balanced accuracy": rows["balanced_accuracy"].map("{:.3f}".format),
            "top-3 error": rows["top3_error"].map("{:.4f}".format),
            "MAP@3": rows["map3"].map("{:.3f}".format),
            "log loss": rows["log_loss"].map("{:.3f}".format),
        }
    )
    if name.startswith("insectset32"):
        table["*published: mel, another split, top-1 accuracy*"] = rows["variant"].map(
            {"mel_db": PUBLISHED_INSECTS}
        )
    return markdown(table.fillna(""))


def heading(folder: Path, name: str) -> str:
    """Return a line with a data set's name, profile, number of clips and seeds."""
    summary = pd.read_csv(folder / name / "summary.csv")
    dataset, profile = pd.read_csv(folder / name / "results.csv")[["dataset", "profile"]].iloc[0]
    seeds = summary["seeds"].max()
    plural = "s" if seeds > 1 else ""
    return f"{dataset} ({profile} profile, {summary['n'].max()} clips, {seeds} seed{plural})"


def beside_the_reference(folder: Path) -> str:
    """Return every variant's top-3 error on each data set, the reference's in its own column."""
    own = {
        name: pd.read_csv(folder / name / "summary.csv").set_index("variant")["top3_error"]
        for name in measured_in(folder)
    }
    published = pd.read_csv(folder / REFERENCE / "results.csv").set_index("variant")["top3_error"]
    measured = [v for v in VARIANTS if any(v in errors for errors in own.values())]
    columns = {"representation": measured}
    for name, errors in own.items():
        columns[f"{name}, measured here"] = [
            f"{errors[v]:.4f}" if v in errors else "" for v in measured
        ]
    columns["*FSDKaggle2018, as published, not measured here*"] = [
        f"*{published[v]:.4f}*" if v in published else "" for v in measured
    ]
    return markdown(pd.DataFrame(columns))


def scoreboard(folder: Path) -> str:
    """Return MAP@3 of every representation on each data set, best on ESC-10 first, best in bold.

    Below them stand the systems around the comparison (`systems`). What others published, on other
    sounds or with another network, has columns of its own.
    """
    names = measured_in(folder)
    summaries = {n: pd.read_csv(folder / n / "summary.csv").set_index("variant") for n in names}
    scores = pd.DataFrame({name: own["map3"] for name, own in summaries.items()})
    scores = scores.sort_values("esc10", ascending=False)
    accuracy, published = "esc10, top-1 accuracy", "*published: FSDKaggle2018, top-3 error*"
    scores[accuracy] = summaries["esc10"]["top1_accuracy"]
    others = systems(folder)
    scores = scores.reindex([*scores.index, *others.index.unique()])
    for name, own in others.groupby("data set"):
        scores.loc[own.index, name] = own["map3"]
        if name == "esc10":
            scores.loc[own.index, accuracy] = own["top1_accuracy"]
    cells = scores.map("{:.3f}".format, "ignore")
    for name in scores:
        best = scores[name] == scores[name].max()
        cells.loc[best, name] = "**" + cells.loc[best, name] + "**"
    errors = pd.read_csv(folder / REFERENCE / "results.csv").set_index("variant")["top3_error"]
    cells[published] = errors.map("*{:.4f}*".format)
    reported = pd.read_csv(folder / REFERENCE / "systems.csv").set_index("system")
    reported = reported.rename(index=lambda place: SYSTEMS[place]).map("*{:g}*".format, "ignore")
    cells.loc[reported.index, published] = reported["fsdkaggle2018_top3_error"]
    cells["*published: ESC-10, top-1 accuracy*"] = reported["esc10_top1_accuracy"]
    named = {name: f"{name} ({_seeds(own)})" for name, own in others["seeds"].groupby(level=0)}
    return markdown(
        cells.rename(index=named).fillna("").rename_axis("representation or system").reset_index()
    )


def _seeds(numbers: pd.Series) -> str:
    """Return in words how many seeds there are; data sets may differ in that."""
    least, most = numbers.min(), numbers.max()
    return ("" if least == most else f"{least} to ") + (f"{most} seeds" if most > 1 else "1 seed")


def systems(folder: Path) -> pd.DataFrame:
    """Return the scores of the systems around the comparison, one row a system and data set.

    Index: what a system is called; columns "data set", seeds, top1_accuracy, top3_error, map3.
    """
    columns = ["data set", "seeds", "top1_accuracy", "top3_error", "map3"]
    rows = []
    for place, title in SYSTEMS.items():
        study, cell, variant = place.split("/")
        for file in sorted(folder.glob(f"*/{study}/conditions.csv")):
            frame = pd.read_csv(file).assign(**{"data set": file.parts[-3]})
            own = frame[(frame["cell"] == cell) & (frame["variant"] == variant)]
            rows.append(own[columns].assign(system=title))
    return pd.concat(rows).set_index("system")


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
    own = _verdicts(folder, name, "log_db")["detectable"]
    return f"{own.min():.3f} to {own.max():.3f}"


def contrasts(folder: Path, name: str) -> str:
    """Return the contrasts of PLAN.md on a data set, as far as they are run."""
    tests = pd.read_csv(folder / name / "contrasts.csv")
    own = tests[tests["metric"] == VERDICT_METRIC]
    return markdown(_pairs(own))


def claims(folder: Path, name: str, study: str) -> str:
    """Return how the claims of a study came out on a data set."""
    frame = pd.read_csv(folder / name / study / "claims.csv")
    table = _pairs(frame)
    table.insert(0, "claim", frame["claim"])
    return markdown(table)


def details(folder: Path, name: str, study: str) -> str:
    """Return a study's pairs by what sets the classes of a family apart."""
    frame = pd.read_csv(folder / name / study / "details.csv")
    table = _pairs(frame)
    table.insert(0, "classes differ in", frame["detail"])
    return markdown(table)


def learning(folder: Path, name: str) -> str:
    """Return how well microcalls are told apart with more clips, and how well those are learned."""
    place = folder / name / "learning"
    keys = ["cell", "variant"]
    loss = pd.read_csv(place / "results.csv", dtype={"cell": str}).groupby(keys)["train_loss"]
    curve = pd.read_csv(place / "curve.csv", dtype={"cell": str})
    accuracy = curve.pivot_table("top1_accuracy", keys, "detail", sort=False)
    rows = [
        {
            "clips per class": cell,
            "representation": variant,
            "training loss, mean": f"{loss.mean()[cell, variant]:.3f}",
            "highest": f"{loss.max()[cell, variant]:.3f}",
            **{
                f"top-1 accuracy, {kind}": f"{own[kind]:.3f}"
                for kind in ("all", "frequency", "time")
            },
        }
        for (cell, variant), own in accuracy.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def _pairs(tests: pd.DataFrame) -> pd.DataFrame:
    """Return tests of pairs as columns of words."""
    return pd.DataFrame(
        {
            "representation": tests["variant"],
            "against": tests["reference"],
            "seeds": tests["seeds"],
            "MAP@3, difference (95 %)": [_difference(row) for _, row in tests.iterrows()],
            "p (Holm)": tests["p_holm"].map(_p),
            "verdict": tests["verdict"],
            "detectable": tests["detectable"].map(lambda value: _signed(value).lstrip("+")),
        }
    )


def conditions(folder: Path, name: str, study: str) -> str:
    """Return the conditions of a study, each against one of them."""
    frame = pd.read_csv(folder / name / study / "conditions.csv", dtype={"cell": str})
    words = {"rates": FINE_TUNING, "recipe": RECIPE}.get(study, {})
    rows = [
        {
            "condition": row["cell"] + (f": {words[row['cell']]}" if row["cell"] in words else ""),
            "representation": row["variant"],
            "seeds": row["seeds"],
            "MAP@3": f"{row['map3']:.3f}",
            "top-1 accuracy": f"{row['top1_accuracy']:.3f}",
            "top-3 error": f"{row['top3_error']:.4f}",
            "log loss": f"{row['log_loss']:.3f}",
            "MAP@3, difference (95 %)": _difference(row),
            "p (Holm)": _p(row["p_holm"]),
            "verdict": "" if pd.isna(row["verdict"]) else row["verdict"],
        }
        for _, row in frame.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def tuning(folder: Path, name: str) -> str:
    """Return what tuning gained, and the ranking of the tuned."""
    frame = pd.read_csv(folder / name / "tuned" / "tuned.csv")
    rows = [
        {
            "representation": row["variant"],
            "default": f"{row['map3_default']:.3f}",
            "tuned": f"{row['map3_tuned']:.3f}",
            "gain": f"{_signed(row['gain'])} ({_between(row['gain_low'], row['gain_high'])})",
            "p, gain (Holm)": _p(row["gain_p_holm"]),
            "tuned minus tuned log_db": _difference(row),
            "p (Holm)": _p(row["p_holm"]),
        }
        for _, row in frame.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def choices(folder: Path, name: str) -> str:
    """Return which setting was chosen for each variant on each outer fold."""
    frame = pd.read_csv(folder / name / "trials" / "choices.csv")
    words = [f"{row.optimizer} {row.lr_max:g}, mixup {row.mixup:g}" for row in frame.itertuples()]
    return _by_fold(frame.assign(words=words), ["variant"])


def rates_chosen(folder: Path, name: str) -> str:
    """Return which learning rate was chosen for each optimizer and variant on each outer fold."""
    frame = pd.read_csv(folder / name / "optimizer_trials" / "choices.csv")
    words = frame["lr_max"].map("{:g}".format)
    return _by_fold(frame.assign(words=words), ["variant", "optimizer"])


def _by_fold(frame: pd.DataFrame, rows: list[str]) -> str:
    wide = frame.pivot(index=rows, columns="fold", values="words")
    wide.columns = [f"fold {fold}" for fold in wide.columns]
    return markdown(wide.reset_index().rename(columns={"variant": "representation"}))


def tagger(folder: Path, study: str) -> str:
    """Return the steps of a tagger, the study in that folder, with the gain of each."""
    frame = pd.read_csv(folder / study / "steps.csv")
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
            "seconds per fold, one core": f"{row.seconds_per_run:.0f}",
        }
        for row in frame.itertuples()
    ]
    return markdown(pd.DataFrame(rows))


def speakers(folder: Path) -> str:
    """Return digits by themselves and digits x speakers side by side, MAP@3 against log_db."""
    shown = pd.read_csv(folder / "fsdd" / "speakers" / "results.csv")["variant"].unique()
    rows = []
    for task, place in {
        "10 digits, unseen speaker": "fsdd",
        "60 digits x speakers": "fsdd/speakers",
    }.items():
        summary = pd.read_csv(folder / place / "summary.csv").set_index("variant").loc[shown]
        own = _verdicts(folder, place, "log_db")
        frame = summary.join(own[["difference", "low", "high", "p_holm", "verdict"]])
        rows += [
            {
                "task": task,
                "representation": variant,
                "seeds": f"{row['seeds']:.0f}",
                "MAP@3": f"{row['map3']:.3f}",
                "top-1 accuracy": f"{row['top1_accuracy']:.3f}",
                "top-3 error": f"{row['top3_error']:.4f}",
                "MAP@3 minus log_db's (95 %)": _difference(row),
                "p (Holm)": _p(row["p_holm"]),
                "verdict": "" if pd.isna(row["verdict"]) else row["verdict"],
            }
            for variant, row in frame.iterrows()
        ]
    return markdown(pd.DataFrame(rows))


def full_size_costs(record: Path) -> str:
    """Return what FSDKaggle2018 costs in full, from benchmarks/fsdkaggle2018/full_size.json.

    What was measured on a part and multiplied, or not measured at all, is called so.
    """
    measured = json.loads(record.read_text())
    table, stages, made, restarted, loading, fold = (
        measured[name] for name in ("table", "stages", "generate", "restart", "loading", "fold")
    )
    rates = loading["pictures_a_second"]
    deep, compact = rates["resnext50_32x4d"], rates["compact"]
    memory = made["peak_memory_gb_by_tenth_of_the_time"]
    profile = PROFILES["gpu"]
    epochs = profile.frozen_epochs + profile.epochs
    representations = TRAIN_CLIPS * 4 / 5 * epochs
    one_core = stages["clips_a_second_one_core"]["all channels together"]
    here = made["machine"].split(", ")[-1]
    folds = len(VARIANTS) * 5
    again = sum(run["files_made_before_and_made_again"] for run in restarted["runs"])
    kills = sum(run["killed"] is not None for run in restarted["runs"])
    rows = [
        (
            "archives to clip table",
            here,
            f"{table['seconds_from_archives']:.0f} s; sounds {table['gigabytes']:.1f} GB, and the "
            "archives as much again",
            "measured",
        ),
        (
            f"every channel of {made['clips']:,} clips",
            here,
            f"{made['seconds'] / 60:.0f} minutes; store {made['store_gb']:.1f} GB; memory "
            f"{min(memory[1:]):.2f} to {max(memory[1:]):.2f} GB from the second tenth of the time "
            "to the last",
            "measured",
        ),
        (
            f"the same with kill -9 at {kills} moments",
            here,
            f"{again} finished files made again; bytes "
            f"{'the same' if restarted['same_bytes_as_without_kills'] else 'differ'}",
            "measured",
        ),
        (
            f"one fold, {fold['architecture']} network, {fold['epochs']} epochs",
            "1 core",
            f"{fold['seconds_of_the_run'] / 60:.0f} minutes; memory up to "
            f"{fold['peak_memory_gb']:.1f} GB; after kill -9 bytes "
            f"{'the same' if fold['same_bytes_after_kill'] else 'differ'}",
            "measured",
        ),
        (
            f"one fold, `gpu` profile: {profile.architecture}, {epochs} epochs",
            here,
            f"{representations / deep['loader and network'] / 3600:.0f} hours: take a GPU",
            f"computed from {loading['steps']} batches",
        ),
        (
            "every channel of every clip",
            "a GPU machine's 16 cores",
            f"{made['clips'] / one_core / 16 / 60:.0f} minutes; not made on the GPU",
            f"computed from {one_core:.1f} clips a second and core here",
        ),
        (
            f"one fold, {profile.architecture}, {epochs} epochs",
            "one GPU",
            f"{REFERENCE_FOLD_MINUTES} minutes; {folds} folds of {len(VARIANTS)} representations "
            f"{folds * REFERENCE_FOLD_MINUTES / 60:.0f} hours",
            "not measured here: one fold as the reference experiment reports it, the rest computed",
        ),
    ]
    rows += [
        (what, here, f"{rates_of[part]:,.0f} spectrograms per second", "measured")
        for what, rates_of, part in (
            ("the loader alone, three channels of 224 x 224", rates, "loader alone"),
            ("the compact network with the loader", compact, "loader and network"),
            (f"{profile.architecture} with the loader", deep, "loader and network"),
        )
    ]
    return markdown(pd.DataFrame(rows, columns=["step", "on", "cost", "how known"]))


TABLES = {
    table.__name__: table
    for table in (
        scoreboard,
        ranking,
        accuracies,
        contrasts,
        claims,
        details,
        learning,
        conditions,
        tuning,
        choices,
        rates_chosen,
        tagger,
        speakers,
        beside_the_reference,
    )
} | {
    "variance": lambda folder: variance(folder, measured_in(folder)),
    "costs": lambda folder: full_size_costs(folder.parent / "benchmarks" / COSTS),
}
"""What may stand between marks: the name, then its arguments after the results folder."""


def fill_in(text: str, folder: Path) -> str:
    """Return a page with every table between its marks written anew from a results folder."""

    def write(found: re.Match) -> str:
        name, *arguments = found["words"].split()
        table = look_up("table", name, TABLES)(folder, *arguments)
        return f"<!-- table: {found['words']} -->\n\n{table}\n\n<!-- end of table -->"

    return MARKS.sub(write, text)
