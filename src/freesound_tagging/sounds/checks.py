"""Before hours of work: is there a sound to learn from, and one to test on, for every label?"""

from collections.abc import Mapping

import pandas as pd

from freesound_tagging.errors import DataError
from freesound_tagging.sounds.clips import ClipError, ClipSettings, load_clip


def check_labels(table: pd.DataFrame, failed: Mapping[str, str]) -> None:
    """Refuse a table of which a label is lost, or left in one fold, without the unreadable clips.

    Parameters
    ----------
    table : clips, index `clip_id`, columns `label` and `fold` (-1 for test clips).
    failed : clip id -> why the clip cannot be read.

    Raises
    ------
    DataError
        Naming the label and why its clips cannot be read.
    """
    train = table[table["fold"] >= 0]
    readable = train[~train.index.isin(list(failed))]
    before, after = (part.groupby("label")["fold"].nunique() for part in (train, readable))
    for label, folds in before.items():
        if folds > 1 and after.get(label, 0) < 2:
            own = train.index[train["label"] == label]
            reasons = [failed[clip_id] for clip_id in own if clip_id in failed]
            more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            raise DataError(
                f"label {label!r} has readable clips in {after.get(label, 0)} folds, and needs "
                f"them in two, to be learned and tested: {'; '.join(reasons[:3])}{more}. Mend or "
                "replace these files, or take the label out of the table"
            )


def check_sounds(table: pd.DataFrame, settings: ClipSettings) -> None:
    """Decode as few clips as will show that every label has readable ones in two folds.

    That is two clips for each label where nothing is wrong.

    Raises
    ------
    DataError
        As `check_labels`; or all clips are silent.
    """
    failed: dict[str, str] = {}
    sounds = False
    for _, own in table[table["fold"] >= 0].groupby("label"):
        folds: set[int] = set()
        for clip in own.itertuples():
            # While no clip has sounded, the next one may.
            if sounds and (clip.fold in folds or len(folds) > 1):
                continue
            try:
                _, note = load_clip(clip.path, settings)
            except ClipError as error:
                failed[clip.Index] = str(error)
            else:
                folds.add(clip.fold)
                sounds = sounds or not note.startswith("silent")
    check_labels(table, failed)
    if not sounds:
        raise DataError(
            f"no clip holds sound: all are silent, {table['path'].iloc[0]} for one. Check the "
            "recorder, or the program that exported the files"
        )
