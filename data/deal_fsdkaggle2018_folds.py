"""Deal the train clips of FSDKaggle2018 into five folds, and write fsdkaggle2018_folds.csv.

python data/deal_fsdkaggle2018_folds.py FOLDER

FOLDER holds the tables of Zenodo's FSDKaggle2018.meta.zip. The folds are stratified on label x
manually_verified, and runs of uploads stay whole: see README.md.
"""

import hashlib
import sys
from collections import Counter
from pathlib import Path

import pandas as pd


def upload_groups(clips: pd.DataFrame) -> pd.Series:
    """Return for each clip the lowest Freesound number of its run: consecutive numbers, one label.

    Parameters
    ----------
    clips : columns fname, label and freesound_id; their order does not matter.
    """
    clips = clips.sort_values(["freesound_id", "fname"])
    apart = clips["freesound_id"].diff()
    other = clips["label"] != clips["label"].shift()
    begins = (apart > 1) | ((apart == 1) & other) | apart.isna()
    return clips["freesound_id"].groupby(begins.cumsum()).transform("first").astype(str)


def deal(strata: pd.Series, groups: pd.Series, n_folds: int = 5) -> pd.Series:
    """Return a fold for each clip, of like composition; groups stay whole.

    Groups are dealt one at a time, large ones first and otherwise in the order of a hash of their
    names, each to the fold that has the fewest clips of the group's strata so far.
    """
    size = Counter(strata)
    content = {group: Counter(own) for group, own in strata.groupby(groups)}
    held = [Counter() for _ in range(n_folds)]
    fold_of = {}

    def turn(group: str) -> tuple[int, str]:
        return -content[group].total(), hashlib.sha256(f"0:{group}".encode()).hexdigest()

    for group in sorted(content, key=turn):
        # Sorted, so that the sum over strata is rounded alike whatever the order of the rows.
        parts = sorted(content[group].items())
        fold_of[group] = min(
            range(n_folds),
            key=lambda fold, parts=parts: (
                sum(n * held[fold][stratum] / size[stratum] for stratum, n in parts),
                held[fold].total(),
                fold,
            ),
        )
        held[fold_of[group]].update(content[group])
    return groups.map(fold_of)


def make_folds(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Return columns fname, fold (-1 for test clips) and group, sorted by fname."""
    clips = pd.concat([train, test], ignore_index=True)
    clips["group"] = upload_groups(clips)
    clips["fold"] = -1
    own = clips.iloc[: len(train)]
    strata = own["label"] + "|" + own["manually_verified"].astype(int).astype(str)
    clips.loc[own.index, "fold"] = deal(strata, own["group"])
    return clips.sort_values("fname")[["fname", "fold", "group"]]


if __name__ == "__main__":
    tables = Path(sys.argv[1])
    folds = make_folds(
        pd.read_csv(tables / "train_post_competition.csv"),
        pd.read_csv(tables / "test_post_competition_scoring_clips.csv"),
    )
    file = Path(__file__).with_name("fsdkaggle2018_folds.csv")
    folds.to_csv(file, index=False, lineterminator="\n")
    print(f"{file}: {len(folds)} clips")
