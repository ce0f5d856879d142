"""A clip -> a few hundred numbers: how librosa's features are distributed over its time.

What a classifier without a network works on, and what the stack of notebook 12 adds to networks
(Xu and others 2018, arXiv 1810.12832).
"""

from collections.abc import Callable

import joblib
import librosa
import numpy as np
import pandas as pd
from scipy import stats

from freesound_tagging.features.grid import Grid
from freesound_tagging.sounds.clips import ClipError, ClipSettings, load_windows

N_FFT = 2048
HOP_LENGTH = 512

STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda values: values.mean(axis=1),
    "deviation": lambda values: values.std(axis=1),
    "skewness": lambda values: _moment(stats.skew, values),
    "kurtosis": lambda values: _moment(stats.kurtosis, values),
    "min": lambda values: values.min(axis=1),
    "max": lambda values: values.max(axis=1),
}
"""Of values (rows, time), over time."""


def _moment(moment: Callable, values: np.ndarray) -> np.ndarray:
    """Return a standardised moment of each row, 0 where the row does not vary."""
    varies = values.std(axis=1) > 1e-6 * np.abs(values).max(axis=1) + 1e-12
    found = np.zeros(len(values))
    if varies.any():
        found[varies] = moment(values[varies].astype(float), axis=1)
    return found


def frame_features(waveform: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
    """Return librosa's features of each frame, name -> (rows, frames); waveform (time,)."""
    magnitude = np.abs(librosa.stft(waveform, n_fft=N_FFT, hop_length=HOP_LENGTH))
    decibels = librosa.power_to_db(librosa.feature.melspectrogram(S=magnitude**2, sr=sample_rate))
    feature, common = librosa.feature, {"S": magnitude, "sr": sample_rate}
    return {
        "centroid": feature.spectral_centroid(**common),
        "bandwidth": feature.spectral_bandwidth(**common),
        "rolloff": feature.spectral_rolloff(**common),
        "flatness": feature.spectral_flatness(S=magnitude),
        "contrast": feature.spectral_contrast(**common),
        "mfcc": feature.mfcc(S=decibels, n_mfcc=20),
        "chroma": feature.chroma_stft(S=magnitude**2, sr=sample_rate, tuning=0.0),
        "zero_crossings": feature.zero_crossing_rate(waveform, hop_length=HOP_LENGTH),
        "rms": feature.rms(y=waveform, frame_length=N_FFT, hop_length=HOP_LENGTH),
        "onset_strength": librosa.onset.onset_strength(S=decibels, sr=sample_rate)[None],
    }


def clip_statistics(waveform: np.ndarray, sample_rate: int) -> pd.Series:
    """Return the statistics over time of every feature of a clip.

    Parameters
    ----------
    waveform : shape (time,), or (windows, time): frames of all windows count alike.
    sample_rate : in Hz.

    Returns
    -------
    Finite numbers; names such as ``mfcc_3 skewness``.
    """
    windows = [frame_features(window, sample_rate) for window in np.atleast_2d(waveform)]
    numbers = {}
    for feature in windows[0]:
        values = np.concatenate([window[feature] for window in windows], axis=1)
        rows = [feature] if len(values) == 1 else [f"{feature}_{row}" for row in range(len(values))]
        for statistic, measure in STATISTICS.items():
            named = (f"{row} {statistic}" for row in rows)
            numbers |= dict(zip(named, measure(values).astype(float), strict=True))
    return pd.Series(numbers)


def table_statistics(table: pd.DataFrame, grid: Grid, n_jobs: int | None = None) -> pd.DataFrame:
    """Return the statistics of every clip that can be read, cut as the networks see it.

    Parameters
    ----------
    table : clips, index ``clip_id``, column ``path``.
    grid : its sample rate, duration and windows say how a clip is cut.
    n_jobs : worker processes, by default one a core.

    Returns
    -------
    One row a clip, index ``clip_id``.
    """
    paths = table["path"].sort_index()
    rows = joblib.Parallel(n_jobs=n_jobs or joblib.cpu_count())(
        joblib.delayed(_statistics_of_file)(path, grid) for path in paths
    )
    found = {clip: row for clip, row in zip(paths.index, rows, strict=True) if row is not None}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("clip_id")


def _statistics_of_file(path: str, grid: Grid) -> pd.Series | None:
    try:
        waveforms, _ = load_windows(
            path, ClipSettings(grid.sample_rate, grid.duration), grid.windows
        )
    except ClipError:
        return None  # the store reports it
    return clip_statistics(waveforms, grid.sample_rate)
