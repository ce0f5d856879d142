"""The Free Spoken Digit Dataset: ten digits by six speakers, one fold for each speaker."""

from pathlib import Path

import pandas as pd

from freesound_tagging.sounds.archives import Dataset, fetch, github_archive, read_manifest
from freesound_tagging.sounds.tables import as_table

DATASET = Dataset(
    licence="CC BY-SA 4.0",
    citation="Z. Jackson and others. Free Spoken Digit Dataset. doi 10.5281/zenodo.1342401",
    archives=(
        github_archive(
            "Jakobovski/free-spoken-digit-dataset",
            "26eb9aaf76e81b692f806f9140c2d2777410d7a1",
            "fsdd",
        ),
    ),
)


def load(root: Path) -> pd.DataFrame:
    """Return the clip table, see `catalogue.load`.

    File names: `recordings/DIGIT_SPEAKER_INDEX.wav`. Takes of one digit by one speaker are near
    copies of each other, so they are one group.
    """
    clips = read_manifest("fsdd")
    folder = fetch(DATASET.archives[0], root, dict(clips["sha256"]))
    parts = clips.index.str.extract(r"/(?P<label>\d)_(?P<speaker>\w+)_\d+\.wav")
    return as_table(
        parts.assign(
            path=[str(folder / file) for file in clips.index],
            fold=pd.factorize(parts["speaker"], sort=True)[0],
            group=parts["speaker"] + "_" + parts["label"],
        )
    )
