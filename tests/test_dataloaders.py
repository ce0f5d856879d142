"""Every picture goes to the network by clip id, with its own planes, label and fold."""

import random
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import TensorCategory
from hypothesis import given, settings
from hypothesis import strategies as st

from freesound_tagging.features import store as stores
from freesound_tagging.features.codes import decoding_table
from freesound_tagging.features.filterbanks import axis_frequencies
from freesound_tagging.features.plots import SpectrogramAxes, spectrogram_axes
from freesound_tagging.features.representations import VARIANTS, get_variant
from freesound_tagging.features.store import Store
from freesound_tagging.learning.dataloaders import (
    ChangeGain,
    CropInTime,
    Loudness,
    MaskBands,
    ReadPicture,
    ShiftInTime,
    TensorSpectrogram,
    make_dataloaders,
    plane_statistics,
)
from freesound_tagging.learning.learner import make_learner, predict, predict_others
from freesound_tagging.run import train_and_score
from freesound_tagging.sounds.clips import ClipSettings, load_clip

# One of each kind: a plane on either scale, three planes on one axis, three on three axes.
KINDS = ["log_linear", "hires_q8", "3ch_hires_q1_q4_q8", "3ch_linear_mel_log"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def plain(profile):
    """Return the profile without augmentation."""
    return replace(profile, time_shift=0.0, mask=0.0, mixup=0.0)


def whole_epoch(loader) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all pictures and targets of a loader."""
    batches = [(pictures.as_subclass(torch.Tensor), targets) for pictures, targets in loader]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def expected_pictures(table, store, variant: str, fold: int, clip_ids) -> torch.Tensor:
    """Work out by plain steps what a network should see of some clips with one fold held out."""
    training = sorted(table.index[table["fold"] != fold])
    planes = []
    for channel, loudness in get_variant(variant).planes:
        values = decoding_table(loudness).numpy()
        seen = values[store.read(channel, training)].astype(np.float64)
        planes.append((values[store.read(channel, list(clip_ids))] - seen.mean()) / seen.std())
    return torch.from_numpy(np.stack(planes, axis=1).astype(np.float32))


# --- which clip, which plane, which label ------------------------------------------------------


@pytest.mark.parametrize("variant", KINDS)
def test_held_out_batches_are_the_clips_of_the_fold(table, store, profile, variant):
    dls = make_dataloaders(table, store, variant, 1, profile)
    clip_ids = list(dls.valid_ds.items)
    assert sorted(clip_ids) == sorted(table.index[table["fold"] == 1])
    pictures, targets = whole_epoch(dls.valid)
    torch.testing.assert_close(
        pictures, expected_pictures(table, store, variant, 1, clip_ids), rtol=1e-4, atol=1e-4
    )
    assert [dls.vocab[target] for target in targets] == list(table.loc[clip_ids, "label"])


@pytest.mark.parametrize("variant", KINDS)
def test_training_batches_are_all_other_clips(table, store, profile, variant):
    # Without augmentation every training picture is found, once at most, with its own label.
    dls = make_dataloaders(table, store, variant, 2, plain(profile))
    training = sorted(table.index[table["fold"] != 2])
    assert sorted(dls.train_ds.items) == training
    expected = expected_pictures(table, store, variant, 2, training)
    pictures, targets = whole_epoch(dls.train)
    distances = torch.cdist(pictures.flatten(1), expected.flatten(1))
    assert distances.min(dim=1).values.max() < 0.1
    found = distances.argmin(dim=1).tolist()
    assert len(set(found)) == len(found)
    labels = [table.loc[training[i], "label"] for i in found]
    assert [dls.vocab[target] for target in targets] == labels


@pytest.mark.parametrize("variant", VARIANTS)
def test_planes_are_the_channels_that_the_variant_names(table, store, variant):
    clip_ids = list(table.index)  # in the table's own order, which is nobody else's
    read = ReadPicture(store, get_variant(variant), clip_ids)
    for clip_id in clip_ids[::7]:
        codes = read(clip_id)
        assert isinstance(codes, TensorSpectrogram)
        assert codes.dtype == torch.uint8
        assert len(codes) == len(VARIANTS[variant].planes)
        for plane, channel in enumerate(VARIANTS[variant].channels):
            np.testing.assert_array_equal(codes[plane], store.read(channel, [clip_id])[0])


def test_order_of_the_rows_means_nothing(table, store, profile):
    shuffled = table.sample(frac=1, random_state=99)
    assert list(shuffled.index) != list(table.index)
    seen = []
    for rows in (table, shuffled):
        torch.manual_seed(0)
        dls = make_dataloaders(rows, store, "3ch_hires_q1_q8_log_db", 0, profile)
        seen.append((list(dls.valid_ds.items), dls.valid.one_batch()))
    assert seen[0][0] == seen[1][0]
    assert torch.equal(seen[0][1][0], seen[1][1][0])
    assert torch.equal(seen[0][1][1], seen[1][1][1])


def test_index_without_a_name_and_numbers_for_labels(table, store, profile):
    table.index.name = None
    table["label"] = table["label"].map({"clicks": "10", "sweep": "9", "tone": "1"})
    dls = make_dataloaders(table, store, "log_db", 0, profile)
    assert list(dls.vocab) == ["1", "10", "9"]


def test_clips_that_could_not_be_read_are_left_out(table, store, profile):
    gone = ["clicks-0-1", "tone-2-2"]
    places = {
        channel: {clip_id: place for clip_id, place in rows.items() if clip_id not in gone}
        for channel, rows in store.places.items()
    }
    lacking = Store(store.grid, places, dict.fromkeys(gone, "unreadable"))
    dls = make_dataloaders(table, lacking, "log_db", 0, profile)
    assert not set(gone) & {*dls.train_ds.items, *dls.valid_ds.items}
    assert len(dls.train_ds) + len(dls.valid_ds) == len(table) - len(gone)
    left = table.drop(gone)
    pictures, targets = whole_epoch(dls.valid)
    expected = expected_pictures(left, store, "log_db", 0, dls.valid_ds.items)
    torch.testing.assert_close(pictures, expected, rtol=1e-4, atol=1e-4)
    assert [dls.vocab[t] for t in targets] == list(left.loc[list(dls.valid_ds.items), "label"])


# --- batches -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=KINDS)
def loaders(request, _table, store, profile):
    return make_dataloaders(_table, store, request.param, 1, profile)


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_batch_is_its_single_items(loaders, data):
    for loader, items in ((loaders.train, loaders.train_ds), (loaders.valid, loaders.valid_ds)):
        n = len(items)
        positions = data.draw(st.permutations(range(n)))[: data.draw(st.integers(1, n))]
        batches = list(loader.create_batches(positions))
        sizes = [len(pictures) for pictures, _ in batches]
        whole, rest = divmod(len(positions), loader.bs)
        # The last training batch is left out where it is not full: batch normalisation needs many.
        assert sizes == [loader.bs] * whole + [rest] * (rest > 0 and not loader.drop_last)
        for start, (pictures, targets) in zip(range(0, n, loader.bs), batches, strict=False):
            singles = [items[position] for position in positions[start : start + loader.bs]]
            assert isinstance(pictures, TensorSpectrogram)
            assert isinstance(targets, TensorCategory)
            assert pictures.dtype == torch.uint8
            expected = torch.stack([picture.as_subclass(torch.Tensor) for picture, _ in singles])
            assert torch.equal(pictures.as_subclass(torch.Tensor), expected)
            assert targets.tolist() == [int(target) for _, target in singles]


def test_an_epoch_shuffles_training_clips_and_leaves_out_less_than_a_batch(table, store, profile):
    dls = make_dataloaders(table, store, "log_db", 1, plain(profile))
    singles = torch.stack([dls.train_ds[i][0] for i in range(len(dls.train_ds))])
    known = dls.train.after_batch((TensorSpectrogram(singles),))[0].as_subclass(torch.Tensor)
    orders = []
    for _ in range(3):
        pictures, _ = whole_epoch(dls.train)
        assert len(dls.train_ds) - dls.train.bs < len(pictures) <= len(dls.train_ds)
        orders.append(torch.cdist(pictures.flatten(1), known.flatten(1)).argmin(dim=1).tolist())
        assert len(set(orders[-1])) == len(pictures)
    assert orders[0] != orders[1] != orders[2]
    first, second = whole_epoch(dls.valid), whole_epoch(dls.valid)
    assert torch.equal(first[0], second[0])
    assert len(first[0]) == len(dls.valid_ds)


# --- codes become floats -----------------------------------------------------------------------


@pytest.mark.parametrize("variant", KINDS)
def test_codes_become_floats_of_mean_0_and_deviation_1(table, store, profile, variant):
    dls = make_dataloaders(table, store, variant, 0, plain(profile))
    item = dls.train_ds[0][0]
    assert item.dtype == torch.uint8
    everything = torch.stack([dls.train_ds[i][0] for i in range(len(dls.train_ds))])
    floats = dls.train.after_batch((TensorSpectrogram(everything),))[0]
    assert floats.dtype == torch.float32
    assert isinstance(floats, TensorSpectrogram)
    planes = floats.as_subclass(torch.Tensor).double()
    np.testing.assert_allclose(planes.mean(dim=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(planes.std(dim=(0, 2, 3)), 1, atol=1e-3)


def test_every_transform_accepts_a_typed_picture(grid):
    # fastai hands a picture back untouched where a transform's annotation does not match its type.
    codes = TensorSpectrogram(torch.randint(0, 256, (4, 1, 16, 20), dtype=torch.uint8))
    statistics = torch.tensor([0.5]), torch.tensor([0.25])
    torch.manual_seed(0)
    assert CropInTime(0.5)(codes, split_idx=0).shape == (4, 1, 16, 10)
    assert CropInTime(0.5)(codes, split_idx=1) is codes
    for transform in (Loudness(("db",), *statistics), ShiftInTime(0.5)):
        assert not torch.equal(transform(codes, split_idx=0), codes)
    floats = Loudness(("db",), *statistics)(codes)
    assert not torch.equal(MaskBands(0.9)(floats, split_idx=0), floats)


def test_loudness_goes_there_and_back(store, table):
    codes = torch.from_numpy(store.read("log", list(table.index)))[:, None]
    for scale in ("db", "linear"):
        loudness = Loudness((scale,), *plane_statistics(codes, (scale,)))
        there = loudness(TensorSpectrogram(codes))
        back = loudness.decode(there)
        expected = decoding_table(scale)[codes.long()]
        torch.testing.assert_close(back.as_subclass(torch.Tensor), expected, atol=1e-5, rtol=1e-4)


def test_statistics_are_those_of_numpy():
    codes = torch.randint(0, 256, (3, 2, 5, 7), dtype=torch.uint8)
    mean, deviation = plane_statistics(codes, ("db", "linear"))
    for plane, scale in enumerate(("db", "linear")):
        values = decoding_table(scale).double()[codes[:, plane].long()].numpy()
        assert float(mean[plane]) == pytest.approx(values.mean(), rel=1e-6)
        assert float(deviation[plane]) == pytest.approx(values.std(), rel=1e-6)


def test_a_plane_of_one_value_does_not_divide_by_zero():
    codes = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    loudness = Loudness(("db",), *plane_statistics(codes, ("db",)))
    assert torch.isfinite(loudness(TensorSpectrogram(codes))).all()


class Scrambled(Store):
    """A store that gives other pictures for some of its clips."""

    def read(self, channel, clip_ids):
        codes = super().read(channel, clip_ids)
        spoilt = [clip_id.split("-")[1] == "0" for clip_id in clip_ids]
        codes[spoilt] = 255 - codes[spoilt]
        return codes


def test_statistics_come_from_the_training_clips_only(table, store, profile):
    scrambled = Scrambled(store.grid, store.places)
    found = {}
    for name, source in {"as they are": store, "spoilt": scrambled}.items():
        for fold in (0, 1):
            dls = make_dataloaders(table, source, "log_db", fold, profile)
            (loudness,) = (t for t in dls.train.after_batch.fs if isinstance(t, Loudness))
            found[name, fold] = float(loudness.mean), float(loudness.deviation)
    assert found["as they are", 0] == found["spoilt", 0]  # fold 0 is held out: nobody looks at it
    assert found["as they are", 1] != found["spoilt", 1]


# --- augmentation ------------------------------------------------------------------------------


def test_augmentation_touches_training_batches_only(table, store, profile):
    dls = make_dataloaders(table, store, "hires_q2", 0, profile)
    training = torch.stack([dls.train_ds[i][0] for i in range(7)])
    expected = expected_pictures(table, store, "hires_q2", 0, dls.valid_ds.items)
    for _ in range(2):  # one after the other, as epochs go
        dls.train.before_iter()
        twice = [dls.train.after_batch((TensorSpectrogram(training.clone()),))[0] for _ in "ab"]
        assert not torch.equal(*twice)
        pictures, _ = whole_epoch(dls.valid)
        torch.testing.assert_close(pictures, expected, rtol=1e-4, atol=1e-4)


def test_a_shift_turns_each_picture_around_as_a_whole():
    torch.manual_seed(0)
    columns = 20
    codes = torch.randint(0, 256, (200, 3, 5, columns), dtype=torch.uint8)
    shifted = ShiftInTime(0.25)(TensorSpectrogram(codes), split_idx=0).as_subclass(torch.Tensor)
    shifts = set()
    for before, after in zip(codes, shifted, strict=True):
        matches = [s for s in range(-10, 10) if torch.equal(after, before.roll(s, dims=2))]
        assert len(matches) == 1  # rows and planes stay together
        shifts.add(matches[0])
    assert shifts == set(range(-5, 6))


def test_a_mask_hides_one_band_of_rows_and_one_of_columns():
    torch.manual_seed(0)
    ones = TensorSpectrogram(torch.ones(200, 2, 30, 40))
    masked = MaskBands(0.2)(ones, split_idx=0).as_subclass(torch.Tensor)
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masked[:, 0], masked[:, 1])  # the planes show the same sound
    widths = []
    for picture in masked[:, 0]:
        for dimension, size in ((1, 30), (0, 40)):
            hidden = (picture == 0).all(dim=dimension).nonzero().flatten()
            assert len(hidden) <= 0.2 * size + 1
            assert (hidden.diff() == 1).all()  # one band
            widths.append(len(hidden))
        rows, cols = (picture == 0).all(dim=1), (picture == 0).all(dim=0)
        assert torch.equal(picture == 0, rows[:, None] | cols[None, :])
    assert max(widths) > 4 and min(widths) == 0


@settings(deadline=None, max_examples=60)
@given(
    share=st.floats(0.01, 0.999),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.integers(1, 40)),
    seed=st.integers(0, 999),
)
def test_a_crop_is_a_stretch_of_its_own_picture(share, shape, seed):
    torch.manual_seed(seed)
    # Every cell another number: a stretch is found at one place at most.
    pictures = torch.arange(np.prod(shape)).reshape(shape)
    cropped = CropInTime(share)(TensorSpectrogram(pictures), split_idx=0)
    assert isinstance(cropped, TensorSpectrogram)
    columns = shape[3]
    seen = max(1, round(share * columns))
    assert cropped.shape == (*shape[:3], seen)
    for before, after in zip(pictures, cropped.as_subclass(torch.Tensor), strict=True):
        start = int((before[0, 0] == after[0, 0, 0]).nonzero())
        assert torch.equal(after, before[:, :, start : start + seen])  # planes and rows together


def test_crops_start_everywhere_and_pictures_apart():
    torch.manual_seed(0)
    pictures = torch.arange(20).expand(400, 1, 2, 20)
    cropped = CropInTime(0.4)(TensorSpectrogram(pictures), split_idx=0)
    starts = cropped[:, 0, 0, 0].tolist()
    assert set(starts) == set(range(13))  # 8 of 20 columns, the last from 12 on
    counts = np.bincount(starts)
    assert counts.min() > 10 and counts.max() < 70


@pytest.mark.parametrize("share", [0.25, 0.4, 0.9])
@pytest.mark.parametrize("variant", ["log_db", "3ch_hires_q1_q8_log_db"])
def test_training_pictures_are_cropped_and_held_out_ones_whole(
    table, store, profile, variant, share
):
    dls = make_dataloaders(table, store, variant, 0, replace(plain(profile), crop=share))
    columns = store.grid.n_frames
    seen = round(share * columns)
    assert seen < columns
    singles = torch.stack([dls.train_ds[i][0] for i in range(len(dls.train_ds))])
    assert singles.shape[3] == columns
    loudness = next(t for t in dls.train.after_batch.fs if isinstance(t, Loudness))
    known = loudness(TensorSpectrogram(singles)).as_subclass(torch.Tensor)
    stretches = known.unfold(3, seen, 1)  # (clips, planes, rows, starts, seen)
    for pictures, _ in dls.train:
        assert pictures.shape[1:] == (*known.shape[1:3], seen)
        for picture in pictures.as_subclass(torch.Tensor):
            same = (stretches == picture[None, :, :, None, :]).all(dim=4).all(dim=2).all(dim=1)
            assert same.any()
    held_out, _ = whole_epoch(dls.valid)
    expected = expected_pictures(table, store, variant, 0, dls.valid_ds.items)
    torch.testing.assert_close(held_out, expected, rtol=1e-4, atol=1e-4)


def test_a_share_of_1_adds_nothing(table, store, profile):
    batches = []
    for crop in (1.0, 0.5):
        dls = make_dataloaders(table, store, "log_db", 0, replace(profile, crop=crop))
        found = [t for t in dls.train.after_batch.fs if isinstance(t, CropInTime)]
        assert len(found) == (crop < 1)
        torch.manual_seed(0)
        batches.append(dls.train.one_batch()[0].shape[3])
    assert batches == [store.grid.n_frames, round(0.5 * store.grid.n_frames)]


def test_cropped_batches_are_drawn_too(table, store, profile):
    dls = make_dataloaders(table, store, "log_db", 0, replace(profile, crop=0.5))
    dls.show_batch(max_n=2)
    drawn = [ax for ax in plt.gcf().axes if ax.collections]
    seconds = 14 * store.grid.hop_length / store.grid.sample_rate
    assert [np.diff(ax.get_xlim())[0] for ax in drawn] == pytest.approx([seconds, seconds])


def test_transforms_leave_their_input_alone():
    codes = TensorSpectrogram(torch.randint(0, 256, (4, 1, 8, 9), dtype=torch.uint8))
    floats = TensorSpectrogram(torch.rand(4, 1, 8, 9))
    copies = codes.clone(), floats.clone()
    ShiftInTime(0.5)(codes, split_idx=0)
    CropInTime(0.5)(codes, split_idx=0)
    MaskBands(0.5)(floats, split_idx=0)
    assert torch.equal(codes, copies[0]) and torch.equal(floats, copies[1])


# --- drawing -----------------------------------------------------------------------------------


def labels_of(texts) -> list[str]:
    return [text.get_text() for text in texts]


@pytest.mark.parametrize("variant", KINDS)
def test_show_batch_draws_hertz_and_seconds(table, store, profile, variant):
    dls = make_dataloaders(table, store, variant, 0, profile)
    dls.show_batch(max_n=4)
    drawn = [ax for ax in plt.gcf().axes if ax.collections]
    assert len(drawn) == 4
    for ax in drawn:
        assert ax.get_title() in set(table["label"])
        assert ax.get_xlabel() == "time (s)"
        half = store.grid.hop_length / store.grid.sample_rate / 2
        ends = store.grid.times[0] - half, store.grid.times[-1] + half
        assert ax.get_xlim() == pytest.approx(ends)
        if variant == "3ch_linear_mel_log":
            assert ax.get_ylabel() == "frequency (axes differ)"
        else:
            assert ax.get_ylabel() == "frequency (Hz)"
            low, high = ax.get_ylim()  # low frequencies at the bottom
            assert low < store.grid.fmin < 1000 < store.grid.fmax < high
        values = np.ma.getdata(ax.collections[0].get_array())
        low, high = ax.collections[0].get_clim() if values.ndim == 2 else (0, 1)
        assert low <= values.min() and values.max() <= high
        assert values.max() > low + 0.3 * (high - low)  # decoded, not floats or an empty picture


def test_dollars_in_a_label_are_no_formula(table, store, profile):
    table["label"] = table["label"].map({"clicks": "$5_$", "sweep": "Ba$$in", "tone": "$\\x$"})
    dls = make_dataloaders(table, store, "log_db", 0, profile)
    dls.show_batch(max_n=9)
    plt.gcf().canvas.draw()
    assert {ax.get_title() for ax in plt.gcf().axes} <= {*table["label"], ""}


def test_one_picture_of_the_data_set_draws_hertz_and_seconds(table, store, profile):
    dls = make_dataloaders(table, store, "log_db", 0, profile)
    dls.train_ds.show(dls.train_ds[3])
    assert plt.gca().get_xlabel() == "time (s)"
    assert plt.gca().get_ylabel() == "frequency (Hz)"


def test_a_picture_draws_without_axes_too():
    picture = TensorSpectrogram(torch.randint(0, 256, (1, 6, 8), dtype=torch.uint8))
    assert picture.show().get_xlabel() == "column"
    axes = SpectrogramAxes(np.geomspace(50, 9000, 6), np.linspace(0.05, 1.95, 8), "dB")
    assert picture.show(axes=axes).get_ylabel() == "frequency (Hz)"


def test_axes_of_a_variant(store):
    axes = spectrogram_axes(get_variant("mel_linear"), store.grid)
    np.testing.assert_array_equal(axes.frequencies, axis_frequencies("mel", store.grid))
    np.testing.assert_array_equal(axes.times, store.grid.times)
    assert axes.unit == "magnitude / maximum"
    assert spectrogram_axes(get_variant("3ch_linear_mel_log"), store.grid).frequencies is None
    assert spectrogram_axes(get_variant("log_db"), store.grid).unit == "dB"


# --- errors ------------------------------------------------------------------------------------


def test_a_fold_that_is_not_there_lists_the_folds(table, store, profile):
    with pytest.raises(ValueError, match=r"fold 7 .*\[0, 1, 2\]"):
        make_dataloaders(table, store, "log_db", 7, profile)


def test_one_fold_leaves_nothing_to_train_on(table, store, profile):
    with pytest.raises(ValueError, match="fold 0 leaves nothing to train on"):
        make_dataloaders(table[table["fold"] == 0], store, "log_db", 0, profile)


def test_a_class_without_training_clips_is_named(table, store, profile):
    lacking = pd.concat([table[table["label"] != "tone"], table.query("label=='tone' & fold==1")])
    with pytest.raises(ValueError, match="fold 1: no training clip of 'tone'"):
        make_dataloaders(lacking, store, "log_db", 1, profile)
    unreadable = replace(store, failed={"tone-0-0": "not audio"})
    two = pd.concat([lacking, table.loc[["tone-0-0"]]])
    with pytest.raises(ValueError, match="'tone'; unreadable: tone-0-0; mend"):
        make_dataloaders(two, unreadable, "log_db", 1, profile)


def test_unknown_variant_and_missing_channel(table, store, profile, grid):
    with pytest.raises(
        ValueError, match="unknown representation 'nonesuch'; the known ones are: linear_lin"
    ):
        make_dataloaders(table, store, "nonesuch", 0, profile)
    only_log = Store(grid, {"log": store.places["log"]})
    with pytest.raises(KeyError, match="'mel' is not in the store; it holds: log"):
        make_dataloaders(table, only_log, "mel_db", 0, profile)


def test_batches_larger_than_the_data_still_train(table, store, profile):
    dls = make_dataloaders(table, store, "log_db", 0, replace(profile, batch_size=1000))
    assert len(dls.train) == 1
    assert len(dls.train.one_batch()[0]) == 18


# --- several windows of a clip ---------------------------------------------------------------


@pytest.fixture(scope="module")
def windowed(_table, grid, tmp_path_factory) -> Store:
    """Four windows of 0.15 s of each clip of 0.4 s."""
    grid = replace(grid, duration=0.15, hop_length=197, windows=4)
    folder = tmp_path_factory.mktemp("windows")
    return stores.build(_table, ["log", "mel"], grid, folder, n_jobs=1, progress=False)


def drawn_windows(loader, store: Store) -> list[int]:
    """Return which window of its clip each picture of an epoch is, in the order of the clips."""
    found = {}
    clip_ids = list(loader.dataset.items)
    codes = store.read("log", clip_ids)
    for positions in loader.chunkify(loader.get_idxs()):
        positions = list(positions)
        for position, picture in zip(positions, loader._inputs(positions), strict=True):
            same = (codes[position] == picture[0].numpy()).all(axis=(1, 2))
            assert same.any()
            found[position] = int(same.argmax())
    return [found[position] for position in sorted(found)]


def test_training_draws_one_window_of_each_clip_by_the_loaders_generator(table, windowed, profile):
    def draw(seed: int) -> list[list[int]]:
        loader = make_dataloaders(table, windowed, "log_db", 0, plain(profile)).train
        loader.rng = random.Random(seed)
        return [drawn_windows(loader, windowed) for _ in range(6)]

    first = draw(0)
    assert first == draw(0)
    assert first != draw(1)
    assert {window for epoch in first for window in epoch} == {0, 1, 2, 3}
    assert len({tuple(epoch) for epoch in first}) > 1


def test_scoring_sees_all_windows_of_each_clip(table, windowed, profile):
    dls = make_dataloaders(table, windowed, "log_db", 1, plain(profile))
    pictures, _ = dls.valid.one_batch()
    clip_ids = list(dls.valid_ds.items)[: len(pictures)]
    grid = windowed.grid
    assert pictures.shape == (len(clip_ids), 4, 1, grid.n_bins, grid.n_frames)
    training = sorted(table.index[table["fold"] != 1])
    values = decoding_table("db").numpy()
    seen = values[windowed.read("log", training)].astype(np.float64)
    expected = (values[windowed.read("log", clip_ids)] - seen.mean()) / seen.std()
    np.testing.assert_allclose(pictures[:, :, 0].numpy(), expected, atol=1e-4)


def test_a_clip_with_windows_is_shown_by_its_middle_one(table, windowed, profile):
    dls = make_dataloaders(table, windowed, "log_db", 1, plain(profile))
    picture, _ = dls.valid_ds[0]
    middle = windowed.read("log", [dls.valid_ds.items[0]])[0, 2]
    np.testing.assert_array_equal(picture[0].numpy(), middle)
    dls.valid.show_batch(max_n=2)
    dls.train.show_batch(max_n=2)


def test_a_clips_scores_are_the_mean_over_its_windows(table, windowed, profile):
    settings = plain(profile)
    learner = make_learner(make_dataloaders(table, windowed, "log_db", 1, settings), settings)
    scores = predict(learner)
    others = predict_others(learner, windowed, "log_db", list(scores.index))
    pictures, _ = whole_epoch(learner.dls.valid)
    network = learner.model.eval()
    with torch.no_grad():
        alone = [network(pictures[:, window]).softmax(dim=1) for window in range(4)]
    expected = torch.stack(alone).mean(dim=0).numpy()
    np.testing.assert_allclose(scores.to_numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(others.to_numpy(), expected, atol=1e-6)
    assert np.ptp(torch.stack(alone).numpy(), axis=0).max() > 1e-4  # the windows do differ


def test_a_run_with_windows_repeats_to_the_byte(table, windowed, profile):
    settings = replace(profile, epochs=2)
    first, again, other = (
        train_and_score(table, windowed, "log_db", 0, seed, settings) for seed in (0, 0, 1)
    )
    assert first.to_csv() == again.to_csv()
    assert len(first) == (table["fold"] == 0).sum()
    assert not np.allclose(first.iloc[:, 4:], other.iloc[:, 4:])


# --- waveforms ---------------------------------------------------------------------------------


def test_the_waveform_network_sees_the_same_clips_as_the_rest(table, store, profile):
    ours = make_dataloaders(table, store, "waveform", 0, profile)
    theirs = make_dataloaders(table, store, "log_db", 0, profile)
    for own, other in zip(ours.loaders, theirs.loaders, strict=True):
        assert list(own.items) == list(other.items)
        assert [int(c) for _, c in own.dataset] == [int(c) for _, c in other.dataset]
    crop = ClipSettings(store.grid.sample_rate, store.grid.duration)
    (scale,) = [step for step in ours.valid.after_batch.fs if isinstance(step, Loudness)]
    for clip_id in ours.valid.items:
        waveform, _ = load_clip(table.loc[clip_id, "path"], crop)
        position = [list(ours.valid.items).index(clip_id)]
        (batch,) = ours.valid.after_batch((ours.valid.gather(position),))
        seen = 2 * scale.decodes(batch)[0, 0, 0].as_subclass(torch.Tensor) - 1
        expected = waveform / np.abs(waveform).max()
        np.testing.assert_allclose(seen, expected, atol=0.023)  # half a step at full scale


def test_gain_changes_the_level_of_training_waveforms_alone():
    quiet = torch.full((64, 1, 1, 9), 0.1)
    louder = ChangeGain(6.0)(TensorSpectrogram(quiet), split_idx=0).as_subclass(torch.Tensor)
    ratios = 20 * torch.log10(louder / quiet)[:, 0, 0]
    assert (ratios.amax(1) - ratios.amin(1)).max() < 1e-4  # a clip as a whole
    assert ratios.abs().max() <= 6 + 1e-4
    assert ratios.min() < -4 < 4 < ratios.max()
    held_out = ChangeGain(6.0)(TensorSpectrogram(quiet), split_idx=1)
    torch.testing.assert_close(held_out.as_subclass(torch.Tensor), quiet)
