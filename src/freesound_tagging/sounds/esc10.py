"""ESC-10: 400 environmental sounds of five seconds in ten classes, with the five folds given."""

from pathlib import Path

import pandas as pd

from freesound_tagging.sounds.archives import Dataset, fetch, github_archive, read_manifest
from freesound_tagging.sounds.tables import as_table

DATASET = Dataset(
    licence="CC BY 3.0; the author of each clip is named in the README unpacked with the clips",
    citation=(
        "K. J. Piczak. ESC: Dataset for Environmental Sound Classification. "
        "ACM Multimedia 2015. doi 10.1145/2733373.2806390"
    ),
    archives=(
        github_archive("karolpiczak/ESC-10", "553c8f1743b9dba6b282e1323c3ca8fa76923448", "esc10"),
    ),
)


def load(root: Path) -> pd.DataFrame:
    """Return the clip table, see `catalogue.load`; `group` is the Freesound id of the recording.

    File names: `NNN - Class name/FOLD-FREESOUNDID-TAKE.ogg`, with FOLD from 1.
    """
    clips = read_manifest("esc10")
    folder = fetch(DATASET.archives[0], root, dict(clips["sha256"]))
    parts = clips.index.str.extract(r"\d+ - (?P<label>.*)/(?P<fold>\d)-(?P<group>\d+)-\w+\.ogg")
    paths = [str(folder / file) for file in clips.index]
    return as_table(parts.assign(path=paths, fold=parts["fold"].astype(int) - 1))
