"""What the studies share: their arguments, runs of other settings, and how scores get to results/.

    results/<data set>/clips.csv                                 label, fold and recording
    results/<data set>/<profile>/settings.json                   what the runs were made with
    results/<data set>/<profile>/runs.csv                        a row for each run
    results/<data set>/<profile>/scores/<representation>.csv.gz  all folds and seeds

A study other than the grid has a folder of its own below the profile's, and there scores are named
by condition. ``results/recompute.py`` makes all tables from these files.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from benchmarks.surroundings import processor
from freesound_tagging.cli import count
from freesound_tagging.experiment import Experiment, open_experiment
from freesound_tagging.features.representations import channels_of
from freesound_tagging.files import write_atomically
from freesound_tagging.learning.networks import best_device
from freesound_tagging.runs import check_representations, describe_settings, load_scores, run_grid
from studies.scores import RESULTS, ROOT, pack, read, score_files


def arguments(about: str, dataset: str, profile: str, seeds: int) -> argparse.ArgumentParser:
    """Return a parser that knows the data set, profile, number of seeds, and folder of results."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--dataset", default=dataset, help=f"default: {dataset}")
    parser.add_argument("--profile", default=profile, help=f"default: {profile}")
    many = f"how many; default: {seeds or 'as the plan says'}"
    parser.add_argument("--seeds", type=count, default=seeds, help=many)
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: results/")
    return parser


def open_study(options: argparse.Namespace) -> Experiment:
    """Return the experiment that the arguments ask for."""
    if options.profile == "smoke" and options.out == RESULTS:
        raise SystemExit("the smoke profile's scores say nothing; --out names another folder")
    return open_experiment(options.dataset, options.profile, options.seeds)


def train(
    experiment: Experiment,
    names: Sequence[str],
    seeds: Iterable[int],
    condition: str = "",
    table: pd.DataFrame | None = None,
    **changes,
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Make runs that are not made yet; return a row for each, and representation -> scores.

    ``condition`` is the path of the runs' own folder, for other settings or another table of clips,
    ``changes`` are fields of the profile.
    """
    profile = replace(experiment.profile, seeds=tuple(seeds), **changes)
    check_representations(names, profile)
    table = experiment.load_table() if table is None else table
    store = experiment.build_store(table, channels_of(names), profile.grid)
    folder = experiment.run_folder / "studies" / condition if condition else experiment.run_folder
    rows = run_grid(table, store, names, profile, folder)
    return rows, load_scores(folder, rows)


def committed(experiment: Experiment, out: Path) -> set[tuple[str, int]]:
    """Return representation and seed of the grid's scores under ``out``; they must be of today."""
    folder = results_of(experiment, out)
    settings = describe_settings(experiment.load_table(), experiment.profile)
    _made_with(folder / "settings.json", settings)
    files = score_files(folder).items()
    return {(name, seed) for name, file in files for seed in read(file)["seed"].unique()}


def run_conditions(options: argparse.Namespace, study: str, conditions: Callable) -> None:
    """Make and keep the runs of a study whose conditions have one representation each.

    ``conditions`` are, for a profile: name -> representation, and fields that are different.
    """
    experiment, seeds = open_study(options), range(options.seeds)
    with experiment.hold_runs():
        for name, (representation, changes) in conditions(experiment.profile).items():
            place = f"{study}/{name}"
            rows, scores = train(experiment, [representation], seeds, place, **changes)
            scores, rows = {name: scores[representation]}, rows.assign(condition=name)
            keep(experiment, options.out, scores, rows, study, {name: changes})


def hold_out(table: pd.DataFrame, folds: Sequence[int]) -> pd.DataFrame:
    """Return the table with the clips of ``folds`` as fold 0 and all others as fold 1.

    With ``folds=1`` as a change of the profile, the first is held out and nothing else.
    """
    return table.assign(fold=(~table["fold"].isin(folds)).astype(int))


def keep(
    experiment: Experiment,
    out: Path,
    scores: dict[str, pd.DataFrame],
    rows: pd.DataFrame | None = None,
    study: str = "",
    conditions: dict | None = None,
) -> Path:
    """Write scores, settings and clips under ``out``, unless they are there already; say where.

    ``scores`` go by file name, which is a representation or condition. ``rows`` are those of
    `train`, in a study with a column ``condition``. A ``study`` has a folder of its own.
    ``conditions`` say what of each is different from the profile.
    """
    folder = results_of(experiment, out) / study
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    table = experiment.load_table()
    file, clips = out / experiment.name / "clips.csv", table[["label", "fold", "group"]]
    content = clips.sort_index().to_csv().encode()
    if file.exists() and file.read_bytes() != content:
        raise ValueError(f"{file} is of other clips or folds: remove {file.parent} first")
    write_atomically(file, content)
    made = _made_with(folder / "settings.json", describe_settings(table, experiment.profile))
    packed = {}
    for name, frame in scores.items():
        file = folder / "scores" / f"{name}.csv.gz"
        if file.exists():
            old = read(file)
            frame = pd.concat([old[~old["seed"].isin(frame["seed"])], frame])
        packed[file] = pack(frame)
    if all(file.exists() and file.read_bytes() == packed[file] for file in packed):
        return folder
    for key, now in {"machines": machine(), "commits": commit()}.items():
        made[key] = list(dict.fromkeys([*made[key], now]))
    made["conditions"] |= conditions or {}
    text = json.dumps(made, indent=1, default=asdict) + "\n"
    write_atomically(folder / "settings.json", text.encode())
    if rows is not None:
        file, keys = folder / "runs.csv", ["condition", "variant", "fold", "seed"]
        rows = rows.reindex(columns=[*keys, "epochs", "seconds"], fill_value="")
        rows = rows.assign(machine=machine())
        old = [pd.read_csv(file, keep_default_na=False)] if file.exists() else []
        rows = pd.concat([*old, rows]).drop_duplicates(keys, keep="last").sort_values(keys)
        write_atomically(file, rows.to_csv(index=False).encode())
    for file, content in packed.items():  # the scores last: where they are, all is
        write_atomically(file, content)
    print(f"wrote {folder}: {', '.join(scores)}")
    return folder


def results_of(experiment: Experiment, out: Path) -> Path:
    """Return the folder of a grid's results."""
    return out / experiment.name / experiment.profile_name


def _made_with(file: Path, settings: dict) -> dict:
    """Return what a folder's scores were made with; refuse those of other settings."""
    made = {"transform": version("spectral-hyperresolution"), "settings": settings}
    before = json.loads(file.read_text()) if file.exists() else {}
    other = [name for name, value in made.items() if before.get(name, value) != value]
    if other:
        raise ValueError(
            f"{file}: the scores there were made with another {' and another '.join(other)}: "
            f"remove {file.parent} first, or give --out another folder"
        )
    return {**made, "machines": [], "commits": [], "conditions": {}, **before}


def machine() -> str:
    """Return the kind of device that trains here."""
    device = best_device()
    if device.type != "cpu":
        return torch.cuda.get_device_name(device)
    name, instructions = processor().partition(",")[0], os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"{name}, {instructions}" if instructions else name


def commit() -> str:
    """Return the commit that is checked out, or what COMMIT says where there is no git."""
    asked = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or os.environ.get("COMMIT", "unknown")
