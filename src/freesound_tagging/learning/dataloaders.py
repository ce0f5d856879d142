"""Store -> fastai DataLoaders: stored codes by clip id, in batches that become floats and vary.

A *spectrogram* is here what a network sees of one clip: all channels of a representation.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import fastai.vision.data  # noqa: F401  (it teaches show_batch to lay spectrograms out in a grid)
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import IndexSplitter
from fastai.torch_core import TensorCategory, TensorImage
from fasttransform import DisplayedTransform, Transform
from torch import Tensor

from freesound_tagging.features import plots
from freesound_tagging.features.codes import decoding_table
from freesound_tagging.features.plots import spectrogram_axes
from freesound_tagging.features.representations import Variant, get_variant
from freesound_tagging.features.store import Store
from freesound_tagging.learning.profiles import Profile


class TensorSpectrogram(TensorImage):
    """A spectrogram (channels, frequency, time), lowest row first, that draws itself.

    Before the batch transforms it holds the store's 8-bit codes, after them normalised floats.
    """

    def show(self, ctx=None, **kwargs):
        """Draw it with Hz and seconds; three channels are drawn as red, green and blue."""
        return plots.show_planes(self.detach().cpu().numpy(), self.axes, ax=ctx, **kwargs)


class ReadCodes(Transform):
    """Clip id -> the codes of a representation's channels, as a spectrogram that knows its axes.

    Where the store has several windows of each clip, it is the middle one.
    """

    def __init__(self, store: Store, variant: Variant, clip_ids: Sequence[str]):
        self.row = {clip_id: row for row, clip_id in enumerate(clip_ids)}
        self.windows, self.axes = store.grid.windows, spectrogram_axes(variant, store.grid)
        first, *others = variant.channels
        codes = np.expand_dims(store.read(first, clip_ids), -3)
        if others:  # read one by one into their places: there is no second copy of all
            codes = np.repeat(codes, len(variant.channels), axis=-3)
            for number, channel in enumerate(others, start=1):
                codes[..., number, :, :] = store.read(channel, clip_ids)
        self.codes = torch.from_numpy(codes)

    def encodes(self, clip_id: str):
        spectrogram = self.gather([clip_id])[0]
        spectrogram = spectrogram if self.windows == 1 else spectrogram[self.windows // 2]
        spectrogram.axes = self.axes
        return spectrogram

    def gather(self, clip_ids: Iterable[str]) -> TensorSpectrogram:
        """Return the codes of several clips at once, (n, [windows,] channels, frequency, time)."""
        return TensorSpectrogram(self.codes[[self.row[clip_id] for clip_id in clip_ids]])


class GatheredBatches(TfmdDL):
    """Takes a batch out of memory in one step: clip by clip would take as long as the network.

    Of several windows training takes one each time, drawn by the loader's own generator and so by
    the run's seed; scoring takes all. With ``weights``, one for each item, targets are classes and
    weights, (n, 2).
    """

    weights: Tensor | None = None

    @cached_property
    def _classes(self) -> Tensor:
        return torch.tensor([int(label) for label in self.dataset.tls[1]])

    @property
    def read(self) -> ReadCodes:
        """What reads the codes of this loader's clips."""
        return next(step for step in self.dataset.tls[0].tfms.fs if isinstance(step, ReadCodes))

    def create_batches(self, samps: Iterable[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (spectrograms, targets) for each batch of positions in the data set."""
        for positions in map(list, self.chunkify(samps)):
            batch = self.read.gather(self.dataset.items[position] for position in positions)
            if self.read.windows > 1 and self.dataset.split_idx == 0:
                drawn = [self.rng.randrange(self.read.windows) for _ in positions]
                batch = batch[range(len(positions)), drawn]
            targets = TensorCategory(self._classes[positions])
            if self.weights is not None:
                targets = torch.stack([targets.float(), self.weights[positions]], dim=1)
            yield batch, targets

    def show_batch(self, b: tuple | None = None, **kwargs):
        """Draw a batch, its labels as they stand."""
        batch, targets = self.one_batch() if b is None else b
        if targets.dim() == 2:
            targets = TensorCategory(targets[:, 0].long())
        drawn = super().show_batch((batch, targets), **kwargs)
        plots.draw_dollars(plt.gcf())
        return drawn


class Loudness(DisplayedTransform):
    """Codes -> floats on each channel's ``loudness`` scale, with mean 0 and deviation 1.

    ``mean`` and ``deviation``, (channels,), are those of the training clips on that scale.
    """

    order = 10

    def __init__(self, loudness: Sequence[str], mean: Tensor, deviation: Tensor, axes=None):
        self.axes, self.mean, self.deviation = axes, mean.view(-1, 1, 1), deviation.view(-1, 1, 1)
        tables = torch.stack([decoding_table(scale) for scale in loudness])
        self.tables = (tables - self.mean[..., 0]) / self.deviation[..., 0]

    def encodes(self, spectrograms: TensorSpectrogram):
        self.tables = self.tables.to(spectrograms.device)
        channels = spectrograms.as_subclass(Tensor).long().unbind(-3)
        floats = [table[codes] for table, codes in zip(self.tables, channels, strict=True)]
        return TensorSpectrogram(torch.stack(floats, dim=-3))

    def decodes(self, spectrograms: TensorSpectrogram):
        values = spectrograms.as_subclass(Tensor)
        if values.dim() == 5:
            values = values[:, values.shape[1] // 2]  # of several windows the middle one
        values = values * self.deviation.to(values) + self.mean.to(values)
        spectrograms = TensorSpectrogram(values.clamp(0, 1))
        times = self.axes.times[: values.shape[-1]]  # a crop's seconds count from its start
        spectrograms.axes = replace(self.axes, times=times)
        return spectrograms


class _Variation(DisplayedTransform):
    """Makes other spectrograms of the same training clips each time, up to ``most``."""

    split_idx = 0

    def __init__(self, most: float):
        self.most = most


class ShiftInTime(_Variation):
    """Shift each spectrogram in a circle by up to ``most`` of it; leave a stretch of ``seen``."""

    order = 5  # before `Loudness`: codes are a quarter of the bytes of floats

    def __init__(self, most: float, seen: float = 1.0):
        self.most, self.seen = most, seen

    def encodes(self, spectrograms: TensorSpectrogram):
        (n, _, _, columns), device = spectrograms.shape, spectrograms.device
        reach, left = round(self.most * columns), max(1, round(self.seen * columns))
        starts = -torch.randint(-reach, reach + 1, (n, 1), device=device)
        if left < columns:
            starts = starts + torch.randint(0, columns - left + 1, (n, 1), device=device)
        places = (starts + torch.arange(left, device=device)) % columns
        return spectrograms.take_along_dim(places[:, None, None], dim=3)


class ChangeGain(_Variation):
    """Make each waveform louder or softer by a random gain, up to ``most`` dB."""

    order = 15  # after `Loudness`

    def encodes(self, spectrograms: TensorSpectrogram):
        draws = torch.rand(len(spectrograms), 1, 1, 1, device=spectrograms.device)
        return spectrograms * 10 ** ((2 * draws - 1) * self.most / 20)


class MaskBands(_Variation):
    """Hide a band of rows and one of columns (SpecAugment, Park et al. 2019).

    A band's width is uniform between 0 and ``most`` of the spectrogram; hidden cells take the mean,
    which is 0.
    """

    order = 20  # after `Loudness`

    def encodes(self, spectrograms: TensorSpectrogram):
        (n, _, rows, columns), device = spectrograms.shape, spectrograms.device
        for place in (torch.arange(rows)[:, None], torch.arange(columns)):
            place, size = place.to(device), place.numel()
            width = torch.rand(n, 1, 1, 1, device=device) * self.most * size
            start = torch.rand(n, 1, 1, 1, device=device) * (size - width)
            hidden = (place >= start) & (place < start + width)
            spectrograms = spectrograms.masked_fill(hidden, 0.0)
        return spectrograms


def channel_statistics(
    codes: Tensor, loudness: Sequence[str], clips: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Return each channel's mean and deviation over clips, from how often each code occurs.

    ``clips`` are positions in codes, uint8, (n, [windows,] channels, frequency, time).
    """
    means, deviations = [], []
    for channel, scale in enumerate(loudness):
        values, counts = decoding_table(scale).double(), torch.zeros(256, dtype=torch.int64)
        for part in torch.from_numpy(clips).split(1024):  # all of a large data set would be copied
            counts += torch.bincount(codes[part, ..., channel, :, :].flatten(), minlength=256)
        share = counts.double() / counts.sum()
        means.append((share * values).sum())
        deviations.append((share * (values - means[-1]) ** 2).sum().sqrt().clamp_min(1e-6))
    return torch.stack(means).float(), torch.stack(deviations).float()


def make_dataloaders(
    table: pd.DataFrame,
    store: Store,
    variant_name: str,
    fold: int | None,
    profile: Profile,
    device: torch.device | None = None,
) -> DataLoaders:
    """Return fastai DataLoaders of a representation, by default on the CPU.

    Clips that the store could not read are left out, and the ``fold`` is held out; with None all
    clips train. Of the table the columns label, fold and verified count. A ValueError
    names a fold without clips, or a label that none of them trains.
    """
    variant = get_variant(variant_name)
    clips = table.drop(store.failed, errors="ignore").sort_index()
    held_out = (clips["fold"] == fold).to_numpy()
    if fold is not None and not held_out.any():
        raise ValueError(f"no clip of fold {fold}; the folds are: {sorted(set(clips['fold']))}")
    training = clips[~held_out]
    unseen = sorted(set(clips["label"]) - set(training["label"]))
    if unseen:
        lost = [name for name in store.failed if table["label"].get(name) == unseen[0]]
        remedy = f"; unreadable: {', '.join(lost)}; mend or replace them" if lost else ""
        raise ValueError(f"fold {fold}: no training clip of {unseen[0]!r}{remedy}")
    read = ReadCodes(store, variant, list(clips.index))
    loudness = [scale for _, scale in variant.planes]
    statistics = channel_statistics(read.codes, loudness, np.flatnonzero(~held_out))
    batch_transforms = [Loudness(loudness, *statistics, read.axes)]
    if profile.time_shift or profile.crop < 1:
        batch_transforms.append(ShiftInTime(profile.time_shift, profile.crop))
    if profile.gain:
        batch_transforms.append(ChangeGain(profile.gain))
    if profile.mask:
        batch_transforms.append(MaskBands(profile.mask))
    block = DataBlock(
        blocks=(
            TransformBlock(type_tfms=read, batch_tfms=batch_transforms),
            CategoryBlock(vocab=sorted(clips["label"].unique())),
        ),
        get_y=clips["label"].to_dict().get,
        splitter=IndexSplitter(list(np.flatnonzero(held_out))),
        dl_type=GatheredBatches,
    )
    loaders = block.dataloaders(
        list(clips.index),
        bs=min(profile.batch_size, len(training)),
        num_workers=0,
        device=device or torch.device("cpu"),
    )
    if profile.unverified_weight != 1:
        weights = np.where(training["verified"], 1.0, profile.unverified_weight)
        loaders.train.weights = torch.from_numpy(weights).float()
    return loaders
