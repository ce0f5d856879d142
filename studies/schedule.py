"""Which schedule? log dB and mel dB alone, seed 0, on inner folds: settled before the grid is run.

Outer folds 0 and 1 are left out in turn. Of the other four the next one is scored, three train.
"""

import numpy as np
import pandas as pd

from studies.common import arguments, hold_out, keep, open_study, train

REPRESENTATIONS = ("log_db", "mel_db")
OUTER_FOLDS = (0, 1)
HEAD_EPOCHS = 2


def schedules(epochs: int) -> dict[str, dict]:
    """Return name -> changes of the profile; each schedule has ``epochs`` epochs in all."""
    at_once = {"frozen_epochs": 0, "epochs": epochs}
    head_first = {"frozen_epochs": HEAD_EPOCHS, "epochs": max(1, epochs - HEAD_EPOCHS)}
    return {
        "one_rate": {"lr_ratio": 1, **at_once},
        "slower_early_layers": {"lr_ratio": 10, **at_once},
        "head_first": {"lr_ratio": 1, **head_first},
        "head_first_slower_early_layers": {"lr_ratio": 10, **head_first},
    }


def main(argv: list[str] | None = None) -> None:
    """Make the runs and keep their scores."""
    options = arguments(__doc__.splitlines()[0], "esc10", "pretrained", 1).parse_args(argv)
    experiment = open_study(options)
    table = experiment.load_table()
    folds = sorted(table["fold"].unique())
    conditions = schedules(experiment.profile.frozen_epochs + experiment.profile.epochs)
    with experiment.hold_runs():
        for name, changes in conditions.items():
            parts = []
            for outer in OUTER_FOLDS:
                inner = hold_out(table[table["fold"] != outer], [folds[(outer + 1) % len(folds)]])
                place, seeds = f"schedule/{name}/without{outer}", range(options.seeds)
                parts.append(
                    train(experiment, REPRESENTATIONS, seeds, place, inner, folds=1, **changes)[1]
                )
            scores = {}
            for representation in REPRESENTATIONS:
                own = pd.concat([part[representation] for part in parts])
                own["fold"] = table["fold"].loc[own["clip_id"]].to_numpy(np.int64)  # not hold_out's
                scores[f"{name}-{representation}"] = own
            keep(experiment, options.out, scores, study="schedule", conditions={name: changes})


if __name__ == "__main__":
    main()
