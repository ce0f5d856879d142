"""Every spectrogram goes to the network by clip id, with its own channels, label and fold."""

import random
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import TensorCategory
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from freesound_tagging.features import store as stores
from freesound_tagging.features.codes import decoding_table
from freesound_tagging.features.representations import VARIANTS, get_variant
from freesound_tagging.features.store import Store
from freesound_tagging.learning.dataloaders import (
    ChangeGain,
    Loudness,
    MaskBands,
    ReadCodes,
    ShiftInTime,
    TensorSpectrogram,
    channel_statistics,
    make_dataloaders,
)
from freesound_tagging.learning.learner import make_learner, predict
from freesound_tagging.sounds import catalogue
from freesound_tagging.sounds.clips import load_clip

# One of each kind: a channel on either scale, three channels on one axis, three on three axes.
KINDS = ["log_linear", "hires_q8", "3ch_hires_q1_q4_q8", "3ch_linear_mel_log"]


def plain(profile):
    """Return the profile without augmentation."""
    return replace(profile, time_shift=0.0, mask=0.0, mixup=0.0)


def whole_epoch(loader) -> tuple[Tensor, Tensor]:
    batches = [(batch.as_subclass(Tensor), targets) for batch, targets in loader]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def expected_of(table, store, variant: str, fold: int, clip_ids) -> Tensor:
    """Work out by plain steps what a network should see of some clips with one fold held out."""
    training = sorted(table.index[table["fold"] != fold])
    channels = []
    for channel, loudness in get_variant(variant).planes:
        values = decoding_table(loudness).numpy()
        seen = values[store.read(channel, training)].astype(np.float64)
        channels.append((values[store.read(channel, list(clip_ids))] - seen.mean()) / seen.std())
    return torch.from_numpy(np.stack(channels, axis=-3).astype(np.float32))


# --- which clip, which channel, which label ----------------------------------------------------


@pytest.mark.parametrize("variant", KINDS)
def test_batches_are_the_clips_with_their_labels_and_are_floats_of_mean_0(
    table, store, profile, variant
):
    dls = make_dataloaders(table, store, variant, 2, plain(profile))
    known = {}
    for loader, fold in ((dls.train, [0, 1]), (dls.valid, [2])):
        clip_ids = list(loader.dataset.items)
        assert sorted(clip_ids) == sorted(table.index[table["fold"].isin(fold)])
        known[fold[0]] = expected_of(table, store, variant, 2, clip_ids)
        batch, targets = whole_epoch(loader)
        distances = torch.cdist(batch.flatten(1), known[fold[0]].flatten(1))
        found = distances.argmin(dim=1).tolist()
        torch.testing.assert_close(batch, known[fold[0]][found], rtol=1e-4, atol=1e-4)
        labels = [table.loc[clip_ids[i], "label"] for i in found]
        assert [dls.vocab[target] for target in targets] == labels
        assert len(set(found)) == len(found) > len(clip_ids) - loader.bs
    assert found == list(range(len(clip_ids)))  # held-out clips come in their order
    np.testing.assert_allclose(known[0].mean(dim=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(known[0].std(dim=(0, 2, 3)), 1, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_channels_are_those_that_the_representation_names(table, store, variant):
    clip_ids = list(table.index)  # in the table's own order, which is nobody else's
    read = ReadCodes(store, get_variant(variant), clip_ids)
    for clip_id in clip_ids[::7]:
        codes = read(clip_id)
        assert isinstance(codes, TensorSpectrogram)
        assert codes.dtype == torch.uint8
        assert len(codes) == len(VARIANTS[variant].channels)
        for number, channel in enumerate(VARIANTS[variant].channels):
            np.testing.assert_array_equal(codes[number], store.read(channel, [clip_id])[0])


def test_clips_that_could_not_be_read_are_left_out(table, store, profile):
    gone = ["clicks-0-1", "tone-2-2"]
    places = {
        channel: {clip_id: place for clip_id, place in rows.items() if clip_id not in gone}
        for channel, rows in store.places.items()
    }
    lacking = Store(store.grid, places, dict.fromkeys(gone, "unreadable"))
    dls = make_dataloaders(table, lacking, "log_db", 0, profile)
    assert {*dls.train_ds.items, *dls.valid_ds.items} == set(table.index) - set(gone)
    expected = expected_of(table.drop(gone), store, "log_db", 0, dls.valid_ds.items)
    torch.testing.assert_close(whole_epoch(dls.valid)[0], expected, rtol=1e-4, atol=1e-4)


def test_folds_and_targets_go_by_name_from_the_file_to_the_network(table, grid, profile, tmp_path):
    """Rows stand in the reverse of the directory's order; fold and label are in the file's name."""
    rows = []
    for i, clip in enumerate(table.itertuples()):
        name = f"{i:02d}-fold{clip.fold}-{clip.label}.wav"
        (tmp_path / name).write_bytes(Path(clip.path).read_bytes())
        rows.append((name, clip.label, clip.fold))
    rows = pd.DataFrame(rows[::-1], columns=["file", "label", "fold"])
    rows.to_csv(tmp_path / "mine.csv", index=False)
    loaded = catalogue.load(tmp_path / "mine.csv")
    store = stores.build(loaded, ["log"], grid, tmp_path / "store", n_jobs=1, progress=False)
    dls = make_dataloaders(loaded.sample(frac=1, random_state=0), store, "log_db", 1, profile)
    assert len(dls.valid_ds) == 9 and len(dls.train_ds) == 18
    for dataset, held_out in ((dls.valid_ds, True), (dls.train_ds, False)):
        for i, clip_id in enumerate(dataset.items):
            codes, target = dataset[i]
            assert ("-fold1-" in clip_id) == held_out
            assert clip_id.endswith(f"-{dls.vocab[target]}.wav")
            np.testing.assert_array_equal(codes[0].numpy(), store.read("log", [clip_id])[0])


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
        sizes = [len(batch) for batch, _ in batches]
        whole, rest = divmod(len(positions), loader.bs)
        # The last training batch is left out where it is not full: batch normalisation needs many.
        assert sizes == [loader.bs] * whole + [rest] * (rest > 0 and not loader.drop_last)
        for start, (batch, targets) in zip(range(0, n, loader.bs), batches, strict=False):
            singles = [items[position] for position in positions[start : start + loader.bs]]
            assert isinstance(batch, TensorSpectrogram)
            assert isinstance(targets, TensorCategory)
            assert batch.dtype == torch.uint8
            expected = torch.stack([codes.as_subclass(Tensor) for codes, _ in singles])
            assert torch.equal(batch.as_subclass(Tensor), expected)
            assert targets.tolist() == [int(target) for _, target in singles]


def test_an_epoch_shuffles_training_clips_and_scoring_does_not(table, store, profile):
    dls = make_dataloaders(table, store, "log_db", 1, plain(profile))
    first, second, third = (whole_epoch(dls.train)[0] for _ in range(3))
    assert not torch.equal(first, second) and not torch.equal(second, third)
    first, second = (whole_epoch(dls.valid)[0] for _ in range(2))
    assert torch.equal(first, second)


# --- codes become floats -----------------------------------------------------------------------


def test_a_channel_of_one_value_does_not_divide_by_zero():
    codes = torch.randint(0, 256, (3, 1, 5, 7), dtype=torch.uint8)
    loudness = Loudness(("db",), *channel_statistics(codes * 0, ("db",), np.arange(3)))
    assert torch.isfinite(loudness(TensorSpectrogram(codes))).all()


# --- augmentation ------------------------------------------------------------------------------


def test_augmentation_touches_training_batches_only(table, store, profile):
    dls = make_dataloaders(table, store, "hires_q2", 0, replace(profile, crop=0.5, gain=6.0))
    training = torch.stack([dls.train_ds[i][0] for i in range(7)])
    expected = expected_of(table, store, "hires_q2", 0, dls.valid_ds.items)
    for _ in range(2):  # one after the other, as epochs go
        dls.train.before_iter()
        twice = [dls.train.after_batch((TensorSpectrogram(training.clone()),))[0] for _ in "ab"]
        assert not torch.equal(*twice)
        torch.testing.assert_close(whole_epoch(dls.valid)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("vary", [ShiftInTime(0.5), ShiftInTime(0, 0.4), MaskBands(0.9)])
def test_a_variation_takes_typed_spectrograms_and_leaves_them_alone(vary):
    # fastai hands one back untouched where a transform's annotation does not match its type.
    torch.manual_seed(0)
    given = TensorSpectrogram(torch.rand(4, 1, 16, 20))
    copy = given.clone()
    assert not torch.equal(vary(given, split_idx=0), copy)
    assert torch.equal(given, copy)
    assert vary(given, split_idx=1) is given


def test_a_shift_turns_each_spectrogram_around_as_a_whole():
    torch.manual_seed(0)
    codes = torch.randint(0, 256, (200, 3, 5, 20), dtype=torch.uint8)
    shifted = ShiftInTime(0.25)(TensorSpectrogram(codes), split_idx=0).as_subclass(Tensor)
    shifts = set()
    for before, after in zip(codes, shifted, strict=True):
        matches = [s for s in range(-10, 10) if torch.equal(after, before.roll(s, dims=2))]
        assert len(matches) == 1  # rows and channels stay together
        shifts.add(matches[0])
    assert shifts == set(range(-5, 6))


@settings(deadline=None, max_examples=60)
@given(
    share=st.floats(0.01, 0.999),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.integers(1, 40)),
    seed=st.integers(0, 999),
)
def test_a_crop_is_a_stretch_of_its_own_spectrogram(share, shape, seed):
    torch.manual_seed(seed)
    given = torch.arange(np.prod(shape)).reshape(shape)  # every cell another number
    cropped = ShiftInTime(0, share)(TensorSpectrogram(given), split_idx=0)
    seen = max(1, round(share * shape[3]))
    assert cropped.shape == (*shape[:3], seen)
    for before, after in zip(given, cropped.as_subclass(Tensor), strict=True):
        start = int((before[0, 0] == after[0, 0, 0]).nonzero())
        assert torch.equal(after, before[:, :, start : start + seen])  # channels and rows together


def test_a_mask_hides_one_band_of_rows_and_one_of_columns():
    torch.manual_seed(0)
    ones = TensorSpectrogram(torch.ones(200, 2, 30, 40))
    masked = MaskBands(0.2)(ones, split_idx=0).as_subclass(Tensor)
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masked[:, 0], masked[:, 1])  # the channels show the same sound
    widths = []
    for channel in masked[:, 0]:
        for dimension, size in ((1, 30), (0, 40)):
            hidden = (channel == 0).all(dim=dimension).nonzero().flatten()
            assert len(hidden) <= 0.2 * size + 1
            assert (hidden.diff() == 1).all()  # one band
            widths.append(len(hidden))
        rows, columns = (channel == 0).all(dim=1), (channel == 0).all(dim=0)
        assert torch.equal(channel == 0, rows[:, None] | columns[None, :])
    assert max(widths) > 4 and min(widths) == 0


def test_gain_changes_the_level_of_training_waveforms_alone():
    quiet = torch.full((64, 1, 1, 9), 0.1)
    louder = ChangeGain(6.0)(TensorSpectrogram(quiet), split_idx=0).as_subclass(Tensor)
    ratios = 20 * torch.log10(louder / quiet)[:, 0, 0]
    assert (ratios.amax(1) - ratios.amin(1)).max() < 1e-4  # a clip as a whole
    assert ratios.abs().max() <= 6 + 1e-4
    assert ratios.min() < -4 < 4 < ratios.max()


# --- drawing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", KINDS)
def test_show_batch_draws_labels_hertz_and_seconds(table, store, profile, variant):
    names = {"clicks": "$5_$", "sweep": "Ba$$in", "tone": "$\\x$"}  # and no formulas
    table["label"] = table["label"].map(names)
    dls = make_dataloaders(table, store, variant, 0, profile)
    dls.show_batch(max_n=4)
    plt.gcf().canvas.draw()
    drawn = [ax for ax in plt.gcf().axes if ax.get_title()]
    assert len(drawn) == 4
    assert {ax.get_title() for ax in drawn} <= set(names.values())
    assert {ax.get_xlabel() for ax in drawn} == {"time (s)"}
    same_axis = variant != "3ch_linear_mel_log"
    unit = "frequency (Hz)" if same_axis else "frequency (axes differ)"
    assert {ax.get_ylabel() for ax in drawn} == {unit}


def test_a_crop_is_drawn_with_as_many_seconds_as_it_has(table, store, profile):
    dls = make_dataloaders(table, store, "log_db", 0, replace(profile, crop=0.5))
    batch, _ = dls.train.one_batch()
    loudness = next(step for step in dls.train.after_batch.fs if isinstance(step, Loudness))
    np.testing.assert_array_equal(loudness.decodes(batch).axes.times, store.grid.times[:14])
    dls.show_batch(max_n=2)


# --- errors ------------------------------------------------------------------------------------


def test_what_cannot_be_trained_on_is_named(table, store, profile, grid):
    lacking = pd.concat([table[table["label"] != "tone"], table.query("label=='tone' & fold==1")])
    unreadable = replace(store, failed={"tone-0-0": "not audio"})
    with_it = pd.concat([lacking, table.loc[["tone-0-0"]]])
    only_log = Store(grid, {"log": store.places["log"]})
    for rows, source, variant, fold, message in (
        (table, store, "log_db", 7, r"no clip of fold 7; the folds are: \[0, 1, 2\]"),
        (table[table["fold"] == 0], store, "log_db", 0, "fold 0: no training clip of 'clicks'"),
        (with_it, unreadable, "log_db", 1, "of 'tone'; unreadable: tone-0-0; mend"),
        (table, store, "nonesuch", 0, "unknown representation 'nonesuch'.*: linear_lin"),
        (table, only_log, "mel_db", 0, "'mel'"),
    ):
        with pytest.raises((ValueError, KeyError), match=message):
            make_dataloaders(rows, source, variant, fold, profile)


# --- several windows of a clip -----------------------------------------------------------------


@pytest.fixture(scope="module")
def windowed(_table, grid, tmp_path_factory) -> Store:
    """Four windows of 0.15 s of each clip of 0.4 s."""
    grid = replace(grid, duration=0.15, hop_length=197, windows=4)
    folder = tmp_path_factory.mktemp("windows")
    return stores.build(_table, ["log"], grid, folder, n_jobs=1, progress=False)


def drawn_windows(loader, store: Store) -> list[int]:
    """Return which window of its clip each item of an epoch is, in the order of the clips."""
    positions = loader.get_idxs()
    codes = store.read("log", [loader.dataset.items[position] for position in positions])
    batches = torch.cat(
        [batch.as_subclass(Tensor) for batch, _ in loader.create_batches(positions)]
    )
    found = {}
    for position, windows, drawn in zip(positions, codes, batches.numpy(), strict=False):
        same = (windows == drawn[0]).all(axis=(1, 2))
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


def test_scoring_takes_the_mean_over_all_windows_and_shows_the_middle_one(table, windowed, profile):
    settings = plain(profile)
    learner = make_learner(make_dataloaders(table, windowed, "log_db", 1, settings), settings)
    held_out = learner.dls.valid
    batch, _ = whole_epoch(held_out)
    clip_ids = list(held_out.items)
    expected = expected_of(table, windowed, "log_db", 1, clip_ids)
    torch.testing.assert_close(batch, expected, rtol=1e-4, atol=1e-4)
    network = learner.model.eval()
    with torch.no_grad():
        alone = torch.stack([network(batch[:, i]).softmax(dim=1) for i in range(4)]).numpy()
    read = ReadCodes(windowed, get_variant("log_db"), clip_ids)
    scores, others = predict(learner), predict(learner, read)
    for found in (scores, others):
        np.testing.assert_allclose(found.to_numpy(), alone.mean(axis=0), atol=1e-6)
    assert np.ptp(alone, axis=0).max() > 1e-4  # the windows do differ
    middle = windowed.read("log", clip_ids[:1])[0, 2]
    np.testing.assert_array_equal(learner.dls.valid_ds[0][0][0].numpy(), middle)
    held_out.show_batch(max_n=2)
    learner.dls.train.show_batch(max_n=2)


# --- waveforms ---------------------------------------------------------------------------------


def test_the_waveform_network_sees_the_same_clips_as_the_rest(table, store, profile):
    ours = make_dataloaders(table, store, "waveform", 0, profile)
    theirs = make_dataloaders(table, store, "log_db", 0, profile)
    for own, other in zip(ours.loaders, theirs.loaders, strict=True):
        assert list(own.items) == list(other.items)
        assert [int(c) for _, c in own.dataset] == [int(c) for _, c in other.dataset]
    (scale,) = [step for step in ours.valid.after_batch.fs if isinstance(step, Loudness)]
    for clip_id in ours.valid.items:
        waveform, _ = load_clip(
            table.loc[clip_id, "path"], store.grid.sample_rate, store.grid.duration
        )
        (batch,) = ours.valid.after_batch((ours.valid.read.gather([clip_id]),))
        seen = 2 * scale.decodes(batch)[0, 0, 0].as_subclass(Tensor) - 1
        expected = waveform / np.abs(waveform).max()
        np.testing.assert_allclose(seen, expected, atol=0.023)  # half a step at full scale
