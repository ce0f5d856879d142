"""Scores of several networks and clip statistics -> scores of a stack on top of them.

A stack learns from predictions, and those must be as blind as the ones it will be used on. For a
held-out fold f it is trained on the clips of every other fold g, as networks scored them that
learned from neither f nor g; then it predicts the clips of f from networks that did not learn
from f. So no label of fold f has a way into a prediction of fold f: neither through the stack nor
through a network below it (`nested_features`).

With one set of out-of-fold scores alone (`simple_features`) the first way is closed and the second
is not: the networks that scored fold g have learned from the clips of f.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from freesound_tagging.scoring.metrics import KEYS, classes_of, clip_metrics

STATISTICS = "statistics"
"""The member that is no network."""

Features = Callable[[int], tuple[pd.DataFrame, pd.DataFrame]]
"""Held-out fold -> features of the clips to learn from, and of the clips of that fold.

Index ``clip_id``; columns in two levels, member and feature.
"""


def fold_pairs(folds: np.ndarray) -> list[tuple[int, int]]:
    """Return every pair of folds, in the order in which inner runs count them."""
    return list(combinations(sorted(int(fold) for fold in np.unique(folds)), 2))


def log_probabilities(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the log of each clip's probabilities, averaged over seeds; 1e-6 at least."""
    classes = classes_of(scores)
    mean = scores.groupby("clip_id")[classes].mean()
    return np.log(mean.clip(lower=1e-6))


def _join(members: Mapping[str, pd.DataFrame], clip_ids: pd.Index) -> pd.DataFrame:
    return pd.concat({name: frame.loc[clip_ids] for name, frame in members.items()}, axis=1)


def _clips(table: pd.DataFrame, members: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the clips that every member knows."""
    known = set.intersection(*[set(frame.index) for frame in members.values()])
    return table[table.index.isin(known)].sort_index()


def nested_features(
    table: pd.DataFrame,
    outer: Mapping[str, pd.DataFrame],
    inner: Mapping[str, pd.DataFrame],
    statistics: pd.DataFrame | None = None,
) -> Features:
    """Return features in which no label of a fold reaches that fold, see the module.

    Parameters
    ----------
    table : clips, index ``clip_id``, column ``fold``.
    outer : network -> out-of-fold scores, one fold held out at a time.
    inner : network -> scores with two folds held out at a time; ``fold`` counts `fold_pairs`.
    statistics : one row a clip; None leaves them out.
    """
    pairs = fold_pairs(table["fold"].to_numpy())
    own = {} if statistics is None else {STATISTICS: statistics}
    whole = {name: log_probabilities(scores) for name, scores in outer.items()} | own
    clips = _clips(table, whole)

    def features(fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        held_out = _join(whole, clips.index[clips["fold"] == fold])
        parts = [held_out.iloc[:0]]
        for number, pair in enumerate(pairs):
            if fold not in pair or held_out.empty:
                continue
            (other,) = set(pair) - {fold}
            blind = {
                name: log_probabilities(scores[scores["fold"] == number])
                for name, scores in inner.items()
            }
            parts.append(_join(blind | own, clips.index[clips["fold"] == other]))
        return pd.concat(parts).sort_index(), held_out

    return features


def simple_features(
    table: pd.DataFrame,
    outer: Mapping[str, pd.DataFrame],
    statistics: pd.DataFrame | None = None,
) -> Features:
    """Return features from one set of out-of-fold scores, see the module for what that leaves open.

    Parameters as in `nested_features`; without networks nothing is left open.
    """
    own = {} if statistics is None else {STATISTICS: statistics}
    whole = {name: log_probabilities(scores) for name, scores in outer.items()} | own
    clips = _clips(table, whole)

    def features(fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        held_out = clips["fold"] == fold
        return _join(whole, clips.index[~held_out]), _join(whole, clips.index[held_out])

    return features


def make_lightgbm(seed: int = 0):
    """Return gradient-boosted trees for a few hundred clips: small, slow, a third of the columns
    at a time. Settings were fixed before any score was seen."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        n_estimators=150,
        learning_rate=0.05,
        num_leaves=7,
        min_child_samples=5,
        colsample_bytree=0.33,
        subsample=0.8,
        subsample_freq=1,
        reg_lambda=1.0,
        random_state=seed,
        n_jobs=1,
        deterministic=True,
        force_col_wise=True,
        verbose=-1,
    )


def make_logistic(seed: int = 0):
    """Return logistic regression, much shrunk: there are more features than clips."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=1000, random_state=seed)
    )


def make_forest(seed: int = 0):
    """Return a random forest of 500 trees."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(500, random_state=seed, n_jobs=1)


def out_of_fold(
    model: Callable, table: pd.DataFrame, features: Features, seed: int = 0
) -> tuple[pd.DataFrame, dict]:
    """Train a model for each held-out fold, and return its scores and the models.

    Parameters
    ----------
    model : seed -> scikit-learn classifier.
    table : clips, index ``clip_id``, columns label and fold.
    features : see `Features`.

    Returns
    -------
    scores : as `freesound_tagging.scoring.metrics` has them; and fold -> fitted model.
    """
    classes = sorted(table["label"].unique())
    frames, models = [], {}
    for fold in sorted(table["fold"].unique()):
        seen, held_out = features(int(fold))
        if held_out.empty:
            continue  # a profile may run a few folds only
        models[int(fold)] = model(seed).fit(seen.to_numpy(), table.loc[seen.index, "label"])
        frames.append(_scores(models[int(fold)], held_out, table, classes, seed))
    return pd.concat(frames, ignore_index=True), models


def _scores(model, held_out: pd.DataFrame, table: pd.DataFrame, classes: list[str], seed: int):
    probabilities = pd.DataFrame(
        model.predict_proba(held_out.to_numpy()), index=held_out.index, columns=model.classes_
    )
    about = table.loc[held_out.index, ["fold", "label"]].assign(seed=seed)
    scores = about.join(probabilities.reindex(columns=classes, fill_value=0.0))
    return scores.rename_axis("clip_id").reset_index()[[*KEYS, *classes]]


def permutation_importance(
    models: Mapping, table: pd.DataFrame, features: Features, repeats: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Return how much MAP@3 falls when one member's features are shuffled between held-out clips.

    All features of a member are shuffled together, so that members can be compared however many
    features they have. What two members both know shows in neither.

    Returns
    -------
    Columns member, importance (fall of MAP@3, mean over repeats), deviation (over repeats); the
    most important first.
    """
    rng = np.random.default_rng(seed)
    classes = sorted(table["label"].unique())
    held_out = {fold: features(fold)[1] for fold in models}

    def map3(fold: int, values: pd.DataFrame) -> pd.Series:
        return clip_metrics(_scores(models[fold], values, table, classes, 0))["map3"]

    whole = pd.concat([map3(fold, values) for fold, values in held_out.items()]).mean()
    falls = defaultdict(list)
    for _ in range(repeats):
        shuffled = defaultdict(list)
        for fold, values in held_out.items():
            for member in values.columns.levels[0]:
                changed = values.copy()
                changed[member] = rng.permutation(values[member].to_numpy())
                shuffled[member].append(map3(fold, changed))
        for member, parts in shuffled.items():
            falls[member].append(whole - pd.concat(parts).mean())
    rows = [(member, np.mean(own), np.std(own)) for member, own in falls.items()]
    frame = pd.DataFrame(rows, columns=["member", "importance", "deviation"])
    return frame.sort_values("importance", ascending=False, ignore_index=True)
