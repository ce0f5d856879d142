"""How well does YAMNet, which has heard sounds, tag a data set?

Whole clips -> embeddings, their mean and maximum over patches -> logistic regression, its C chosen
inside the training folds -> out-of-fold probabilities under results/. `--slowed` plays recordings
at 16 kHz, so that those of 44.1 kHz sound 2.76 times lower: insects sing above what the network
hears. `--inputs mean` or `scores` (AudioSet's 521) takes less of the network.
"""

import argparse
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from freesound_tagging import decode, load
from freesound_tagging.learning import yamnet
from studies.common import commit, machine
from studies.scores import RESULTS, pack

INPUTS = {
    "mean": lambda network, vectors: vectors.mean(dim=0).numpy(),
    "mean_and_maximum": lambda network, vectors: yamnet.mean_and_maximum(vectors),
    "scores": lambda network, vectors: yamnet.class_scores(network, vectors).numpy(),
}
STRENGTHS = {"logisticregression__C": 10.0 ** np.arange(-3, 3)}


def read_inputs(paths: Iterable[str], kind: str, slowed: bool = False) -> np.ndarray:
    """Return what a head sees of each recording, shape (recordings, 1024, 2048 or 521)."""
    network, rows = yamnet.load_yamnet(), []
    for path in tqdm(paths, unit="clip"):
        waveform, sample_rate = decode(path)
        rate = yamnet.SAMPLE_RATE if slowed else sample_rate
        vectors = yamnet.embeddings(network, yamnet.log_mel_patches(waveform, rate))
        rows.append(INPUTS[kind](network, vectors))
    return np.stack(rows)


def make_head(**options: object) -> Pipeline:
    """Return logistic regression on standardised inputs.

    PCA turns the axes, which changes nothing in the fit, and leaves as many as there are clips.
    """
    return make_pipeline(StandardScaler(), PCA(), LogisticRegression(max_iter=2000, **options))


def seen_log_loss(head: Pipeline, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Score a head, higher is better, by the clips of classes that it has met.

    All recordings of a rare class may lie in the two folds that are held out.
    """
    seen = np.isin(labels, head.classes_)
    return -log_loss(labels[seen], head.predict_proba(inputs[seen]), labels=head.classes_)


def scores_of(clips: pd.DataFrame, probabilities: np.ndarray, classes: list) -> pd.DataFrame:
    """Return one fold's probabilities, shape (clips, classes), in the experiment's form."""
    keys = clips.reset_index()[["clip_id", "fold", "label"]]
    keys.insert(1, "seed", 0)
    return pd.concat([keys, pd.DataFrame(probabilities, columns=classes)], axis=1)


def keep(folds: list[pd.DataFrame], table: pd.DataFrame, name: str, folder: Path, about: str):
    """Write the scores of all folds, the clips and the settings under a data set's results."""
    (folder / "audio" / "scores").mkdir(parents=True, exist_ok=True)
    clips = table[["label", "fold", "group"]].sort_index()
    (folder / "clips.csv").write_text(clips.to_csv())
    file = folder / "audio" / "scores" / f"{name}.csv.gz"
    file.write_bytes(pack(pd.concat(folds)))
    settings = {"transform": version("spectral-hyperresolution"), "machine": machine()}
    settings |= {"profile": about, "commits": [commit()], "conditions": {}}
    (folder / "audio" / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    print(f"wrote {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="esc10")
    parser.add_argument("--inputs", choices=INPUTS, default="mean_and_maximum")
    parser.add_argument("--slowed", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums add up the same way every time

    table = load(arguments.dataset)
    inputs, folds = read_inputs(table["path"], arguments.inputs, arguments.slowed), []
    for fold in sorted(table["fold"].unique()):
        held_out = (table["fold"] == fold).to_numpy()
        training = table[~held_out]
        search = GridSearchCV(make_head(), STRENGTHS, scoring=seen_log_loss, cv=LeaveOneGroupOut())
        search.fit(inputs[~held_out], training["label"], groups=training["fold"])
        probabilities = search.predict_proba(inputs[held_out])
        folds.append(scores_of(table[held_out], probabilities, list(search.classes_)))
    name = "yamnet_slowed" if arguments.slowed else "yamnet"
    name += "" if arguments.inputs == "mean_and_maximum" else f"_{arguments.inputs}"
    about = f"YAMNet, {arguments.inputs}, logistic regression"
    keep(folds, table, name, arguments.out / arguments.dataset, about)


if __name__ == "__main__":
    main()
