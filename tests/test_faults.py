"""The ten faults of the reference experiment, one test each: every one fails if its fault returns.

Other files test the same parts more closely; here the fault itself is set up.
"""

import ast
import re
import warnings
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import torch

import freesound_tagging
import spectral_hyperresolution
from freesound_tagging import run as run_module
from freesound_tagging.experiment import open_experiment
from freesound_tagging.features import store as stores
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import (
    CHANNELS,
    VARIANTS,
    channels_of,
    compute_channels,
    get_variant,
)
from freesound_tagging.features.spectrograms import (
    axis_frequencies,
    decoding_table,
    encode,
    filterbank,
)
from freesound_tagging.learning import learner as training
from freesound_tagging.learning.dataloaders import ReadCodes, make_dataloaders
from freesound_tagging.learning.profiles import PROFILES
from freesound_tagging.run_grid import RESULT_COLUMNS, load_scores, run_grid
from freesound_tagging.scoring.metrics import map_at_k, summarise
from freesound_tagging.scoring.statistics import paired_tests
from freesound_tagging.sounds import catalogue
from freesound_tagging.sounds.clips import load_clip
from spectral_hyperresolution import LinearReassignment, high_resolution_spectrogram

PACKAGE = Path(freesound_tagging.__file__).parent
COARSE = PROFILES["cpu"].grid


def run(table, store, variants, profile, folder) -> pd.DataFrame:
    return run_grid(
        table,
        store,
        variants,
        profile,
        folder,
        dataset="tiny",
        profile_name="smoke",
        n_jobs=1,
        progress=False,
    )


def test_fault_01_fold_indices_in_csv_order_applied_to_files_in_directory_order(
    table, grid, profile, tmp_path
):
    # A table whose rows stand in the reverse of the directory's order, with the fold in the name.
    rows = []
    for i, clip in enumerate(table.itertuples()):
        name = f"{i:02d}-fold{clip.fold}-{clip.label}.wav"
        (tmp_path / name).write_bytes(Path(clip.path).read_bytes())
        rows.append((name, clip.label, clip.fold))
    rows = pd.DataFrame(rows[::-1], columns=["file", "label", "fold"])
    rows.to_csv(tmp_path / "mine.csv", index=False)
    loaded = catalogue.load(tmp_path / "mine.csv")
    assert len(loaded) == len(table)
    for clip in loaded.itertuples():
        assert f"-fold{clip.fold}-{clip.label}.wav" in clip.path
    pictures = stores.build(loaded, ["log"], grid, tmp_path / "store", n_jobs=1, progress=False)
    dls = make_dataloaders(loaded.sample(frac=1, random_state=0), pictures, "log_db", 1, profile)
    assert all("-fold1-" in loaded.loc[clip_id, "path"] for clip_id in dls.valid_ds.items)
    assert not any("-fold1-" in loaded.loc[clip_id, "path"] for clip_id in dls.train_ds.items)
    for i, clip_id in enumerate(dls.valid_ds.items):
        np.testing.assert_array_equal(
            dls.valid_ds[i][0][0].numpy(), pictures.read("log", [clip_id])[0]
        )


def test_fault_02_three_directory_listings_zipped_without_checking_names(table, grid, tmp_path):
    # One clip lacks its sound, and each channel was built from another order of the table and at
    # another time: listings of the channels' folders do not agree, the planes of a clip must.
    table = table.copy()
    gone = table.index[4]
    table.loc[gone, "path"] = str(tmp_path / "gone.wav")
    folder = tmp_path / "store"
    names = ["hires_q1", "hires_q8", "log"]
    for i, name in enumerate(names):
        rows = table.sample(frac=1, random_state=i)
        stores.build(rows, [name], grid, folder, n_jobs=1, progress=False)
    store = stores.build(table, names[::-1], grid, folder, n_jobs=1, progress=False)
    clip_ids = [clip_id for clip_id in table.index if clip_id != gone]
    read = ReadCodes(store, get_variant("3ch_hires_q1_q8_log_db"), clip_ids)
    for clip_id in clip_ids[::4]:
        waveform, _ = load_clip(table.loc[clip_id, "path"])
        own = compute_channels(torch.from_numpy(waveform), names, grid)
        for plane, name in enumerate(names):
            assert torch.equal(read(clip_id)[plane].as_subclass(torch.Tensor), encode(own[name]))
    with pytest.raises(KeyError, match=gone):
        ReadCodes(store, get_variant("3ch_hires_q1_q8_log_db"), [*clip_ids, gone])


def test_fault_03_q_2_in_place_of_4_in_the_pictures_of_q_1_4_8(table, store, grid):
    variant = get_variant("3ch_hires_q1_q4_q8")
    assert [CHANNELS[channel].q for channel in variant.channels] == [1, 4, 8]
    for q in (1, 2, 4, 8):
        assert CHANNELS[f"hires_q{q}"].q == q
        assert VARIANTS[f"hires_q{q}"].channels == (f"hires_q{q}",)
    clip_id = table.index[0]
    waveform, _ = load_clip(table.loc[clip_id, "path"])
    codes = ReadCodes(store, variant, list(table.index))(clip_id).as_subclass(torch.Tensor)
    for plane, q in enumerate((1, 4, 8)):
        transform = LinearReassignment(
            grid.sample_rate,
            q=q,
            hop_length=grid.hop_length,
            bins_per_octave=grid.bins_per_octave,
            fmin=grid.fmin,
            fmax=grid.fmax,
            oversampling=grid.oversampling,
        )
        expected = encode(transform(torch.from_numpy(waveform)).sqrt())
        assert (codes[plane].int() - expected.int()).abs().max() <= 1
        q2 = torch.from_numpy(store.read("hires_q2", [clip_id])[0])
        assert not torch.equal(codes[plane], q2)


def test_fault_04_targets_taken_from_another_run(table, store, profile, tmp_path):
    # Run, then change the labels: the second run must bring its own targets, clip by clip.
    one_fold = replace(profile, folds=1)
    run(table, store, ["log_db"], one_fold, tmp_path)
    names = dict(zip(("clicks", "sweep", "tone"), ("sweep", "tone", "clicks"), strict=True))
    renamed = table.assign(label=table["label"].map(names)).sample(frac=1, random_state=8)
    results = run(renamed, store, ["log_db"], one_fold, tmp_path)
    scores = load_scores(tmp_path, results)["log_db"]
    assert scores["label"].tolist() == renamed.loc[scores["clip_id"], "label"].tolist()
    targets = scores["label"].map({"clicks": 0, "sweep": 1, "tone": 2}).to_numpy()
    expected = map_at_k(scores[["clicks", "sweep", "tone"]].to_numpy(), targets)
    assert results.loc[0, "map3"] == pytest.approx(expected, abs=1e-6)


def test_fault_05_axes_drawn_instead_of_computed():
    # Each axis has a filterbank of its own, without an empty band, and the mel one is a mel one.
    banks = {
        axis: filterbank(axis_frequencies(axis, COARSE), 2048, COARSE.sample_rate)
        for axis in ("linear", "log", "mel")
    }
    for bank in banks.values():
        assert (bank.max(axis=1) > 0).all()
        np.testing.assert_allclose(bank.sum(axis=1), 1, atol=1e-5)
    theirs = librosa.filters.mel(
        sr=COARSE.sample_rate,
        n_fft=2048,
        n_mels=COARSE.n_bins - 2,
        fmin=COARSE.fmin,
        fmax=COARSE.fmax,
        norm=None,
    )
    widths = (banks["mel"] > 0).sum(axis=1)
    assert widths[-1] > 3 * widths[10]  # bands widen with frequency, as hearing does
    difference = banks["mel"][1:-1].argmax(axis=1) - theirs.argmax(axis=1)
    assert np.abs(difference[theirs.any(axis=1)]).max() <= 1
    # The numbers of the three axes differ, not only the labels: one tone, three rows.
    t = np.arange(COARSE.n_samples) / COARSE.sample_rate
    tone = torch.from_numpy(np.sin(2 * np.pi * 2000 * t).astype(np.float32))
    rows = {}
    for name in ("linear", "log", "mel"):
        magnitude = compute_channels(tone, [name], COARSE)[name]
        rows[name] = int(magnitude[:, 30:-30].mean(dim=1).argmax())
        nearest = np.abs(axis_frequencies(name, COARSE) - 2000).argmin()
        assert abs(rows[name] - nearest) <= 1
    assert len(set(rows.values())) == 3


def test_fault_06_families_that_differ_in_hop_colours_and_resampling(table, store):
    # Same columns: a click stands at the same time in every channel of both families.
    click = torch.zeros(COARSE.n_samples)
    click[24_321] = 1.0
    columns = {
        name: int(magnitude[COARSE.n_bins // 2 :].pow(2).sum(dim=0).argmax())
        for name, magnitude in compute_channels(click, channels_of(VARIANTS), COARSE).items()
    }
    assert max(columns.values()) - min(columns.values()) <= 1, columns
    # Same rows: a tone stands at the same height in all that share the log axis.
    t = np.arange(COARSE.n_samples) / COARSE.sample_rate
    tone = torch.from_numpy(np.sin(2 * np.pi * 3000 * t).astype(np.float32))
    names = [name for name in channels_of(VARIANTS) if CHANNELS[name].axis == "log"]
    rows = {
        name: int(magnitude[:, 30:-30].sum(dim=1).argmax())
        for name, magnitude in compute_channels(tone, names, COARSE).items()
    }
    assert max(rows.values()) - min(rows.values()) <= 1, rows
    # Same numbers: one code for the same magnitude in either family, and on either loudness.
    magnitude = 10 ** (-4 * torch.rand(COARSE.n_bins, COARSE.n_frames))
    magnitude[0, 0] = 1.0
    codes = encode(magnitude)
    levels = {scale: decoding_table(scale)[codes.long()] for scale in ("db", "linear")}
    torch.testing.assert_close(
        10 ** ((levels["db"] - 1) * 4), levels["linear"], rtol=1e-4, atol=1.01e-4
    )
    assert VARIANTS["log_db"].channels == VARIANTS["log_linear"].channels
    # Same hop and same picture for every variant: the grid is the profile's, not the variant's.
    assert Grid().hop_length == 197
    shapes = {
        tuple(ReadCodes(store, variant, list(table.index))(table.index[0]).shape[1:])
        for variant in VARIANTS.values()
    }
    assert shapes == {(store.grid.n_bins, store.grid.n_frames)}
    # No plotting library between the numbers and the network.
    numbers = [file for file in PACKAGE.glob("features/*.py") if file.stem != "plots"]
    assert len(numbers) > 3
    for file in [PACKAGE / "sounds/clips.py", *numbers, PACKAGE / "learning/networks.py"]:
        imported = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        assert not [name for name in imported if re.search(r"matplotlib|PIL|pyplot|plots", name)]


def test_fault_07_one_run_of_each_cell_and_no_control(table, store, profile, tmp_path):
    # Several seeds: every cell is run for each, and the figures carry an interval over recordings.
    variants = ["log_db", "3ch_log_db_windows"]
    results = run(table, store, variants, replace(profile, folds=2, seeds=(0, 1)), tmp_path)
    assert results.groupby(["variant", "fold"])["seed"].apply(list).tolist() == [[0, 1]] * 4
    scores = load_scores(tmp_path, results)
    for frame in scores.values():
        first, second = (one.set_index("clip_id")["tone"] for _, one in frame.groupby("seed"))
        assert not np.allclose(first, second.loc[first.index])
    summary = summarise(scores, table)
    assert summary["seeds"].tolist() == [2, 2]
    assert (summary["top3_error_low"] < summary["top3_error_high"]).all()
    (pair,) = paired_tests(scores, table, ["log_db"], ["top1_accuracy"]).itertuples()
    assert pair.low < pair.high
    # The control has three resolutions of the standard picture, as the mix that it controls for.
    control = [CHANNELS[channel] for channel in VARIANTS["3ch_log_db_windows"].channels]
    assert [channel.n_fft for channel in control] == [512, 2048, 4096]
    assert {channel.axis for channel in control} == {"log"}


def test_fault_08_a_maximum_rate_that_diverges(table, store, profile, tmp_path, monkeypatch):
    for name, settings in PROFILES.items():
        assert settings.lr_max <= 1e-2, name
        assert settings.frozen_lr <= 1e-2, name
    assert PROFILES["gpu"].lr_max <= 6e-3  # a tenth of the rate that was unstable with this network
    # Where a run diverges all the same, it says so and is not taken for a result.
    original = training.make_learner

    def explode(dls, profile):
        learner = original(dls, profile)
        with torch.no_grad():
            next(learner.model[2].parameters()).fill_(torch.nan)
        return learner

    monkeypatch.setattr(run_module, "make_learner", explode)
    with pytest.raises(ValueError, match="log_db, fold 0, seed 0: training diverged"):
        run(table, store, ["log_db"], replace(profile, folds=1), tmp_path)
    assert not list((tmp_path / "runs").rglob("*.csv"))


def test_fault_09_map3_never_reported(table, store, profile, tmp_path, monkeypatch):
    # MAP@3 stands in every result, of every clip, from one network that never saw the clip.
    results = run(table, store, ["log_db"], profile, tmp_path)
    scores = load_scores(tmp_path, results)["log_db"]
    assert "map3" in RESULT_COLUMNS
    assert sorted(scores["clip_id"]) == sorted(table.index)
    summary = summarise({"log_db": scores}, table)
    inverse = []
    for row in scores.itertuples():
        ranked = sorted(("clicks", "sweep", "tone"), key=lambda c: getattr(row, c), reverse=True)
        inverse.append(1 / (1 + ranked.index(row.label)))
    assert summary.loc[0, "map3"] == pytest.approx(np.mean(inverse))
    assert np.average(results["map3"], weights=results["n"]) == pytest.approx(
        np.mean(inverse), abs=1e-6
    )
    # Clips set apart for testing are known as such, and no run of the folds takes them in.
    mixed = table.copy()
    mixed.iloc[:4, mixed.columns.get_loc("split")] = "test"
    mixed.iloc[:4, mixed.columns.get_loc("fold")] = -1
    monkeypatch.setattr(catalogue, "load", lambda *arguments, **options: mixed)
    used = open_experiment("esc10", "cpu").load_table()
    assert sorted(used.index) == sorted(mixed.index[4:])


def test_fault_10_a_high_resolution_package_that_no_longer_runs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = high_resolution_spectrogram(
            torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)),
            q=2.0,
            tdeci=100,
            over=4,
            noct=12,
            minf=4e-3,
            maxf=0.45,
        )
    rows = int(np.ceil(12 * np.log2(0.45 / 4e-3) + 1))
    assert tuple(picture.shape) == (40, rows)
    assert np.isfinite(np.asarray(picture)).all()
    assert np.asarray(picture).any()
    # What went away: torch.rfft and its kin called as functions of torch, NumPy's aliases of types.
    gone = re.compile(r"\b(torch\.(rfft|irfft|ifft|fft)\(|np\.(int|float|bool|complex|object)\b)")
    for folder in (PACKAGE, Path(spectral_hyperresolution.__file__).parent):
        for file in folder.rglob("*.py"):
            assert not gone.search(file.read_text()), file.name
