"""Is a whole file tagged as well as the one window that the grid scores? ``python held_out.py``.

For each fold a network learns from the other folds and tags the whole files of its own, as
``freesound-tagging tag`` does. Windows are pooled in three ways: all alike, by their loudness (what
the tagger does), and by the greatest probability of each class. Beside them: the best-centred
window alone, which the expected scores of a model are about.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from freesound_tagging import Tagger
from freesound_tagging.experiment import open_experiment
from freesound_tagging.features.representations import channels_of
from freesound_tagging.learning.learner import predict
from freesound_tagging.learning.tagger import Tags, save
from freesound_tagging.model import describe_data, network_of
from freesound_tagging.runs import train
from freesound_tagging.scoring.calibration import (
    calibration_error,
    fit_temperature,
    reliability,
    sharpen,
)
from freesound_tagging.scoring.metrics import clip_metrics

sys.path.append(str(Path(__file__).resolve().parents[1]))
from surroundings import surroundings

RECORD = Path(__file__).with_suffix(".json")


def pool(tags: Tags) -> dict[str, np.ndarray]:
    """Return the three ways to make one answer of all windows, each summing to 1."""
    windows, loudness = tags.window_probabilities, tags.loudness
    greatest = windows[loudness > 0].max(axis=0)
    return {
        "windows, all alike": windows.mean(axis=0),
        "windows, by loudness": loudness @ windows / loudness.sum(),
        "windows, greatest": greatest / greatest.sum(),
    }


def main() -> None:
    """Train, tag, compare, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="esc10")
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--representation", default="log_db")
    options = parser.parse_args()
    where = surroundings()
    experiment = open_experiment(options.dataset, options.profile)
    profile, name = experiment.profile, options.representation
    table = experiment.load_table()
    store = experiment.build_store(table, channels_of([name]))
    classes = sorted(table["label"].unique())
    rows: dict[str, list[dict]] = {}
    for fold in sorted(table["fold"].unique())[: profile.folds]:
        learner = train(table, store, name, fold, 0, profile)
        one_window = predict(learner)
        with tempfile.TemporaryDirectory() as folder:
            about, weights = network_of(learner, profile)
            about |= {"temperature": 1.0, "limit": 1e9, "expected": {}}
            data = describe_data(experiment, table)
            save(folder, data | {"networks": {name: about}}, {name: weights})
            tagger = Tagger(folder)
            for clip_id in one_window.index:
                clip = table.loc[clip_id]
                about = {"clip_id": clip_id, "seed": 0, "fold": fold, "label": clip["label"]}
                answers = pool(tagger.tag_file(clip["path"]))
                answers["best-centred window"] = one_window.loc[clip_id, classes].to_numpy()
                for way, probabilities in answers.items():
                    row = about | dict(zip(classes, map(float, probabilities), strict=True))
                    rows.setdefault(way, []).append(row)
    scores = {way: pd.DataFrame(lines) for way, lines in rows.items()}
    temperature = fit_temperature(*_arrays(scores["best-centred window"], classes))
    ways = {}
    for way, frame in scores.items():
        metrics = clip_metrics(frame)
        probabilities, targets = _arrays(frame, classes)
        mended = sharpen(probabilities, temperature)
        ways[way] = {
            "top1_accuracy": round(float(metrics["top1_accuracy"].mean()), 4),
            "top3_error": round(float(metrics["top3_error"].mean()), 4),
            "map3": round(float(metrics["map3"].mean()), 4),
            "log_loss": round(log_loss(targets, probabilities), 4),
            "log_loss_calibrated": round(log_loss(targets, mended), 4),
            "calibration_error": round(calibration_error(reliability(probabilities, targets)), 4),
            "calibration_error_calibrated": round(
                calibration_error(reliability(mended, targets)), 4
            ),
        }
        print(way, ways[way])
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record[f"{options.dataset}, {options.profile}, {name}"] = {
        **where,
        "clips": len(table),
        "temperature": round(temperature, 3),
        "ways": ways,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


def _arrays(frame: pd.DataFrame, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    targets = frame["label"].map({label: i for i, label in enumerate(classes)}).to_numpy(dtype=int)
    return frame[classes].to_numpy(), targets


if __name__ == "__main__":
    main()
