"""The transform as a function of NumPy arrays."""

from __future__ import annotations

import numpy as np
import scipy.fft

from .checks import as_float_array, check_samples
from .pictures import finished, pictures
from .settings import Settings, called


def reassigned_spectrogram(
    y: np.ndarray,
    *,
    sr: float = 22050,
    hop_length: int = 512,
    bins_per_octave: float = 24,
    fmin: float = 30.0,
    return_axes: bool = False,
    **settings,
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
    hop_length : int
        Samples per frame, >= 1.
    bins_per_octave : float
        Bins per octave of the log axis, > 0.
    fmin : float
        Lowest frequency in Hz, > 0.
    return_axes : bool
        Also return the frequency of each row and the time of each column.
    **settings
        ``q=2.0`` (0.5 to 1 resolves clicks, 2 to 8 tones; several give several pictures), `fmax`,
        `oversampling`, `exact`, `reassign`, `axis`, `n_bins`, `count_threshold`, `consensus`,
        `accuracy` and `smooth`, as `Settings` describes them.

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

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_hyperresolution import reassigned_spectrogram
    >>> y = np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050)
    >>> power, frequencies, times = reassigned_spectrogram(y, sr=22050, return_axes=True)
    >>> power.shape == (len(frequencies), len(times)) == (206, 44)
    True
    >>> loudest = power.sum(axis=1).argmax()
    >>> print(f"row {loudest}: {frequencies[loudest]:.0f} Hz")
    row 122: 1003 Hz
    """
    with called(sample_rate="sr"):
        settings |= {"hop_length": hop_length, "bins_per_octave": bins_per_octave, "fmin": fmin}
        chosen = Settings(sr, **settings)
    y = as_float_array(y, "y")
    check_samples(y, "y")
    hop, n = chosen.hop_length, y.shape[-1]
    n_frames = 1 + n // hop
    # Frame j of the grid holds the times j hop <= t < (j + 1) hop, the first sample's being 1.
    # This much silence before it puts sample 0 into the middle of frame 1.
    before = hop + hop // 2 - 1
    n_padded = scipy.fft.next_fast_len(max(before + n, (1 + n_frames) * hop))
    dtype = np.float64 if y.dtype == np.float64 else np.float32
    padded = np.zeros((y[..., 0].size, n_padded), dtype=dtype)
    padded[:, before : before + n] = y.reshape(-1, n)
    power = pictures(padded, chosen)[..., 1 : 1 + n_frames]
    power = finished(power.reshape(*y.shape[:-1], *power.shape[1:]), chosen)
    if not return_axes:
        return power
    times = np.arange(n_frames) * hop / chosen.sample_rate
    return power, chosen.frequencies() * chosen.sample_rate, times
