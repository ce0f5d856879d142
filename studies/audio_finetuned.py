"""YAMNet fine-tuned, early layers slowest, against the head alone of studies/audio.py.

The log-mel patches of all clips are made once; then, a fold at a time, the new head trains alone
and after it all layers (fastai's `fine_tune`: the early layers at a hundredth of the rate). Nothing
is chosen by the held-out fold.
"""

import numpy as np
import pandas as pd
import torch
from fastai.torch_core import set_seed
from tqdm import tqdm

from freesound_tagging import decode
from freesound_tagging.features.yamnet import log_mel_patches
from freesound_tagging.learning.audio_learner import audio_learner
from studies.common import arguments, keep, open_study


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__.splitlines()[0], "esc10", "audio", 1)
    parser.add_argument("--frozen", type=int, default=1, help="epochs of the head alone")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of all layers")
    parser.add_argument("--rate", type=float, default=3e-3, help="largest rate of the head")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # sums add up the same way every time

    experiment, patches, parts = open_study(options), [], []
    table = experiment.load_table()
    for path in tqdm(table["path"], unit="clip"):
        patches.append(log_mel_patches(*decode(path)).half())
    for seed in range(options.seeds):
        for fold in sorted(table["fold"].unique()):
            clips = table[table["fold"] == fold]
            set_seed(seed)
            held_out = np.flatnonzero(table["fold"] == fold)
            learner = audio_learner(patches, list(table["label"]), held_out)
            with learner.no_bar():
                learner.fine_tune(options.epochs, options.rate, freeze_epochs=options.frozen)
                probabilities, _ = learner.get_preds(ds_idx=1)
            scores = pd.DataFrame(probabilities.numpy(), clips.index, list(learner.dls.vocab))
            parts.append(clips[["fold", "label"]].assign(seed=seed).join(scores).reset_index())
    settings = {"frozen_epochs": options.frozen, "epochs": options.epochs, "lr_max": options.rate}
    scores = {"all_layers": pd.concat(parts)}
    keep(experiment, options.out, scores, None, "finetuned", {"all_layers": settings})


if __name__ == "__main__":
    main()
