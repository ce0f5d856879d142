"""How good a tagger is everything at hand, averaged? Nothing is chosen.

Probabilities of all committed networks of a data set's strong profile are averaged, every
representation and seed alike. With a network that has heard sounds (profile ``audio``) the two
averages are averaged one to one. ``results/recompute.py`` makes the table.
"""

from pathlib import Path

import pandas as pd

from freesound_tagging.scoring.metrics import average_networks
from studies.scores import read

GROUPS = {"spectrograms": "pretrained", "audio": "audio"}  # name in the table -> profile


def average_everything(folder: Path) -> dict[str, pd.DataFrame]:
    """Return name -> averaged scores of a data set's folder of results."""
    averaged = {}
    for name, profile in GROUPS.items():
        files = sorted((folder / profile / "scores").glob("*.csv.gz"))
        if files:
            averaged[name] = average_networks(pd.concat(map(read, files)))
    if len(averaged) > 1:
        averaged["spectrograms and audio"] = average_networks(pd.concat(averaged.values()))
    return averaged
