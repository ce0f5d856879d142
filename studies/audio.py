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


def write_scores(clips: pd.DataFrame, probabilities: np.ndarray, classes, folder: Path) -> None:
    """Write one fold's probabilities, shape (clips, classes), as the experiment writes them."""
    keys = clips.reset_index()[["clip_id", "fold", "label"]]
    keys.insert(1, "seed", 0)
    scores = pd.concat([keys, pd.DataFrame(probabilities, columns=classes)], axis=1)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"fold{keys['fold'][0]}-seed0.csv"
    scores.sort_values("clip_id").to_csv(file, index=False, float_format="%.9g")
    targets = pd.Index(classes).get_indexer(scores["label"])
    errors = [top_k_error(scores[classes], targets, k) for k in (1, 3)]
    print(f"{file}: {len(scores)} clips, top-1 error {errors[0]:.4f}, top-3 error {errors[1]:.4f}")


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
    for fold in sorted(table["fold"].unique()):
        held_out = (table["fold"] == fold).to_numpy()
        training = table[~held_out]
        search = GridSearchCV(make_head(), STRENGTHS, scoring=seen_log_loss, cv=LeaveOneGroupOut())
        search.fit(inputs[~held_out], training["label"], groups=training["fold"])
        probabilities = search.predict_proba(inputs[held_out])
        folder = arguments.out / Path(arguments.dataset).stem / "yamnet"
        write_scores(table[held_out], probabilities, list(search.classes_), folder)


if __name__ == "__main__":
    main()
