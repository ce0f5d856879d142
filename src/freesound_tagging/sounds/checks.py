"""Before hours of work: is there a sound to learn from, and one to test on, for every label?"""

import pandas as pd

from freesound_tagging.errors import DataError
from freesound_tagging.sounds.clips import ClipError, ClipSettings, load_clip


def check_sounds(table: pd.DataFrame, settings: ClipSettings) -> None:
    """Decode as few clips as will show that every label has readable ones in two folds.

    That is two clips for each label where nothing is wrong. `DataError` names the label and why its
    clips cannot be read, or says that all clips are silent.
    """
    sounds = False
    for label, own in table[table["fold"] >= 0].groupby("label"):
        folds: set[int] = set()
        reasons: list[str] = []
        for clip in own.itertuples():
            # While no clip has sounded, the next one may.
            if sounds and (clip.fold in folds or len(folds) > 1):
                continue
            try:
                _, note = load_clip(clip.path, settings)
            except ClipError as error:
                reasons.append(str(error))
            else:
                folds.add(clip.fold)
                sounds = sounds or not note.startswith("silent")
        if len(folds) < min(2, own["fold"].nunique()):
            more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            raise DataError(
                f"label {label!r} has readable clips in {len(folds)} folds, and needs them in two, "
                f"to be learned and tested: {'; '.join(reasons[:3])}{more}. Mend or replace these "
                "files, or take the label out of the table"
            )
    if not sounds:
        raise DataError(
            f"no clip holds sound: all are silent, {table['path'].iloc[0]} for one. Check the "
            "recorder, or the program that exported the files"
        )
