"""What is committed under ``results/`` -> tables and sentences of README.md and results/README.md.

Every number is read from a CSV file; a table whose study is not published is left out.
"""

import json
from pathlib import Path

import pandas as pd

from freesound_tagging.features.variants import VARIANTS
from freesound_tagging.learning.profiles import PROFILES
from freesound_tagging.scoring.statistics import LEVEL, VERDICT_METRIC

REFERENCE = "reference"
"""Folder of the published experiment's figures, which were not measured here."""

TRAIN_CLIPS = 9_473
"""Of FSDKaggle2018."""

REFERENCE_FOLD_MINUTES = 15
"""What one fold took on the reference experiment's GPU, by its report."""

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
    frame = pd.DataFrame(columns)
    return markdown(frame[(frame.drop(columns="variant") != "").any(axis=1)])


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
            "seeds": row.seeds,
            "MAP@3, difference": _signed(row.difference),
            "95 % interval": _between(row.low, row.high),
            "p (Holm)": _p(row.p_holm),
            "outcome": row.outcome + (", fragile" if row.fragile else ""),
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


def _claim_row(folder: Path, name: str, picture: str, than: str) -> pd.Series:
    frame = pd.read_csv(folder / name / "controls" / "claims.csv")
    return frame.set_index(["picture", "than"]).loc[(picture, than)]


def _claim(folder: Path, name: str, picture: str, than: str) -> str:
    """Return how one claim of the controls came out, in words."""
    return _told(_claim_row(folder, name, picture, than))


def _seed_0(folder: Path, name: str, variant: str, reference: str) -> str:
    """Return the difference that seed 0 alone shows, from the rows of results.csv."""
    results = pd.read_csv(folder / name / "results.csv")
    first = results[results["seed"] == 0]
    means = {
        which: (rows[VERDICT_METRIC] * rows["n"]).sum() / rows["n"].sum()
        for which, rows in first.groupby("variant")
    }
    return _signed(means[variant] - means[reference])


def _tuning_finding(folder: Path) -> list[str]:
    file = folder / "esc10" / "tuned" / "tuned.csv"
    if not file.exists():
        return []
    tuned = pd.read_csv(file).set_index("variant")
    gains = tuned["gain"]
    told = [name for name, p in tuned["gain_p_holm"].items() if p < LEVEL]
    against = "; ".join(f"{name} {_told(row)}" for name, row in tuned.drop("log_db").iterrows())
    return [
        "8. **Tuned one by one, on ESC-10.** Optimizer, learning rate and mixup chosen for each of "
        f"{len(tuned)} pictures by inner folds, judged by outer ones, one seed: gains of "
        f"{_between(gains.min(), gains.max())} over the common settings, told apart: "
        f"{', '.join(told) or 'none'}. Against log dB, both tuned: {against}."
    ]


def _tagger_finding(folder: Path) -> list[str]:
    file = folder / "esc10" / "tagger" / "steps.csv"
    if not file.exists():
        return []
    steps = pd.read_csv(file)
    plain, last = steps.iloc[0], steps.iloc[-1]
    return [
        "9. **The tagger** that the ingredients make on ESC-10, none dropped for its result: top-1 "
        f"accuracy {plain['top1_accuracy']:.4f} at the start, {last['top1_accuracy']:.4f} "
        f"({last['low']:.3f} to {last['high']:.3f}) at the end ({last['adds']}), for "
        f"{last['seconds_per_run']:.0f} seconds of one core a fold. Others report: random forest "
        "0.727, people 0.957, the best network from scratch 0.9665."
    ]


def _share(folder: Path, name: str, source: str) -> str:
    frame = pd.read_csv(folder / name / "variance.csv")
    own = frame[(frame["metric"] == VERDICT_METRIC) & (frame["source"] == source)]
    return f"{100 * own['share'].iloc[0]:.0f} %"


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
    pictures = TRAIN_CLIPS * 4 / 5 * epochs
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
            f"one fold of one picture, {fold['architecture']} network, {fold['epochs']} epochs",
            "1 core",
            f"{fold['seconds_of_the_run'] / 60:.0f} minutes; memory up to "
            f"{fold['peak_memory_gb']:.1f} GB; after kill -9 bytes "
            f"{'the same' if fold['same_bytes_after_kill'] else 'differ'}",
            "measured",
        ),
        (
            f"one fold of one picture, `gpu` profile: {profile.architecture}, {epochs} epochs",
            here,
            f"{pictures / deep['loader and network'] / 3600:.0f} hours: take a GPU",
            f"computed from {loading['steps']} batches",
        ),
        (
            "every channel of every clip",
            "a GPU machine's 16 cores",
            f"{made['clips'] / one_core / 16 / 60:.0f} minutes; pictures are not made on the GPU",
            f"computed from {one_core:.1f} clips a second and core here",
        ),
        (
            f"one fold of one picture, {profile.architecture}, {epochs} epochs",
            "one GPU",
            f"{REFERENCE_FOLD_MINUTES} minutes; all {folds} folds of {len(VARIANTS)} pictures "
            f"{folds * REFERENCE_FOLD_MINUTES / 60:.0f} hours",
            "not measured here: one fold as the reference experiment reports it, the rest computed",
        ),
    ]
    frame = pd.DataFrame(rows, columns=["step", "on", "cost", "how known"])
    loader, gathered = rates["loader alone"], rates["gathered"]
    return (
        "Generated sounds in archives of the real layout and size stand in for the challenge's "
        f"({made['machine']}, {made['date']}; scripts and figures: `benchmarks/fsdkaggle2018/`)."
        f"\n\n{markdown(frame)}\n\n"
        f"Pictures a second, three planes of {profile.grid.n_bins} x {profile.grid.n_frames}, "
        f"{here}: the loader alone {loader:,.0f}, of which gathering them in memory, all that is "
        f"left to the CPU beside a GPU, {gathered:,.0f}; the compact network alone "
        f"{compact['network alone']:,.1f}, with the loader {compact['loader and network']:,.1f}; "
        f"{profile.architecture} alone {deep['network alone']:.1f}, with the loader "
        f"{deep['loader and network']:.1f}."
    )


def findings_section(folder: Path) -> str:
    """Return the README's findings in sentences, every number read from the published tables."""

    def told(name: str, variant: str) -> str:
        return _told(_test(folder, name, variant))

    def claimed(picture: str, than: str) -> str:
        return _claim(folder, "microcalls", picture, than)

    mix, windows = "3ch_hires_q1_q8_log_db", "3ch_log_db_windows"
    reassigned = {q: f"hires_q{q}" for q in (1, 2, 4, 8)}
    digits = "; ".join(f"q = {q} {told('fsdd', name)}" for q, name in reassigned.items())
    calls = "; ".join(f"q = {q} {told('microcalls', name)}" for q, name in reassigned.items())
    loudness = "; ".join(f"{n} {told(n, 'log_linear')}" for n in measured_in(folder))
    by_three = _claim_row(folder, "microcalls", f"grid/{mix}", f"grid/{windows}")
    stacked = "; ".join(f"{name} {told(name, mix)}" for name in measured_in(folder))
    lines = [
        "Differences are in MAP@3 from log dB on the same clips, folds and seeds, with 95 % "
        "intervals over source recordings; *told apart* is after Holm's correction, *fragile* when "
        "the spread from seed to seed, or the lack of a second seed, leaves it open. A small "
        "network trained from scratch; every fold; three seeds.",
        "",
        "1. **Environmental sounds (ESC-10): no difference.** q = 2 "
        f"{told('esc10', 'hires_q2')}; q = 8 {told('esc10', 'hires_q8')}. The smallest detectable "
        f"difference is {detectable(folder, 'esc10')}, by variant; the fold explains "
        f"{_share(folder, 'esc10', 'fold')} of the variance between runs, the picture "
        f"{_share(folder, 'esc10', 'representation')}.",
        f"2. **Digits of an unseen speaker (FSDD): high resolution is worse.** {digits}.",
        "3. **Generated calls that differ in fine structure (microcalls): a moderate q beats log "
        f"dB, the ends of the range do not.** {calls}.",
        "4. **Loudness weighs more than sharpness, and either way.** Magnitude in place of dB on "
        f"the log axis: {loudness}. Among the noisy calls the plain magnitude is the best picture "
        "of all; made sharp as well (q = 2), it differs from that by "
        f"{claimed('matched/hires_q2_magnitude', 'grid/log_linear')}.",
        f"5. **The reference's winner, q = 1, q = 8 and log dB stacked, does not win here.** "
        f"{stacked}. Against three ordinary windows on microcalls: "
        f"{claimed(f'grid/{mix}', f'grid/{windows}')}.{_stack_by_detail(folder, mix)}",
        "6. **Where q = 2 gains, it is not the window.** Against an ordinary shorter window: "
        f"{claimed('grid/hires_q2', 'matched/log_short_db')}. Finer rows help all pictures: 26.2 "
        f"against 13 an octave, log dB {claimed('grid/log_db', 'bins_13/log_db')}; q = 8 "
        f"{claimed('grid/hires_q8', 'bins_13/hires_q8')}. Hop 197 against 512, log dB: "
        f"{claimed('hop_197/log_db', 'hop_512/log_db')}. The count threshold, q = 8: "
        f"{claimed('grid/hires_q8', 'matched/hires_q8_all_points')}. Consensus of two q against "
        f"q = 8 alone: {claimed('matched/hires_consensus', 'grid/hires_q8')}.",
        f"7. **One run a cell misleads.** By seed 0 alone the stack of finding 5 beats the three "
        f"windows on microcalls by {_seed_0(folder, 'microcalls', mix, windows)}; by three seeds "
        f"by {_signed(by_three['difference'])}.",
        *_tuning_finding(folder),
        *_tagger_finding(folder),
        "",
        "All tables, the curves over difficulty and noise, and the sixty voices: "
        "[results/](results/README.md) and [notebook 8](notebooks/08_the_answer.ipynb).",
        "",
        "Top-3 error of every picture, and beside it what the experiment that this one rebuilds "
        "reported on other sounds with another network:",
        "",
        beside_the_reference(folder),
        "",
    ]
    names = measured_in(folder)
    lines += [f"![{name}: MAP@3 against log dB](results/{name}/differences.png)" for name in names]
    return "\n".join(lines) + "\n"


def _stack_by_detail(folder: Path, variant: str) -> str:
    """Return where a stack gains on microcalls, by what the calls differ in; from study noise."""
    file = folder / "microcalls" / "noise" / "curve.csv"
    if not file.exists():
        return ""
    curve = pd.read_csv(file, dtype={"cell": str}).set_index(["cell", "detail", "variant"])

    def gain(noise: str, detail: str) -> str:
        row = curve.loc[noise, detail, variant]
        interval = f"({_signed(row['difference_low'])} to {_signed(row['difference_high'])})"
        return f"{_signed(row['difference'])} {interval}"

    return (
        " But it does where calls differ in time and the noise is low: top-1 accuracy minus log "
        f"dB's {gain('+7dB', 'time')} at a signal-to-noise ratio of 7 dB, {gain('+21dB', 'time')} "
        f"at 21 dB, {gain('-9dB', 'time')} at -9 dB; where they differ in frequency "
        f"{gain('+7dB', 'frequency')} at 7 dB (study `noise`; three folds; seen afterwards, and "
        "not corrected for how many were looked at)."
    )


def results_page(folder: Path) -> str:
    """Return results/README.md: every table that is published in a folder."""
    names = measured_in(folder)
    parts = [
        "# Results",
        "",
        "Written by `make report` from the CSV files beside it; each folder's README says how and "
        "when they were measured. MAP@3 carries the verdict (fixed beforehand, "
        "`freesound_tagging.scoring.statistics`). Differences are paired by clip and seed, "
        "intervals and p values bootstrapped over source recordings; bold: told apart after Holm's "
        "correction over all variants; a question mark: no longer so once the spread from seed to "
        "seed is added.",
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
