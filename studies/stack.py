"""Does a stack of networks and clip statistics beat its members? Boosted trees on top of them.

The stack for a held-out fold f learns from the clips of every other fold g, as networks scored them
that learned from neither f nor g. Then it predicts the clips of f from networks that did not learn
from f. So no label of fold f has a way into a prediction of fold f.
"""

from itertools import combinations

import joblib
import librosa
import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier

import freesound_tagging
from freesound_tagging.scoring.metrics import KEYS, average_networks, classes_of
from studies.common import arguments, hold_out, keep, open_study, train

MEMBERS = ("log_db", "log_linear", "hires_q2")
"""Decibels, magnitude, high resolution. Each is trained once more for every two folds."""

# Small, slow, a third of the columns at a time; fixed before any score was seen.
TREES = {"n_estimators": 150, "learning_rate": 0.05, "num_leaves": 7, "min_child_samples": 5}
TREES |= {"colsample_bytree": 0.33, "random_state": 0, "n_jobs": 1, "verbose": -1}


def clip_statistics(path: str) -> np.ndarray:
    """Return mean and standard deviation over time of librosa's features of a clip, shape (82,)."""
    waveform, rate = freesound_tagging.decode(path)
    magnitude = np.abs(librosa.stft(waveform, n_fft=2048))
    of_magnitude = {"S": magnitude, "sr": rate}
    features = [
        librosa.feature.mfcc(y=waveform, sr=rate),
        librosa.feature.chroma_stft(**of_magnitude, tuning=0.0),
        librosa.feature.spectral_contrast(**of_magnitude, n_bands=4, fmin=100.0),
        librosa.feature.spectral_centroid(**of_magnitude),
        librosa.feature.spectral_bandwidth(**of_magnitude),
        librosa.feature.spectral_flatness(S=magnitude),
        librosa.feature.zero_crossing_rate(waveform),
    ]
    rows = np.concatenate([feature[:, : magnitude.shape[1]] for feature in features])
    return np.concatenate([rows.mean(axis=1), rows.std(axis=1)])


def features(scores: dict[str, pd.DataFrame], statistics: pd.DataFrame | None) -> pd.DataFrame:
    """Return a row for each clip: log probabilities of all members, and the statistics."""
    parts = []
    for name, frame in scores.items():
        own = average_networks(frame).set_index("clip_id")[classes_of(frame)]
        parts.append(np.log(own.clip(lower=1e-6)).add_prefix(f"{name} "))
    together = pd.concat(parts, axis=1)
    return together if statistics is None else together.join(statistics)


def stack(
    table: pd.DataFrame,
    outer: dict[str, pd.DataFrame],
    inner: dict[frozenset, dict[str, pd.DataFrame]],
    statistics: pd.DataFrame | None,
) -> pd.DataFrame:
    """Return the out-of-fold scores of boosted trees, as seed 0.

    Parameters
    ----------
    table : clips, index ``clip_id``, columns label and fold.
    outer : member -> out-of-fold scores.
    inner : two folds -> member -> scores of their clips, by networks that learned from neither.
    statistics : a row for each clip, or None.
    """
    seen_by_all = features(outer, statistics)
    frames = []
    for fold in sorted(set().union(*inner)):
        learn = []
        for pair, scores in inner.items():
            if fold in pair:
                blind = features(scores, statistics)
                learn.append(blind[table["fold"].loc[blind.index] != fold])
        known = pd.concat(learn)
        trees = LGBMClassifier(**TREES).fit(known.to_numpy(), table["label"].loc[known.index])
        new = seen_by_all[table["fold"].loc[seen_by_all.index] == fold]
        own = table.loc[new.index, ["fold", "label"]].assign(seed=0).reset_index(names="clip_id")
        values = pd.DataFrame(trees.predict_proba(new.to_numpy()), columns=trees.classes_)
        frames.append(own[KEYS].join(values))
    return pd.concat(frames, ignore_index=True).fillna(0.0)


def main(argv: list[str] | None = None) -> None:
    """Make the runs, stack them, and keep the stacks' scores."""
    options = arguments(__doc__.splitlines()[0], "microcalls", "cpu", 1).parse_args(argv)
    experiment = open_study(options)
    with experiment.hold_runs():
        table, seeds = experiment.load_table(), range(options.seeds)
        outer = train(experiment, MEMBERS, seeds)[1]
        inner = {}
        for pair in combinations(sorted(next(iter(outer.values()))["fold"].unique()), 2):
            place = "stack/without{}and{}".format(*pair)
            held = hold_out(table, pair)
            inner[frozenset(pair)] = train(experiment, MEMBERS, seeds, place, held, folds=1)[1]
        values = joblib.Parallel(n_jobs=-1)(map(joblib.delayed(clip_statistics), table["path"]))
        statistics = pd.DataFrame(values, table.index).add_prefix("statistic ")
        stacks = {
            "lightgbm": stack(table, outer, inner, statistics),
            "lightgbm_networks_alone": stack(table, outer, inner, None),
            "mean_of_networks": average_networks(pd.concat(outer.values())),
        }
        keep(experiment, options.out, stacks, study="stack")


if __name__ == "__main__":
    main()
