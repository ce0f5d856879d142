"""YAMNet fine-tuned, early layers slowest: `python studies/audio_finetuned.py esc10 --folds 0`.

The log-mel patches of all clips are made once; then, a fold at a time, the new head trains alone
and after it all layers (fastai's `fine_tune`: the early layers at a hundredth of the rate). Nothing
is chosen by the held-out fold. `--slowed` and the files are those of studies/audio.py.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from fastai.torch_core import set_seed
from tqdm import tqdm

from freesound_tagging import decode, load
from freesound_tagging.learning.audio_learner import audio_learner
from freesound_tagging.learning.yamnet import SAMPLE_RATE, log_mel_patches
from studies.audio import keep, scores_of
from studies.scores import RESULTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="esc10")
    parser.add_argument("--folds", type=int, nargs="+", default=range(5))
    parser.add_argument("--frozen", type=int, default=1, help="epochs of the head alone")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of all layers")
    parser.add_argument("--rate", type=float, default=3e-3, help="largest rate of the head")
    parser.add_argument("--slowed", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums add up the same way every time

    table, patches, parts = load(arguments.dataset), [], []
    for path in tqdm(table["path"], unit="clip"):
        waveform, sample_rate = decode(path)
        rate = SAMPLE_RATE if arguments.slowed else sample_rate
        patches.append(log_mel_patches(waveform, rate).half())

    for fold in arguments.folds:
        held_out = np.flatnonzero(table["fold"] == fold)
        set_seed(0)
        learner = audio_learner(patches, list(table["label"]), held_out)
        with learner.no_bar():
            learner.fine_tune(arguments.epochs, arguments.rate, freeze_epochs=arguments.frozen)
            probabilities, _ = learner.get_preds(ds_idx=1)
        classes = list(learner.dls.vocab)
        parts.append(scores_of(table.iloc[held_out], probabilities.numpy(), classes))
    name = "yamnet_finetuned_slowed" if arguments.slowed else "yamnet_finetuned"
    about = "YAMNet, fine-tuned with differential rates"
    keep(parts, table, name, arguments.out / arguments.dataset, about)


if __name__ == "__main__":
    main()
