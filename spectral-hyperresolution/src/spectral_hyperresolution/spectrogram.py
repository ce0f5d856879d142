"""The transform as a function of NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft

from .analysis import histograms, make_analysis, pictures
from .checks import as_float_array, check_samples
from .consensus import consensus_picture, smoothed


def reassigned_spectrogram(
    y: np.ndarray,
    *,
    sr: float = 22050,
    q: float | Sequence[float] = 2.0,
    hop_length: int = 512,
    bins_per_octave: float = 24,
    fmin: float = 30.0,
    fmax: float | None = None,
    axis: str = "log",
    n_bins: int | None = None,
    reassign: bool = True,
    oversampling: int = 10,
    exact: bool = False,
    accuracy: float = 1.0,
    count_threshold: bool = True,
    consensus: int | None = None,
    smooth: int = 0,
    return_axes: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Power on a grid of frequencies and times, each point where reassignment moves it.

    The same as `LinearReassignment` on a CPU, whose docstring has the equations and says more about
    the fast form; torch is not needed. Here frame j is centred on sample j hop_length, as librosa's
    are, and silence surrounds the signal.

    Parameters
    ----------
    y : array, shape (..., n)
        Real floating-point samples, n >= 2, time last. Channels are kept.
    sr : float
        Sample rate in Hz, > 0.
    q : float or sequence of float
        Quality factor, > 0: 0.5 to 1 resolves clicks, 2 to 8 resolves tones.
    hop_length : int
        Samples per frame, >= 1.
    bins_per_octave : float
        Bins per octave of the log axis, > 0; with `oversampling` it also spaces the filters.
    fmin, fmax : float
        Frequency range in Hz, 0 < fmin < fmax <= sr / 2, which is the default of `fmax`.
    axis : {"log", "mel", "linear"}
        Frequency axis. "mel" has equal steps of log(1 + f / 700 Hz).
    n_bins : int, optional
        Number of bins of a mel or linear axis, which need it; the log axis has
        ceil(bins_per_octave log2(fmax / fmin) + 1).
    reassign : bool
        False: leave each point where its filter stands, a constant-Q Gabor spectrogram.
    oversampling : int
        Filters for each log-axis bin, >= 1.
    exact : bool
        Every filter at every sample, in the precision of `y`: some 100 times slower.
    accuracy : float
        Of the fast form, 0.25 to 8; the time is nearly proportional.
    count_threshold : bool
        Set bins to zero that receive fewer points than the square root of the largest number.
    consensus : int, optional
        With several q: return one picture, what at least this many of them agree on.
    smooth : int
        Passes, >= 0, that share the power of each cell with its neighbours, weights 1 2 1 by 1 2 1.
    return_axes : bool
        Also return the frequency of each row and the time of each column.

    Returns
    -------
    power : array, shape (..., frequency, time), or (..., q, frequency, time) for a sequence of q
        Energy, >= 0, low frequencies first; float64 for float64 samples, else float32.
    frequencies : float64 array, shape (frequency,)
        Centre of each row in Hz. Only with `return_axes`.
    times : float64 array, shape (time,)
        Centre of each column in seconds. Only with `return_axes`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was given and what is legal.

    Warns
    -----
    UserWarning
        If the last axis is so short that it is hardly time.

    Examples
    --------
    Which row is which frequency:

    >>> import numpy as np
    >>> from spectral_hyperresolution import reassigned_spectrogram
    >>> y = np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050)
    >>> power, frequencies, times = reassigned_spectrogram(y, sr=22050, return_axes=True)
    >>> power.shape == (len(frequencies), len(times)) == (206, 44)
    True
    >>> loudest = power.sum(axis=1).argmax()
    >>> print(f"row {loudest}: {frequencies[loudest]:.0f} Hz")
    row 122: 1003 Hz

    A picture, with librosa and matplotlib::

        import librosa, librosa.display
        level = librosa.power_to_db(power, ref=np.max)
        librosa.display.specshow(level, x_coords=times, y_coords=frequencies,
                                 x_axis="time", y_axis="log")
    """
    analysis = make_analysis(
        sr,
        q,
        hop_length,
        bins_per_octave,
        fmin,
        fmax,
        oversampling,
        exact,
        reassign,
        axis,
        n_bins,
        count_threshold,
        consensus,
        accuracy,
        smooth,
        rate_name="sr",
    )
    y = as_float_array(y, "y")
    check_samples(y, "y")
    one, n = analysis.settings[0], y.shape[-1]
    hop, n_frames = one.hop, 1 + n // one.hop
    # Frame j of the grid holds the times j hop <= t < (j + 1) hop, the first sample's being 1.
    # This much silence before it puts sample 0 into the middle of frame 1.
    before = hop + hop // 2 - 1
    n_padded = scipy.fft.next_fast_len(max(before + n, (1 + n_frames) * hop))
    dtype = np.float64 if y.dtype == np.float64 else np.float32
    padded = np.zeros((y[..., 0].size, n_padded), dtype=dtype)
    padded[:, before : before + n] = y.reshape(-1, n)
    power = np.zeros((0, len(analysis.q), one.n_bins, one.frames(n_padded)), dtype=dtype)
    if len(padded):
        power = pictures(histograms(padded, analysis, analysis.settings), analysis, dtype)
    shape = (*y.shape[:-1], len(analysis.q), one.n_bins, n_frames)
    power = power[..., 1 : 1 + n_frames].reshape(shape)
    if analysis.consensus is not None:
        power = consensus_picture(power, analysis.q, analysis.consensus)
    elif not analysis.several_q:
        power = power[..., 0, :, :]
    power = smoothed(power, analysis.smooth)
    if not return_axes:
        return power
    return power, one.frequencies() * float(sr), np.arange(n_frames) * hop / float(sr)
