"""The test clips that a challenge scored: fold models averaged, MAP@3 by ranking, a submission.

Scores are as in `metrics`, with a row for each clip, seed and fold that the network did not see.
"""

import numpy as np
import pandas as pd

from freesound_tagging.scoring.metrics import average_networks, classes_of, clip_metrics


def average_folds(scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row a clip, the mean of all fold models' probabilities; fold is -1, seed 0."""
    return average_networks(scores.assign(fold=-1))


def summarise_test(scores: dict[str, pd.DataFrame], usage: pd.Series) -> pd.DataFrame:
    """Return the scores of each representation on the test clips, best MAP@3 first.

    ``usage`` is Public or Private, index ``clip_id``.
    """
    rows = []
    for variant, frame in scores.items():
        metrics = clip_metrics(average_folds(frame)).set_index("clip_id")
        by_usage = metrics.groupby(usage.loc[metrics.index])["map3"].mean()
        rows.append(
            {
                "variant": variant,
                "n": len(metrics),
                "networks": len(frame[["fold", "seed"]].drop_duplicates()),
                "map3_public": by_usage.get("Public", np.nan),
                "map3_private": by_usage.get("Private", np.nan),
                "map3": metrics["map3"].mean(),
                "top3_error": metrics["top3_error"].mean(),
            }
        )
    by = ["map3", "variant"]
    return pd.DataFrame(rows).sort_values(by, ascending=[False, True], ignore_index=True)


def submission(averaged: pd.DataFrame, sample: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a submission as the challenge wants it: fname, and three labels, best first.

    ``averaged`` are scores of `average_folds`. The rows are those of the challenge's sample
    submission; clips that were not scored keep its labels, for the site takes no shorter file.
    Without a sample they are the scored clips.
    """
    classes = np.asarray(classes_of(averaged))
    # Of equal scores the class with the lower index ranks first, as in the metrics.
    best = np.argsort(-averaged[classes].to_numpy(), axis=1, kind="stable")[:, :3]
    labels = [" ".join(three) for three in classes[best]]
    own = pd.Series(labels, index=averaged["clip_id"] + ".wav")
    if sample is None:
        sample = pd.DataFrame({"fname": own.index.sort_values(), "label": ""})
    return sample.assign(label=sample["fname"].map(own).fillna(sample["label"]))[["fname", "label"]]
