"""The drop-in function: signature and output of the published package, from the formulas anew."""

from __future__ import annotations

import numpy as np
import torch

from . import exact, torch_backend
from .checks import as_float_tensor, check_samples
from .settings import Settings, called, whole_number


def high_resolution_spectrogram(
    x: np.ndarray | torch.Tensor,
    q: float,
    tdeci: int,
    over: int,
    noct: float,
    minf: float,
    maxf: float,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    chunks: int | None = None,
) -> torch.Tensor:
    """Linear reassignment of a whole signal, exactly as the method's authors compute it.

    The equations are those of `LinearReassignment`, in its exact form. Bins that receive fewer
    points than the square root of the largest number are set to zero.

    Parameters
    ----------
    x : array or tensor, shape (N,), (N, 1) or (N, C)
        Real floating-point signal, N >= 2. Channels add into the same picture.
    q : float
        Quality factor, > 0: small resolves time, large resolves frequency. 0.5 to 1 suits clicks,
        2 to 8 suits tones.
    tdeci : int
        Samples per frame, >= 1.
    over : int
        Scan lines per frequency bin, >= 1.
    noct : float
        Frequency bins per octave, > 0.
    minf, maxf : float
        Frequency range in cycles per sample, 0 < minf < maxf <= 0.5.
    device : torch.device or str, optional
        Where to compute; by default where `x` is.
    dtype : torch.dtype
        torch.float32 or torch.float64: precision of the transforms and of the result.
    chunks : int, optional
        Number of parts, >= 1, that the scan lines are cut into on a device other than the CPU: more
        parts, less memory. By default as few as fit some 2 GB each.

    Returns
    -------
    torch.Tensor, shape (HT, HF), dtype `dtype`, on `device`
        Energy, >= 0: HT = ceil(N / tdeci) frames, HF = ceil(noct log2(maxf / minf) + 1) bins. Row j
        holds the reassigned times tdeci j <= t < tdeci (j + 1), with samples counted from 1; column
        i is centred on the frequency maxf 2^(-i / noct), so the first column is the highest.

    Raises
    ------
    TypeError, ValueError
        Naming the argument and its legal range.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_hyperresolution import high_resolution_spectrogram
    >>> x = np.sin(2 * np.pi * 0.1 * np.arange(2000))
    >>> picture = high_resolution_spectrogram(x, 2, 200, 4, 12, 0.01, 0.5)
    >>> picture.shape
    torch.Size([10, 69])
    >>> int(picture.sum(0).argmax())  # 12 log2(0.5 / 0.1) = 27.9
    28
    """
    x = as_float_tensor(x, "x")
    if x.ndim not in (1, 2):
        raise ValueError(f"x must have shape (N,) or (N, C), got {x.ndim} dimensions")
    channels = x[None] if x.ndim == 1 else x.T
    if channels.shape[0] == 0:
        raise ValueError("x must have at least one channel, got shape (N, 0)")
    check_samples(channels, "x")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    with called(
        hop_length="tdeci",
        oversampling="over",
        bins_per_octave="noct",
        fmin="minf",
        fmax="maxf",
        Hz="cycles per sample",
    ):
        settings = Settings(1.0, q, tdeci, noct, minf, maxf, over)
    device = x.device if device is None else torch.device(device)
    if chunks is not None:
        chunks = whole_number(chunks, "chunks")
    # MPS has no float64, in which points are added up.
    working = torch.device("cpu") if device.type == "mps" else device
    channels = channels.to(working, dtype)
    if working.type == "cpu":
        found = exact.histograms_of_batch(channels.detach().numpy(), settings)
        energy, count = map(torch.from_numpy, found)
    else:
        energy, count = torch_backend.exact_histograms(channels, settings, chunks)
    energy, count = energy.sum(0), count.sum(0)
    energy = torch.where(count < count.max().sqrt(), 0, energy)
    return energy.flip(0).T.to(device, dtype).contiguous()


# The published package spelled it so in two of its modules.
high_resolution_spectogram = high_resolution_spectrogram
