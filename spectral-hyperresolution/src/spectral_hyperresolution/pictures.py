"""From waveforms to pictures in NumPy: what the module and the function share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.ndimage

from . import exact, fast
from .settings import Settings, positive_number, whole_number

if TYPE_CHECKING:
    import torch


def histograms(x: np.ndarray, settings: Sequence[Settings]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(energy, count) of each of `settings`, (batch, frequency, time), of signals (batch, N)."""
    if settings[0].exact:
        return [exact.histograms_of_batch(x, one) for one in settings]
    return fast.histograms_of_batch(x, settings)


def pictures(x: np.ndarray, settings: Settings) -> np.ndarray:
    """Power above the count threshold, (batch, q, frequency, time), of signals (batch, N)."""
    each = settings.each_q()
    frames = settings.frames(x.shape[-1])
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    out = np.empty((len(x), len(each), settings.n_rows, frames), dtype=dtype)
    for i, (energy, count) in enumerate(histograms(x, each) if len(x) else ()):
        out[:, i] = energy
        if settings.count_threshold:
            out[:, i][count < np.sqrt(count.max((-2, -1), keepdims=True))] = 0
    return out


def finished(power: np.ndarray | torch.Tensor, settings: Settings) -> np.ndarray | torch.Tensor:
    """From power (..., q, frequency, time) what the caller chose: consensus, one q, smoothing."""
    if settings.consensus is not None:
        power = consensus_picture(power, settings.q, settings.consensus)
    elif not isinstance(settings.q, tuple):
        power = power[..., 0, :, :]
    return smoothed(power, settings.smooth)


def smoothed(power: np.ndarray | torch.Tensor, passes: int = 1) -> np.ndarray | torch.Tensor:
    """Power (..., frequency, time) averaged over 3 x 3 cells, weights 1 2 1 by 1 2 1.

    Beyond the edges there is none, so a cell in a corner keeps 9 of its 16 parts.
    """
    for axis in (-2, -1) * passes:
        half = 0.5 * power.swapaxes(axis, -1)
        out = 1.0 * half
        out[..., 1:] += 0.5 * half[..., :-1]
        out[..., :-1] += 0.5 * half[..., 1:]
        power = out.swapaxes(axis, -1)
    return power


def consensus_picture(
    pictures: np.ndarray | torch.Tensor,
    q: Sequence[float],
    agree: int | None = None,
    radius: int = 0,
) -> np.ndarray | torch.Tensor:
    r"""Energy that at least `agree` of several q put into the same place.

    A tone, a click or a glide is reassigned to the same place by every window that resolves it;
    the froth of noise and the interference of close components move with the window. Gardner &
    Magnasco (2006) call what is stable under a change of time scale a consensus, and keep that.
    They speak of points; here the common grid decides. The energy that a lone tone or click leaves
    is proportional to 1 / q, so with E_q the energy of a bin in the picture of one q,

    .. math::
        C = \overline{1/q} \; \min(\overline{q E_q}, \; \text{the agree-th largest of the } q E_q),

    where the E_q of the second term may come from up to `radius` bins away. What all q see keeps
    its energy, what fewer than `agree` of them see becomes zero, and what they see with different
    strength counts as much as the weakest of those that are needed.

    Parameters
    ----------
    pictures : array or tensor, shape (..., q, frequency, time)
        Energy of each q on one grid, >= 0.
    q : sequence of float
        The q of each picture, > 0.
    agree : int, optional
        How many q must agree, 1 <= agree <= number of q; by default all of them.
    radius : int
        Tolerance in bins of both axes, >= 0.

    Returns
    -------
    array or tensor as given, shape (..., frequency, time)

    Examples
    --------
    >>> import numpy as np
    >>> pictures = np.zeros((2, 5, 5))
    >>> pictures[:, 1, 1] = 1.0  # both q see this one
    >>> pictures[0, 4, 4] = 1.0  # only the first sees this one
    >>> np.argwhere(consensus_picture(pictures, q=[1, 2])).tolist()
    [[1, 1]]
    """
    n_q = len(q)
    if pictures.ndim < 3 or pictures.shape[-3] != n_q or n_q == 0:
        raise ValueError(
            f"pictures must have shape (..., {n_q} q, frequency, time), got {tuple(pictures.shape)}"
        )
    agree = n_q if agree is None else whole_number(agree, "agree")
    if agree > n_q:
        raise ValueError(f"agree must be between 1 and the number of q, {n_q}, got {agree}")
    radius = whole_number(radius, "radius", least=0)
    values = [positive_number(value, "q") for value in q]
    if not isinstance(pictures, np.ndarray):
        import torch

        agreed = consensus_picture(pictures.detach().cpu().numpy(), values, agree, radius)
        return torch.from_numpy(agreed).to(pictures.device)
    scale = np.array(values, dtype=pictures.dtype)
    levelled = near = pictures * scale[:, None, None]
    if radius:
        size = (1,) * (levelled.ndim - 2) + (2 * radius + 1,) * 2
        near = scipy.ndimage.maximum_filter(levelled, size, mode="constant")
    supported = np.sort(near, axis=-3)[..., n_q - agree, :, :]
    return np.minimum(levelled.mean(-3), supported) * (1 / scale).mean()
