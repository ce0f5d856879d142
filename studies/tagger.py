"""How good a tagger is everything at hand, averaged? Nothing is chosen.

Probabilities of all committed networks of a data set's strong profile are averaged, every
representation and seed alike. With a network that has heard sounds (profile ``audio``) the two
averages are averaged one to one.
"""

import argparse
from pathlib import Path

import pandas as pd

from freesound_tagging.scoring.metrics import average_networks, summarise
from studies.scores import RESULTS, read, read_clips

GROUPS = {"spectrograms": "pretrained", "audio": "audio"}
"""Name in the table -> profile."""


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


def tagger_table(folder: Path) -> pd.DataFrame:
    """Return the summary of each average, see `freesound_tagging.scoring.metrics.summarise`."""
    return summarise(average_everything(folder), read_clips(folder))


def main(argv: list[str] | None = None) -> None:
    """Print the table; ``results/recompute.py`` writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="esc10")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    print(tagger_table(options.out / options.dataset).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
