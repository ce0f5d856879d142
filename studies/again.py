"""Make committed runs again and compare: what does this processor change?

    python -m studies.again --dataset esc10 --profile pretrained [--seeds 1] [log_db hires_q8 ...]

Without names, of all representations that are committed. Each run's largest difference of a
probability, and both top-1 accuracies, go to again.csv beside the grid's scores.
"""

import pandas as pd

from benchmarks.surroundings import processor, surroundings
from freesound_tagging.errors import look_up
from freesound_tagging.scoring.metrics import KEYS, METRIC, clip_metrics
from studies.common import arguments, commit, open_study, results_of, train
from studies.scores import read, score_files


def main(argv: list[str] | None = None) -> None:
    """Make the runs that the arguments ask for."""
    parser = arguments(__doc__.splitlines()[0], "microcalls", "cpu", 1)
    parser.add_argument("names", nargs="*", help="representations; default: all committed ones")
    options = parser.parse_args(argv)
    experiment = open_study(options)
    folder = results_of(experiment, options.out)
    kept = score_files(folder)
    names = options.names or list(kept)
    files = {name: look_up("committed representation", name, kept) for name in names}
    with experiment.hold_runs():
        place = f"again on {processor()}"
        scores = train(experiment, names, range(options.seeds), place)[1]
    about = {"processor": processor(), "date": surroundings()["date"], "commit": commit()[:7]}
    file, keys = folder / "again.csv", ["variant", "fold", "seed", "processor"]
    rows = [pd.read_csv(file)] if file.exists() else []
    for name in names:
        old, new = read(files[name]).set_index(KEYS), scores[name].set_index(KEYS)
        both = new.index.intersection(old.index)
        new, old = new.loc[both, old.columns], old.loc[both]
        changes = {
            "largest_difference": (new - old).abs().max(axis=1).round(7),
            "accuracy_then": clip_metrics(old.reset_index()).set_index(KEYS)[METRIC],
            "accuracy_now": clip_metrics(new.reset_index()).set_index(KEYS)[METRIC],
        }
        runs = pd.DataFrame(changes).groupby(["fold", "seed"])
        made = runs.mean().assign(largest_difference=runs["largest_difference"].max())
        rows.append(made.reset_index().assign(variant=name, **about))
    table = pd.concat(rows).drop_duplicates(keys, keep="last").sort_values(keys)
    table = table[[*keys[:3], *changes, *about]]
    table.to_csv(file, index=False)
    print(table[table["processor"] == processor()].to_string(index=False))


if __name__ == "__main__":
    main()
