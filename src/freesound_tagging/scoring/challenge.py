"""The test clips that a challenge scored: fold models averaged, MAP@3 by ranking, a submission.

Scores are as in `metrics`, but of clips in no fold: each has one row for each fold (the one that
the network did not see) and seed.
"""

import numpy as np
import pandas as pd

from freesound_tagging.scoring.metrics import KEYS, classes_of, clip_metrics


def average_folds(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of all fold models' probabilities, every model with the same weight.

    Parameters
    ----------
    scores : one variant's scores of the test clips, columns clip_id, seed, fold, label, classes.

    Returns
    -------
    One row a clip, sorted by ``clip_id``: the columns of ``scores``; ``seed`` and ``fold`` are -1,
    for the rows are of no one network.

    Raises
    ------
    ValueError
        Where a clip was not scored once by every network.
    """
    networks = scores[["fold", "seed"]].drop_duplicates()
    times = scores.groupby(["clip_id", "fold", "seed"]).size().unstack(["fold", "seed"])
    wrong = (times != 1).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"test clip {wrong.idxmax()!r} was not scored once by each of the {len(networks)} "
            "networks; run the grid again"
        )
    classes = classes_of(scores)
    averaged = scores.groupby(["clip_id", "label"])[classes].mean().reset_index()
    return averaged.assign(seed=-1, fold=-1)[[*KEYS, *classes]]


def summarise_test(
    scores: dict[str, pd.DataFrame],
    usage: pd.Series,
    out_of_fold: dict[str, pd.DataFrame],
) -> pd.DataFrame:
    """Return the scores of each representation on the test clips, best MAP@3 first.

    Parameters
    ----------
    scores : representation -> scores of the test clips.
    usage : Public or Private, index ``clip_id``.
    out_of_fold : representation -> scores of the training clips, by networks that did not see them.

    Returns
    -------
    Columns variant, n (scored clips), networks (averaged), map3_public, map3_private, map3 (over
    all), top3_error, and for comparison out_of_fold_map3 and out_of_fold_top3_error, which are of
    single networks.

    Raises
    ------
    ValueError
        Where a clip has no usage, or the networks did not all score it.
    """
    rows = []
    for variant, frame in scores.items():
        metrics = clip_metrics(average_folds(frame)).set_index("clip_id")
        unknown = metrics.index.difference(usage.index)
        if len(unknown):
            raise ValueError(f"test clip {unknown[0]!r} is neither Public nor Private")
        by_usage = metrics.groupby(usage.loc[metrics.index])["map3"].mean()
        apart = clip_metrics(out_of_fold[variant])
        rows.append(
            {
                "variant": variant,
                "n": len(metrics),
                "networks": len(frame[["fold", "seed"]].drop_duplicates()),
                "map3_public": by_usage.get("Public", np.nan),
                "map3_private": by_usage.get("Private", np.nan),
                "map3": metrics["map3"].mean(),
                "top3_error": metrics["top3_error"].mean(),
                "out_of_fold_map3": apart["map3"].mean(),
                "out_of_fold_top3_error": apart["top3_error"].mean(),
            }
        )
    ranked = pd.DataFrame(rows).sort_values(["map3", "variant"], ascending=[False, True])
    return ranked.reset_index(drop=True)


def submission(averaged: pd.DataFrame, sample: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a submission as the challenge wants it: fname, and three labels, best first.

    Parameters
    ----------
    averaged : as returned by `average_folds`.
    sample : the challenge's sample submission, columns fname and label. With it the rows are its
        rows in its order, and clips that were not scored keep the sample's labels: the site takes
        no shorter file. Without it there are the scored clips alone, in order of their names.

    Returns
    -------
    Columns fname, label.
    """
    classes = np.asarray(classes_of(averaged))
    # Of equal scores the class with the lower index ranks first, as in the metrics.
    best = np.argsort(-averaged[classes].to_numpy(), axis=1, kind="stable")[:, :3]
    labels = [" ".join(three) for three in classes[best]]
    own = pd.Series(labels, index=averaged["clip_id"] + ".wav")
    if sample is None:
        return own.sort_index().rename_axis("fname").rename("label").reset_index()
    return sample.assign(label=sample["fname"].map(own).fillna(sample["label"]))[["fname", "label"]]
