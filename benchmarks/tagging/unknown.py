"""How well is a sound of no class told from the network's own? ``python unknown.py --folds 0 1``.

Networks of ESC-10 each leave a fold out. Its clips are their own, those of other data sets are
strangers. Each candidate's limit refuses one in ten of a network's own clips; what counts is the
share of strangers below it. FSDD was there to choose by, the other sets are the report.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from freesound_tagging.experiment import open_experiment, thin
from freesound_tagging.features import store as stores
from freesound_tagging.features.representations import channels_of, get_variant
from freesound_tagging.learning import unknown
from freesound_tagging.learning.dataloaders import ReadCodes, make_dataloaders
from freesound_tagging.learning.learner import make_learner
from freesound_tagging.runs import train
from freesound_tagging.scoring.calibration import KNOWN_KEPT
from freesound_tagging.sounds import catalogue

sys.path.append(str(Path(__file__).resolve().parents[1]))
from surroundings import surroundings

RECORD = Path(__file__).with_suffix(".json")
CHOSEN_BY, REPORTED = "fsdd", ("insectset32", "microcalls")
OPTIONS = {"microcalls": {"clips_per_class": 12}}
STRANGERS = 200


@torch.no_grad()
def look(learner, store, name: str, clips: list[str]) -> dict[str, np.ndarray]:
    """Return a network's features and logits of clips, as it sees held-out ones."""
    clips = [clip for clip in clips if clip not in store.failed]
    read, parts, network = ReadCodes(store, get_variant(name), clips), [], learner.model.eval()
    for start in range(0, len(clips), 32):
        (spectrograms,) = learner.dls.valid.after_batch((read.gather(clips[start : start + 32]),))
        features, logits = unknown.features_and_logits(network, spectrograms)
        parts.append((features.mean(dim=1).numpy(), logits.as_subclass(torch.Tensor).numpy()))
    features, logits = (np.concatenate(x).astype(np.float64) for x in zip(*parts, strict=True))
    return {"features": features, "logits": logits}


def candidates(known: dict[str, np.ndarray], labels: np.ndarray):
    """Yield a name and a function (sounds -> strangeness) for each way to tell strangers."""
    features = known["features"]
    means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = LedoitWolf().fit(features - means[np.searchsorted(np.unique(labels), labels)])
    overall, mean = LedoitWolf().fit(features).precision_, features.mean(axis=0)
    _, sizes, axes = np.linalg.svd(features - mean, full_matrices=False)
    share = np.cumsum(sizes**2) / np.sum(sizes**2)
    spread = np.sqrt(np.sum(sizes**2) / len(features))

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def squared(offsets: np.ndarray, precision: np.ndarray) -> np.ndarray:
        return ((offsets @ precision) * offsets).sum(axis=1)

    yield "largest probability", lambda x: -softmax(x["logits"], axis=1).max(axis=1)
    yield "energy", lambda x: -logsumexp(x["logits"], axis=1)
    yield "nearest clip, cosine", lambda x: 1 - (unit(x["features"]) @ unit(features).T).max(axis=1)

    def from_class(x: dict) -> np.ndarray:
        return np.min([squared(x["features"] - centre, within.precision_) for centre in means], 0)

    yield "Mahalanobis, nearest class", from_class
    yield (
        "relative Mahalanobis",  # Ren et al. 2021: nearest class against all clips
        lambda x: from_class(x) - squared(x["features"] - mean, overall),
    )
    for kept in (0.95, 0.98, unknown.KEPT):
        inside = axes[: int((share < kept).sum()) + 1]

        def outside(x: dict, inside=inside) -> np.ndarray:
            offset = x["features"] - mean
            return np.linalg.norm(offset - offset @ inside.T @ inside, axis=1) / spread

        yield f"outside of {kept:.0%} of the variance", outside


def main() -> None:
    """Train, look, compare, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="pretrained")
    parser.add_argument("--representation", default="log_db")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--keep", type=Path, help="a folder for the networks, used when they are there"
    )
    options = parser.parse_args()
    where, name = surroundings(), options.representation
    experiment = open_experiment("esc10", options.profile)
    profile, table = experiment.profile, experiment.load_table()
    store = experiment.build_store(table, channels_of([name]))
    strangers = {}
    for other in (CHOSEN_BY, *REPORTED):
        clips = catalogue.load(other, experiment.raw_folder, **OPTIONS.get(other, {}))
        clips = thin(clips, STRANGERS)
        folder = experiment.store_folder.parent / f"{other}-as-strangers"
        built = stores.build(clips, channels_of([name]), profile.grid, folder)
        strangers[other] = (built, sorted(clips.index))
    scores: dict[str, list[dict[str, np.ndarray]]] = {}
    accuracy = []
    for fold in options.folds:
        file = options.keep and options.keep / f"{options.profile}{fold}.pt"
        if file and file.exists():
            learner = make_learner(make_dataloaders(table, store, name, fold, profile), profile)
            learner.model.load_state_dict(torch.load(file))
        else:
            learner = train(table, store, name, fold, 0, profile)
            if file:
                torch.save(learner.model.state_dict(), file)
        training, own = (
            sorted(table.index[(table["fold"] == fold) == held]) for held in (False, True)
        )
        known = look(learner, store, name, training)
        seen = {"own": look(learner, store, name, own)}
        seen |= {
            other: look(learner, *strangers[other][:1], name, strangers[other][1])
            for other in strangers
        }
        labels = np.array(learner.dls.vocab)[seen["own"]["logits"].argmax(axis=1)]
        accuracy.append(float((labels == table.loc[own, "label"]).mean()))
        for way, strangeness in candidates(known, table.loc[training, "label"].to_numpy()):
            scores.setdefault(way, []).append({who: strangeness(x) for who, x in seen.items()})
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record[f"esc10, {options.profile}, {name}"] = {
        **where,
        "profile": {key: value for key, value in asdict(profile).items() if key != "grid"},
        "grid": asdict(profile.grid),
        "folds": options.folds,
        "own_accuracy": accuracy,
        "sounds": {other: len(scores["energy"][0][other]) for other in strangers},
        "ways": {way: summarise(found) for way, found in scores.items()},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    for way, found in record[f"esc10, {options.profile}, {name}"]["ways"].items():
        print(way, found)


def summarise(found: list[dict[str, np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    """Return, for each set, the shares accepted by each network and by one limit for all.

    The first are at a limit of the network's own; the last at the limit of all networks' own clips
    together, as a saved model has it. Beside them the area under the ROC curve.
    """
    together = np.quantile(np.concatenate([one["own"] for one in found]), KNOWN_KEPT)
    rows: dict[str, dict[str, list[float]]] = {}
    for who in found[0]:
        each = [one[who] for one in found]
        limits = [np.quantile(one["own"], KNOWN_KEPT) for one in found]
        truth = [np.repeat([0, 1], [len(one["own"]), len(one[who])]) for one in found]
        both = [np.concatenate([one["own"], one[who]]) for one in found]
        rows[who] = {
            "accepted": [
                round(float((x <= y).mean()), 3) for x, y in zip(each, limits, strict=True)
            ],
            "accepted_one_limit": [round(float((x <= together).mean()), 3) for x in each],
            "area": [
                round(float(roc_auc_score(x, y)), 3) for x, y in zip(truth, both, strict=True)
            ],
        }
    return rows


if __name__ == "__main__":
    main()
