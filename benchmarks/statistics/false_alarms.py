"""How often is the rule of `freesound_tagging.scoring.statistics` wrong where nothing differs?

From the committed scores of each data set come clips without any difference between
representations: every representation's mean is taken away, and the names of the representations are
shuffled within each recording (whole recordings, all seeds together), so that distribution, folds
and sizes are the real ones. Then luck of training is added, drawn from a normal distribution with
the measured variances of representation x fold, representation x seed and representation x fold x
seed. The rule then compares all pairs with one of them.

    python benchmarks/statistics/false_alarms.py           # about two minutes on one core
"""

import argparse
import json
from pathlib import Path

import numpy as np
from freesound_tagging.reporting.scores import read_scores

from freesound_tagging.experiment import ROOT
from freesound_tagging.scoring import statistics

DATASETS = ("esc10", "fsdd", "microcalls")
RECORD = Path(__file__).with_suffix(".json")


def training_variances(values: np.ndarray, folds: np.ndarray, groups: np.ndarray) -> dict:
    """Return the variances of representation x fold, x seed and x fold x seed, without recordings.

    ``values`` are of one metric, shape (clips, seeds, representations).
    """
    n_seeds, n_variants = values.shape[1:]
    n_folds = len(np.unique(folds))
    cells = np.stack([values[folds == fold].mean(axis=0) for fold in np.unique(folds)])
    (fold, seed, residual), _ = statistics._interactions(cells)
    pairs = [(i, j) for i in range(n_variants) for j in range(i)]
    errors = statistics.standard_errors(values, folds, groups, pairs)
    recordings = (errors["recordings_error"] ** 2).mean() / 2 * n_folds
    return {
        "representation x fold": max(0.0, (fold - residual) / n_seeds - recordings),
        "representation x seed": max(0.0, (seed - residual) / n_folds),
        "representation x fold x seed": residual,
    }


def shuffled(values: np.ndarray, groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the values with the representations in another order in each recording."""
    orders = generator.random((groups.max() + 1, values.shape[2])).argsort(axis=1)
    return np.take_along_axis(values, orders[groups][:, None, :], axis=2)


def simulate(name: str, times: int, scale: float = 1.0) -> dict:
    """Return how often the rule is wrong on null data like a data set's.

    ``scale`` multiplies the measured variances of training.
    """
    scores, table = read_scores(ROOT / "results" / name)
    measured, folds, groups = statistics._measure(scores, table, [statistics.VERDICT_METRIC])
    values = measured[..., 0]
    variances = training_variances(values, folds, groups)
    centred = values - values.mean(axis=(0, 1))
    n_seeds, n_variants = values.shape[1:]
    fold_of = np.unique(folds, return_inverse=True)[1]
    generator = np.random.default_rng(0)
    pairs = [(variant, 0) for variant in range(1, n_variants)]
    alarms = covered = equivalent = found = 0
    errors = []
    for _ in range(times):
        null = shuffled(centred, groups, generator)
        for variance, shape in zip(
            variances.values(),
            (
                (fold_of.max() + 1, 1, n_variants),
                (1, n_seeds, n_variants),
                (fold_of.max() + 1, n_seeds, n_variants),
            ),
            strict=True,
        ):
            luck = generator.normal(0, np.sqrt(scale * variance), shape)
            null = null + (luck[fold_of] if shape[0] > 1 else luck)
        frame = statistics.standard_errors(null, folds, groups, pairs)
        frame = frame.assign(metric=statistics.VERDICT_METRIC)
        frame = statistics.judge(frame, groups.max() + 1, ["metric"])
        wrong = frame["verdict"].isin(["better", "worse"])
        alarms += wrong.any()
        found += (frame["p"] < statistics.LEVEL).mean()
        covered += ((frame["low"] <= 0) & (frame["high"] >= 0)).mean()
        equivalent += (frame["verdict"] == "equivalent").mean()
        errors.append(frame["standard_error"].mean())
    return {
        "data set": name,
        "clips": len(values),
        "recordings": int(groups.max() + 1),
        "folds": int(fold_of.max() + 1),
        "seeds": n_seeds,
        "comparisons": len(pairs),
        "variances": {source: float(f"{scale * v:.3g}") for source, v in variances.items()},
        "repetitions": times,
        "false alarms in the family": round(alarms / times, 4),
        "false alarms of one comparison, unadjusted": round(found / times, 4),
        "coverage of the 95 % interval": round(covered / times, 4),
        "called equivalent": round(equivalent / times, 4),
        "mean standard error": round(float(np.mean(errors)), 4),
    }


def main() -> None:
    """Simulate every data set, with the measured luck of training and with twice as much."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=800)
    options = parser.parse_args()
    rows = []
    for name in DATASETS:
        for scale in (1.0, 2.0):
            row = {"training's variances times": scale, **simulate(name, options.times, scale)}
            print(json.dumps(row))
            rows.append(row)
    RECORD.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
