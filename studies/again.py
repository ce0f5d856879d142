"""Make committed runs again and compare: does this processor give the same scores?

    python -m studies.again --dataset esc10 --profile pretrained [--fold 0] [log_db hires_q8 ...]

One fold and seed 0 of each representation; without names, of all that are committed. What is found
goes to again.csv beside the grid's scores.
"""

import pandas as pd
from tqdm import tqdm

from benchmarks.surroundings import processor, surroundings
from freesound_tagging.experiment import Experiment
from freesound_tagging.features.representations import channels_of
from freesound_tagging.features.store import Store
from freesound_tagging.files import write_atomically
from freesound_tagging.jobs import run_jobs
from freesound_tagging.learning.learner import prepare_cpu
from freesound_tagging.runs import train_and_score, workers
from freesound_tagging.scoring.metrics import classes_of
from studies.common import arguments, commit, open_study, results_of
from studies.scores import read


def run_again(
    experiment: Experiment, table: pd.DataFrame, store: Store, kept: pd.DataFrame, run: dict
) -> dict:
    """Return ``run`` with the largest difference of a probability from the ``kept`` scores."""
    prepare_cpu()
    scores = train_and_score(table, store, **run, profile=experiment.profile)
    kept = kept[(kept["seed"] == run["seed"]) & (kept["fold"] == run["fold"])]
    scores, kept = (frame.set_index("clip_id") for frame in (scores, kept))
    classes = classes_of(kept)
    differences = (scores.loc[kept.index, classes] - kept[classes]).abs()
    return {**run, "largest_difference": round(differences.max(axis=None), 7)}


def main(argv: list[str] | None = None) -> None:
    """Make the runs that the arguments ask for."""
    parser = arguments(__doc__.splitlines()[0], "microcalls", "cpu", 1)
    parser.add_argument("--fold", type=int, default=0, help="default: 0")
    parser.add_argument("names", nargs="*", help="representations; default: all committed ones")
    options = parser.parse_args(argv)
    experiment = open_study(options)
    folder = results_of(experiment, options.out)
    kept = {file.name.removesuffix(".csv.gz"): file for file in folder.glob("scores/*.csv.gz")}
    names = options.names or sorted(kept)
    table = experiment.load_table()
    store = experiment.build_store(table, channels_of(names))
    jobs = [
        (experiment, table, store, read(kept[name]), dict(variant=name, fold=options.fold, seed=0))
        for name in names
    ]
    found = pd.DataFrame(tqdm(run_jobs(run_again, jobs, workers()), total=len(jobs), unit="run"))
    about = {"processor": processor(), "date": surroundings()["date"], "commit": commit()[:7]}
    file, rows = folder / "again.csv", found.sort_values("variant").assign(**about)
    before = [pd.read_csv(file)] if file.exists() else []
    write_atomically(file, pd.concat([*before, rows]).to_csv(index=False).encode())
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
