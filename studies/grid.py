"""The grid of results/PLAN.md: every representation with seed 0, then with seed 1, and so on.

    python -m studies.grid --dataset esc10 --profile pretrained [--seeds 3] [log_db mel_db ...]

Without names the plan's steps for the data set are made in their order. Runs that are made are
never made again, those in results/ neither; scores are copied there as they come.
"""

from fastcore.basics import chunked

from freesound_tagging.errors import look_up
from freesound_tagging.runs import check_representations
from studies.common import arguments, committed, keep, open_study, train
from studies.plan import GRID


def main(argv: list[str] | None = None) -> None:
    """Make the runs that the arguments ask for."""
    parser = arguments(__doc__.splitlines()[0], "esc10", "pretrained", 0)
    parser.add_argument("names", nargs="*", help="representations; default: the plan's")
    options = parser.parse_args(argv)
    if options.names:
        steps = [(options.names, options.seeds or 1)]
    else:
        steps = look_up("grid", f"{options.dataset}/{options.profile}", GRID)
    experiment = open_study(options)
    check_representations(options.names, experiment.profile)
    there = committed(experiment, options.out)
    with experiment.hold_runs():
        for names, seeds in steps:
            for seed in range(options.seeds or seeds):
                lacking = [name for name in names if (name, seed) not in there]
                for pair in chunked(lacking, 2):  # two at a time: little is lost with a machine
                    rows, scores = train(experiment, pair, [seed])
                    keep(experiment, options.out, scores, rows)


if __name__ == "__main__":
    main()
