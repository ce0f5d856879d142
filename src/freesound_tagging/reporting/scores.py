"""Out-of-fold scores as they are committed: one compressed CSV a representation or condition."""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from freesound_tagging.scoring.metrics import KEYS, classes_of, target_ranks, true_indices

FULL_SCORES = 60_000
"""Of a variant with more scores than this, only those are published that its ranks depend on."""


def pack_scores(scores: dict[str, pd.DataFrame], table: pd.DataFrame) -> bytes:
    """Return out-of-fold scores as one compressed CSV, the same bytes for the same scores.

    Of a variant with more than `FULL_SCORES` scores only those are kept that are among a clip's
    three highest or no lower than that of its true class: ranks, and with them every metric, stay
    the same, and the file small. The others are left blank. Scores have five digits, or nine where
    five would make two of them equal and so move a rank.

    Raises
    ------
    ValueError
        Where a clip that was scored is not in the table.
    """
    frames = []
    for name, frame in scores.items():
        unknown = set(frame["clip_id"]) - set(table.index)
        if unknown:
            raise ValueError(f"clip {min(unknown)!r} of {name!r} is not in the table of clips")
        classes = classes_of(frame)
        frame = frame.sort_values(["seed", "clip_id"]).reset_index(drop=True)
        if len(frame) * len(classes) > FULL_SCORES:
            values = frame[classes].to_numpy()
            true = values[np.arange(len(frame)), true_indices(frame)]
            third = np.sort(values, axis=1)[:, -min(3, len(classes))]
            kept = values >= np.minimum(true, third)[:, None]
            frame = frame.assign(**frame[classes].where(kept))
        frames.append(frame.assign(variant=name, group=frame["clip_id"].map(table["group"])))
    first = ["variant", "group"]
    together = pd.concat(frames)
    together = together[[*first, *together.columns.drop(first)]]
    text = together.to_csv(index=False, float_format="%.5g")
    rounded = pd.read_csv(io.StringIO(text), usecols=classes)[classes]
    before = _true_ranks(together["label"], together[classes])
    if (before != _true_ranks(together["label"], rounded)).any():
        text = together.to_csv(index=False, float_format="%.9g")
    return gzip.compress(text.encode(), mtime=0)


def _true_ranks(labels: pd.Series, scores: pd.DataFrame) -> np.ndarray:
    """Return the rank of each row's true class; blank scores are the lowest."""
    places = labels.map({label: i for i, label in enumerate(scores)}).to_numpy(dtype=int)
    return target_ranks(scores.fillna(0.0), places)


def unpack_scores(file: Path) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the scores that `pack_scores` wrote, and a clip table with the column group."""
    words = dict.fromkeys(("variant", "clip_id", "group", "label"), str)
    # A label may be "None" or "NA"; it is a word here, not a gap.
    frame = pd.read_csv(file, dtype=words, keep_default_na=False, na_values={})
    classes = [column for column in frame if column not in (*KEYS, "variant", "group")]
    frame[classes] = frame[classes].replace("", 0).astype(float)
    table = frame.drop_duplicates("clip_id").set_index("clip_id")[["group"]]
    scores = {
        name: part.drop(columns=["variant", "group"]).reset_index(drop=True)
        for name, part in frame.groupby("variant", sort=False)
    }
    return scores, table


def read_scores(folder: Path) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the published scores of a grid, in the order of its results, and a clip table."""
    results = pd.read_csv(folder / "results.csv")
    scores, tables = {}, []
    for variant in results["variant"].unique():
        own, table = unpack_scores(folder / "scores" / f"{variant}.csv.gz")
        scores |= own
        tables.append(table)  # of an unfinished grid some hold only the clips of a few folds
    table = pd.concat(tables)
    return scores, as_drawn(results["dataset"].iloc[0], table[~table.index.duplicated()])


def as_drawn(dataset: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return a clip table whose groups are what another sample would have others of.

    Recordings, but for FSDD: its question is about unseen speakers, and six were drawn.
    """
    if dataset != "fsdd":
        return table
    return table.assign(group=table.index.str.split("_").str[1])


def read_cells(
    folder: Path, cells: Sequence[str]
) -> tuple[dict[str, dict[str, pd.DataFrame]], pd.DataFrame]:
    """Return the published scores of a study, cell -> variant -> frame, and a clip table."""
    unpacked = {cell: unpack_scores(folder / "scores" / f"{cell}.csv.gz") for cell in cells}
    tables = pd.concat(table for _, table in unpacked.values())
    return (
        {cell: scores for cell, (scores, _) in unpacked.items()},
        tables[~tables.index.duplicated()],
    )
