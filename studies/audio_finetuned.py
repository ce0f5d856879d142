"""YAMNet fine-tuned, early layers slowest, against the head alone of studies/audio.py.

The log-mel patches of all clips are made once; then, a fold at a time, the new head trains alone
and after it all layers (fastai's `fine_tune`: the early layers at a hundredth of the rate). Nothing
is chosen by the held-out fold.
"""

from collections.abc import Sequence

import fastai.callback.schedule  # noqa: F401  (adds fine_tune and fit_one_cycle to Learner)
import numpy as np
import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.transforms import IndexSplitter
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.torch_core import TensorBase, set_seed
from fasttransform import Transform
from torch import Tensor
from tqdm import tqdm

from freesound_tagging import decode
from freesound_tagging.features.yamnet import log_mel_patches
from freesound_tagging.learning.networks import build_network, layer_groups
from studies.common import arguments, keep, open_study

SETTINGS = {"freeze_epochs": 1, "epochs": 5, "base_lr": 3e-3}  # of fastai's fine_tune


class TensorPatches(TensorBase):
    """Log-mel patches of one clip, (patches, 96, 64), or of a batch of clips."""


class DrawPatches(Transform):
    """Draw ``count`` of a training clip's patches anew each time, some twice if it has fewer."""

    split_idx = 0

    def __init__(self, count: int):
        self.count = count

    def encodes(self, patches: TensorPatches):
        most = max(len(patches), self.count)
        return patches[torch.randperm(most)[: self.count] % len(patches)]


def audio_learner(
    patches: Sequence[Tensor],
    labels: Sequence[str],
    held_out: Sequence[int],
    drawn: int = 4,
    batch_size: int = 16,
) -> Learner:
    """Return a fastai Learner of YAMNet with Google's weights and a new head, on the CPU.

    Its groups are early layers, late layers and head. ``patches`` are those of each clip, (patches,
    96, 64), ``held_out`` positions of clips, which are scored with all their patches; training
    takes ``drawn`` of a clip each time.
    """
    block = DataBlock(
        blocks=(TransformBlock(item_tfms=[DrawPatches(drawn)]), CategoryBlock(sorted(set(labels)))),
        get_x=lambda clip: TensorPatches(patches[clip].float()),
        get_y=lambda clip: labels[clip],
        splitter=IndexSplitter(list(held_out)),
    )
    every = list(range(len(labels)))  # of different numbers of patches: they are scored singly
    loaders = block.dataloaders(every, bs=batch_size, val_bs=1, num_workers=0, device="cpu")
    network = build_network("yamnet", len(loaders.vocab))
    return Learner(loaders, network, metrics=accuracy, splitter=layer_groups)


def main(argv: list[str] | None = None) -> None:
    """Make the runs and keep their scores."""
    options = arguments(__doc__.splitlines()[0], "esc10", "audio", 1).parse_args(argv)
    if options.dataset != "esc10":
        raise SystemExit("ESC-10 alone: other recordings would have to be slowed down")
    torch.set_num_threads(1)  # sums add up the same way every time
    experiment, parts = open_study(options), []
    table = experiment.load_table()
    patches = [log_mel_patches(*decode(path)).half() for path in tqdm(table["path"], unit="clip")]
    for seed in range(options.seeds):
        for fold in sorted(table["fold"].unique()):
            clips = table[table["fold"] == fold]
            set_seed(seed)
            held_out = np.flatnonzero(table["fold"] == fold)
            learner = audio_learner(patches, list(table["label"]), held_out)
            with learner.no_bar():
                learner.fine_tune(**SETTINGS)
                probabilities, _ = learner.get_preds(ds_idx=1)
            scores = pd.DataFrame(probabilities.numpy(), clips.index, list(learner.dls.vocab))
            parts.append(clips[["fold", "label"]].assign(seed=seed).join(scores).reset_index())
    scores, conditions = {"all_layers": pd.concat(parts)}, {"all_layers": SETTINGS}
    keep(experiment, options.out, scores, None, "finetuned", conditions)


if __name__ == "__main__":
    main()
