"""How well does YAMNet, which has heard sounds, tag a data set? `python studies/audio.py esc10`.

Whole clips -> embeddings, their mean and maximum over patches -> logistic regression, its C chosen
inside the training folds -> out-of-fold probabilities, one CSV a fold, under the folder that
`--out` names. `--slowed` plays recordings at 16 kHz, so that those of 44.1 kHz sound 2.76 times
lower: insects sing above what the network hears. `--inputs mean` or `scores` (AudioSet's 521) takes
less of the network.
"""

import argparse
from collections.abc import Iterable
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

from freesound_tagging import decode, load, top_k_error
from freesound_tagging.learning import yamnet

INPUTS = {
    "mean": lambda network, vectors: vectors.mean(dim=0).numpy(),
    "mean_and_maximum": lambda network, vectors: yamnet.mean_and_maximum(vectors),
    "scores": lambda network, vectors: yamnet.class_scores(network, vectors).numpy(),
}
STRENGTHS = 10.0 ** np.arange(-3, 3)


def seen_log_loss(head, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Score a head, higher is better, by the clips of classes that it has met: rare ones may lie
    in the two folds that are held out."""
    seen = np.isin(labels, head.classes_)
    return -log_loss(labels[seen], head.predict_proba(inputs[seen]), labels=head.classes_)


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

    Turning all axes at once (PCA) changes nothing in the fit, and leaves as many as there are
    clips.
    """
    return make_pipeline(StandardScaler(), PCA(), LogisticRegression(max_iter=2000, **options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--inputs", choices=INPUTS, default="mean_and_maximum")
    parser.add_argument("--slowed", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/audio"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums add up the same way every time

    table = load(arguments.dataset)
    inputs = read_inputs(table["path"], arguments.inputs, arguments.slowed)

    parts = []
    for fold in sorted(table["fold"].unique()):
        held_out = (table["fold"] == fold).to_numpy()
        training = table[~held_out]
        strengths = {"logisticregression__C": STRENGTHS}
        folds = LeaveOneGroupOut()
        search = GridSearchCV(make_head(), strengths, scoring=seen_log_loss, cv=folds)
        search.fit(inputs[~held_out], training["label"], groups=training["fold"])
        scores = pd.DataFrame(search.predict_proba(inputs[held_out]), columns=search.classes_)
        keys = table[held_out].reset_index()[["clip_id", "fold", "label"]].assign(seed=0)
        scores = pd.concat([keys[["clip_id", "seed", "fold", "label"]], scores], axis=1)
        file = arguments.out / arguments.dataset / "yamnet" / f"fold{fold}-seed0.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        scores.sort_values("clip_id").to_csv(file, index=False, float_format="%.9g")
        parts.append(scores)

    errors = {}
    for fold, scores in [*enumerate(parts), ("all", pd.concat(parts))]:
        targets = search.classes_.searchsorted(scores["label"])
        values = scores[search.classes_].to_numpy()
        errors[fold] = [top_k_error(values, targets, k) for k in (1, 3)]
    print(pd.DataFrame(errors, index=["top-1 error", "top-3 error"]).round(4).to_string())


if __name__ == "__main__":
    main()
