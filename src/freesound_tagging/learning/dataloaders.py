"""Store -> fastai DataLoaders: a typed picture, how it draws itself, becomes floats, varies.

A *picture* is what a network sees of one clip: the planes of a representation in one tensor.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import fastai.vision.data  # noqa: F401  (it teaches show_batch to lay pictures out in a grid)
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
from freesound_tagging.features.plots import SpectrogramAxes, spectrogram_axes
from freesound_tagging.features.representations import Variant, get_channel, get_variant
from freesound_tagging.features.store import Store
from freesound_tagging.learning.profiles import Profile

COUNTED_AT_ONCE = 1024
"""Pictures of which codes are counted at a time: all of a large data set would be copied."""


class TensorSpectrogram(TensorImage):
    """A picture (planes, frequency, time), lowest row first, that draws itself with Hz and seconds.

    Before the batch transforms it holds the store's 8-bit codes, after them normalised floats.
    """

    def show(self, ctx=None, axes: SpectrogramAxes | None = None, **kwargs):
        """Draw the picture; planes are drawn as red, green and blue where there are three."""
        axes = axes or getattr(self, "axes", None)
        values = self.detach().cpu().numpy()
        return plots.show_planes(values, axes, ax=ctx, **kwargs)


class ReadPicture(Transform):
    """Clip id -> the codes of a representation's planes, as a picture that knows its axes.

    Where the store has several windows of each clip, the picture is the middle one.
    """

    def __init__(self, store: Store, variant: Variant, clip_ids: list[str]):
        self.row = {clip_id: row for row, clip_id in enumerate(clip_ids)}
        grid = store.grid
        self.windows = grid.windows
        windows = (grid.windows,) if grid.windows > 1 else ()
        plane = get_channel(variant.channels[0]).shape(grid)
        shape = (len(clip_ids), *windows, len(variant.channels), *plane)
        codes = np.empty(shape, dtype=np.uint8)
        for position, channel in enumerate(variant.channels):
            codes[..., position, :, :] = store.read(channel, clip_ids)  # no second copy of all
        self.codes = torch.from_numpy(codes)
        self.axes = spectrogram_axes(variant, store.grid)

    def encodes(self, clip_id: str):
        codes = self.codes[self.row[clip_id]]
        picture = TensorSpectrogram(codes if self.windows == 1 else codes[self.windows // 2])
        picture.axes = self.axes
        return picture

    def gather(self, clip_ids: Sequence[str]) -> TensorSpectrogram:
        """Return the codes of several clips at once.

        (n, planes, frequency, time), or (n, windows, planes, frequency, time) where the store has
        several windows of each clip.
        """
        return TensorSpectrogram(self.codes[[self.row[clip_id] for clip_id in clip_ids]])


class GatheredBatches(TfmdDL):
    """Takes a batch out of memory in one step.

    fastai would send every clip through its transforms on its own; with small pictures that takes
    as long as the network. Single items (``train_ds[0]``) still go that way, and are the same.

    Where ``item_weights`` is set, one for each item of the data set, a batch has a third part: the
    weights of its items in the loss.

    Of clips with several windows training takes one each time, drawn by the loader's own generator
    and so by the run's seed; scoring takes all.
    """

    item_weights: Tensor | None = None

    @cached_property
    def _targets(self) -> Tensor:
        labels = self.dataset.tls[1]
        return torch.tensor([int(labels[i]) for i in range(len(labels))])

    @property
    def _read(self) -> ReadPicture:
        return next(step for step in self.dataset.tls[0].tfms.fs if isinstance(step, ReadPicture))

    def gather(self, positions: Iterable[int]) -> TensorSpectrogram:
        """Return the codes of items of the data set, as `ReadPicture.gather` does."""
        return self._read.gather([self.dataset.items[int(position)] for position in positions])

    def _inputs(self, positions: list[int]) -> Tensor:
        windows = self._read.windows
        codes = self.gather(positions)
        if windows == 1 or self.dataset.split_idx != 0:
            return codes
        drawn = [self.rng.randrange(windows) for _ in positions]
        return codes[range(len(positions)), drawn]

    def create_batches(self, samps: Iterable[int]) -> Iterator[tuple]:
        """Yield (pictures, classes[, weights]) for each batch of positions in the data set."""
        for positions in self.chunkify(samps):
            positions = list(positions)
            batch = self._inputs(positions), TensorCategory(self._targets[positions])
            yield batch if self.item_weights is None else (*batch, self.item_weights[positions])

    def show_batch(self, b: tuple | None = None, **kwargs):
        """Draw a batch, its labels as they stand; weights have no picture."""
        drawn = super().show_batch((self.one_batch() if b is None else b)[:2], **kwargs)
        plots.draw_dollars(plt.gcf())
        return drawn


class Loudness(DisplayedTransform):
    """Codes -> floats on each plane's loudness scale; mean 0, deviation 1 over training clips."""

    order = 10

    def __init__(
        self,
        loudness: tuple[str, ...],
        mean: Tensor,
        deviation: Tensor,
        axes: SpectrogramAxes | None = None,
    ):
        self.loudness, self.axes = loudness, axes
        self.tables = torch.stack([decoding_table(scale) for scale in loudness])
        self.mean, self.deviation = mean.view(-1, 1, 1), deviation.view(-1, 1, 1)

    def encodes(self, pictures: TensorSpectrogram):
        codes = pictures.as_subclass(torch.Tensor).long()
        tables = self.tables.to(codes.device)
        planes = codes.unbind(-3)
        values = torch.stack([tables[i][plane] for i, plane in enumerate(planes)], dim=-3)
        values = (values - self.mean.to(values)) / self.deviation.to(values)
        return TensorSpectrogram(values)

    def decodes(self, pictures: TensorSpectrogram):
        values = pictures.as_subclass(torch.Tensor)
        if values.dim() == 5:
            values = values[:, values.shape[1] // 2]  # of several windows the middle one
        values = values * self.deviation.to(values) + self.mean.to(values)
        pictures = TensorSpectrogram(values.clamp(0, 1))
        if self.axes is not None:
            # Each picture taken out of the batch inherits them. Of a crop, seconds count from its
            # own start.
            times = self.axes.times[: values.shape[-1]]
            pictures.axes = replace(self.axes, times=times)
        return pictures


class CropInTime(DisplayedTransform):
    """Show the network a random stretch of each training picture, ``share`` of its columns."""

    order, split_idx = 6, 0

    def __init__(self, share: float):
        self.share = share

    def encodes(self, pictures: TensorSpectrogram):
        n, _, _, columns = pictures.shape
        seen = max(1, round(self.share * columns))
        starts = torch.randint(0, columns - seen + 1, (n,), device=pictures.device)
        source = starts[:, None] + torch.arange(seen, device=pictures.device)
        values = pictures.as_subclass(torch.Tensor)
        source = source[:, None, None, :].expand(*values.shape[:3], seen)
        return TensorSpectrogram(values.gather(3, source))


class ShiftInTime(DisplayedTransform):
    """Shift each training picture circularly in time, by up to ``largest`` of it either way.

    It runs before `Loudness`: codes are a quarter of the bytes of floats.
    """

    order, split_idx = 5, 0

    def __init__(self, largest: float):
        self.largest = largest

    def encodes(self, pictures: TensorSpectrogram):
        n, _, _, columns = pictures.shape
        reach = round(self.largest * columns)
        shifts = torch.randint(-reach, reach + 1, (n,), device=pictures.device)
        source = (torch.arange(columns, device=pictures.device) - shifts[:, None]) % columns
        values = pictures.as_subclass(torch.Tensor)
        return TensorSpectrogram(values.gather(3, source[:, None, None, :].expand_as(values)))


class ChangeGain(DisplayedTransform):
    """Make each training waveform louder or softer by a random gain, up to ``largest`` dB.

    It runs after `Loudness`, whose floats it multiplies.
    """

    order, split_idx = 15, 0

    def __init__(self, largest: float):
        self.largest = largest

    def encodes(self, pictures: TensorSpectrogram):
        values = pictures.as_subclass(torch.Tensor)
        decibels = (2 * torch.rand(len(values), 1, 1, 1, device=values.device) - 1) * self.largest
        return TensorSpectrogram(values * 10 ** (decibels / 20))


class MaskBands(DisplayedTransform):
    """Hide a band of rows and one of columns of training pictures (SpecAugment, Park et al. 2019).

    A band's width is uniform between 0 and ``widest`` of the picture; hidden cells take the mean,
    which is 0.
    """

    order, split_idx = 20, 0

    def __init__(self, widest: float):
        self.widest = widest

    def encodes(self, pictures: TensorSpectrogram):
        values = pictures.as_subclass(torch.Tensor)
        n, _, rows, columns = values.shape
        hidden = self._band(n, rows, values.device)[:, None, :, None]
        hidden = hidden | self._band(n, columns, values.device)[:, None, None, :]
        return TensorSpectrogram(values.masked_fill(hidden, 0.0))

    def _band(self, n: int, size: int, device: torch.device) -> Tensor:
        width = torch.rand(n, 1, device=device) * self.widest * size
        start = torch.rand(n, 1, device=device) * (size - width)
        place = torch.arange(size, device=device)[None, :]
        return (place >= start) & (place < start + width)


def plane_statistics(
    codes: Tensor, loudness: tuple[str, ...], rows: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Return each plane's mean and deviation over the pictures, from how often each code occurs.

    Parameters
    ----------
    codes : uint8, shape (n, planes, frequency, time) or (n, windows, planes, frequency, time).
    loudness : scale of each plane.
    rows : which of the n pictures count, by default all.
    """
    counted = torch.arange(len(codes)) if rows is None else torch.from_numpy(rows)
    means, deviations = [], []
    for plane, scale in enumerate(loudness):
        values = decoding_table(scale).double()
        counts = torch.zeros(256, dtype=torch.int64)
        for part in counted.split(COUNTED_AT_ONCE):
            counts += torch.bincount(codes[part, ..., plane, :, :].flatten(), minlength=256)
        share = counts.double() / counts.sum()
        mean = (share * values).sum()
        means.append(mean)
        deviations.append((share * (values - mean) ** 2).sum().sqrt().clamp_min(1e-6))
    return torch.stack(means).float(), torch.stack(deviations).float()


def make_dataloaders(
    table: pd.DataFrame,
    store: Store,
    variant_name: str,
    fold: int | None,
    profile: Profile,
    device: torch.device | None = None,
) -> DataLoaders:
    """Return fastai DataLoaders of a representation: one fold held out, all other clips to learn.

    Parameters
    ----------
    table : clips, index ``clip_id``, columns label, fold and verified. Clips that the store could
        not read are left out.
    store : holds the representation's channels.
    variant_name : as for `freesound_tagging.features.representations.get_variant`.
    fold : the fold held out; with None all clips train and none is held out.
    profile : batch size and augmentation.
    device : where batches go, by default the CPU.

    Raises
    ------
    ValueError
        Where no clip of the fold can be read, or none is left for training, or a class is left in
        no training clip, or the weight of unverified clips is not 0 to 1.
    """
    variant = get_variant(variant_name)
    items = table[~table.index.isin(store.failed)].sort_index()
    items = items.rename_axis("clip_id").reset_index()
    held_out = items.index[items["fold"] == fold]
    if fold is not None and len(held_out) in (0, len(items)):
        folds = sorted(items["fold"].unique().tolist())
        raise ValueError(
            f"fold {fold} leaves nothing to train on or to score; the folds are: {folds}"
        )
    training = items[items["fold"] != fold]
    unseen = sorted(set(items["label"]) - set(training["label"]))
    if unseen:
        lost = [name for name in store.failed if table["label"].get(name) == unseen[0]]
        remedy = f"; unreadable: {', '.join(lost)}; mend or replace them" if lost else ""
        raise ValueError(f"fold {fold}: no training clip of {unseen[0]!r}{remedy}")
    read = ReadPicture(store, variant, list(items["clip_id"]))
    loudness = tuple(scale for _, scale in variant.planes)
    mean, deviation = plane_statistics(read.codes, loudness, training.index.to_numpy())
    batch_transforms = [Loudness(loudness, mean, deviation, read.axes)]
    if profile.time_shift:
        batch_transforms.append(ShiftInTime(profile.time_shift))
    if profile.crop < 1:
        batch_transforms.append(CropInTime(profile.crop))
    if profile.gain:
        batch_transforms.append(ChangeGain(profile.gain))
    if profile.mask:
        batch_transforms.append(MaskBands(profile.mask))
    labels = dict(zip(items["clip_id"], items["label"], strict=True))
    block = DataBlock(
        blocks=(
            TransformBlock(type_tfms=read, batch_tfms=batch_transforms),
            CategoryBlock(vocab=sorted(items["label"].unique())),
        ),
        get_y=lambda clip_id: labels[clip_id],
        splitter=IndexSplitter(list(held_out)),
        dl_type=GatheredBatches,
    )
    batch_size = min(profile.batch_size, len(training))
    clip_ids = list(items["clip_id"])
    loaders = block.dataloaders(
        clip_ids, bs=batch_size, num_workers=0, device=device or torch.device("cpu")
    )
    if profile.unverified_weight != 1:
        loaders.train.item_weights = _weights(items, loaders.train.items, profile)
    return loaders


def _weights(items: pd.DataFrame, clip_ids: Sequence[str], profile: Profile) -> Tensor:
    """Return each clip's weight in the loss: 1 where its label was verified, (n,) floats."""
    if not 0 <= profile.unverified_weight <= 1:
        raise ValueError(f"unverified_weight must be 0 to 1, got {profile.unverified_weight!r}")
    verified = items.set_index("clip_id").loc[list(clip_ids), "verified"].to_numpy(dtype=bool)
    return torch.from_numpy(np.where(verified, 1.0, profile.unverified_weight)).float()
