"""Make committed runs again and compare: does this processor give the same scores?

    python -m studies.again --dataset esc10 --profile pretrained [log_db hires_q8 ...]

Fold 0 and seed 0 of each representation; without names, of all that are committed. What is found
goes to again.csv beside the grid's scores.
"""

from benchmarks.surroundings import processor, surroundings
from freesound_tagging.scoring.metrics import classes_of
from studies.common import arguments, commit, open_study, results_of, train
from studies.scores import read


def main(argv: list[str] | None = None) -> None:
    """Make the runs that the arguments ask for."""
    parser = arguments(__doc__.splitlines()[0], "microcalls", "cpu", 1)
    parser.add_argument("names", nargs="*", help="representations; default: all committed ones")
    options = parser.parse_args(argv)
    experiment = open_study(options)
    folder = results_of(experiment, options.out)
    kept = {file.name.removesuffix(".csv.gz"): file for file in folder.glob("scores/*.csv.gz")}
    with experiment.hold_runs():
        place = f"again on {processor()}"
        rows, scores = train(experiment, options.names or sorted(kept), [0], place, folds=1)
    rows = rows[["variant", "fold", "seed"]].assign(largest_difference=0.0)
    for row in rows.itertuples():
        old, new = read(kept[row.variant]), scores[row.variant].set_index("clip_id")
        old = old[(old["seed"] == row.seed) & (old["fold"] == row.fold)].set_index("clip_id")
        classes = classes_of(old)
        largest = (new.loc[old.index, classes] - old[classes]).abs().max(axis=None)
        rows.loc[row.Index, "largest_difference"] = round(largest, 7)
    about = {"processor": processor(), "date": surroundings()["date"], "commit": commit()[:7]}
    rows.assign(**about).to_csv(folder / "again.csv", index=False)
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
