"""LinearReassignment: the transform as a torch module, for clips, batches and long recordings."""

from __future__ import annotations

import inspect

import numpy as np
import scipy.fft
import torch

from . import torch_backend
from .checks import as_float_tensor, check_finite, check_samples
from .pictures import finished, histograms, pictures
from .settings import Settings, whole_number

# A block of a long recording overlaps its neighbours by this many standard deviations of the
# longest window in time, q / fmin samples: exp(-6^2 / 2) = 2e-8 of it reaches further.
MARGIN = 6.0


class LinearReassignment(torch.nn.Module):
    r"""Linear reassignment of waveforms: power on a time-frequency grid, low frequencies first.

    A scan line at f0 filters the signal, whose spectrum is X, with a Gaussian of constant Q,
    :math:`\sigma = f_0 / 2 \pi q`, and with its derivative:

    .. math::
        G(f) = e^{-(f - f_0)^2 / 2 \sigma^2}, \quad
        \xi = F^{-1}[G X], \quad \eta = F^{-1}[-\tfrac{f - f_0}{\sigma} G X], \quad m = \eta / \xi.

    Each point of a line with |m| < 1/2 moves its energy :math:`|\xi|^2` to the time
    :math:`t + \mathrm{Im}(m) / 2 \pi \sigma` and the frequency
    :math:`f_0 - \sigma\,\mathrm{Re}(m)`. A tone collapses to a line, a click to an instant, a
    glide to its track; noise collapses to froth.

    **The fast form** (``exact=False``) approximates, in single precision: few filters are
    transformed, the others are sums of their neighbours, and each takes few points (see `plan`).
    `accuracy` scales how few. Against the exact form, on 13 real and synthetic clips of 2 s at
    22,050 Hz, q = 1, 2, 4, 8 (``benchmarks/hyperresolution/accuracy.json``), cosine similarity of
    the power and correlation of the pictures in dB over an 80 dB range, the lowest of all clips
    and q, and the mean number of points:

    ========  ======  ==============  ===============
    accuracy  cosine  dB correlation  relative points
    ========  ======  ==============  ===============
    0.25      0.995   0.931           0.4
    0.5       0.995   0.959           0.4
    1         0.9993  0.979           1
    2         0.9998  0.989           5
    4         0.9999  0.995           11
    ========  ======  ==============  ===============

    The count threshold is unsure of sparse clicks at q <= 2: in digital silence rounding decides
    how many points there are, and the exact form in single precision is hardly surer.

    **Devices.** The fast form is computed on the CPU wherever the waveform lies, so that its
    numbers are the same everywhere; the exact form runs on CUDA devices too (not on MPS, which has
    no float64).

    **Gradients** do not pass: which bin a point falls into has none.

    Parameters
    ----------
    sample_rate : float
        Samples per second, > 0.
    q, hop_length, bins_per_octave, fmin, fmax, oversampling, exact, reassign, axis, n_bins, \
    count_threshold, consensus, accuracy, smooth
        See `Settings`, whose fields, defaults and errors they are.

    Attributes
    ----------
    frequencies : float64 array, shape (frequency,)
        Centres of the bins in Hz, rising. On the log axis fmax 2^(-i / bins_per_octave).

    References
    ----------
    T. J. Gardner and M. O. Magnasco, "Sparse time-frequency representations", PNAS 103(16),
    6094-6099, 2006, doi 10.1073/pnas.0601707103.

    Examples
    --------
    >>> import torch
    >>> from spectral_hyperresolution import LinearReassignment
    >>> transform = LinearReassignment(sample_rate=8000, q=4, hop_length=80, fmin=100)
    >>> tone = torch.sin(2 * torch.pi * 1000 * torch.arange(4000) / 8000)
    >>> power = transform(tone)
    >>> power.shape
    torch.Size([141, 50])
    >>> loudest = int(power.sum(-1).argmax())
    >>> print(f"{transform.frequencies[loudest]:.0f} Hz")
    1011 Hz
    """

    __signature__ = inspect.signature(Settings)

    def __init__(self, sample_rate: float, *settings, **named) -> None:
        super().__init__()
        self.settings = Settings(sample_rate, *settings, **named)

    def extra_repr(self) -> str:
        """What `print` shows of the module."""
        one = self.settings
        q = list(one.q) if isinstance(one.q, tuple) else one.q
        form = "exact" if one.exact else f"accuracy={one.accuracy:g}"
        form += "" if one.reassign else ", reassign=False"
        return (
            f"sample_rate={one.sample_rate:g}, q={q}, hop_length={one.hop_length}, "
            f"axis={one.axis!r}, {one.n_rows} bins from {one.fmin:g} to {one.fmax:g} Hz, {form}"
        )

    @property
    def frequencies(self) -> np.ndarray:
        """Centres of the frequency bins in Hz, rising, shape (frequency,)."""
        return self.settings.frequencies() * self.settings.sample_rate

    @property
    def frequency_edges(self) -> np.ndarray:
        """Edges of the frequency bins in Hz, rising, shape (frequency + 1,)."""
        return self.settings.bin_edges() * self.settings.sample_rate

    def times(self, n_samples: int) -> np.ndarray:
        """Centres of the frames in seconds after the first sample, shape (ceil(n / hop_length),).

        Frame j holds the reassigned times from j hop_length to (j + 1) hop_length, where the
        authors, and so this grid, give the first sample the time 1.
        """
        hop, frames = self.settings.hop_length, self.settings.frames
        middle = np.arange(frames(whole_number(n_samples, "n_samples"))) + 0.5
        return (middle * hop - 1) / self.settings.sample_rate

    @torch.no_grad()
    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Power of the reassigned points.

        Parameters
        ----------
        waveform : tensor (or NumPy array), shape (..., time)
            Real floating-point samples, at least 2. The transform treats the clip as periodic, as
            the authors' does: near the edges it sees the other end.

        Returns
        -------
        tensor, shape (..., frequency, time)
            Energy, >= 0, on the waveform's device and in its dtype (float32 for half precision).
            With a sequence of q, shape (..., q, frequency, time); with `consensus`, without q.

        Raises
        ------
        TypeError, ValueError
            If these are no real floating-point samples, too few, not finite, or too large.
        RuntimeError
            Under `torch.jit.trace`.
        """
        if torch.jit.is_tracing():
            raise RuntimeError(
                "LinearReassignment cannot be traced: a trace would give its example's picture "
                "for every input; call the module itself"
            )
        x = as_float_tensor(waveform, "waveform")
        check_samples(x, "waveform")
        if self._belongs_on_the_cpu(x):
            return self.forward(x.cpu()).to(x.device)
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        if x.device.type == "cpu":
            power = torch.from_numpy(pictures(flat.detach().numpy(), self.settings))
        else:
            found = [self._histogram(flat, one) for one in self.settings.each_q()]
            energy, count = (torch.stack(part, dim=1) for part in zip(*found, strict=True))
            least = count.amax((-2, -1), keepdim=True).sqrt() * self.settings.count_threshold
            power = energy.where(count >= least, 0).to(dtype)
        return finished(power.reshape(*x.shape[:-1], *power.shape[1:]), self.settings)

    @torch.no_grad()
    def long_recording(
        self, waveform: np.ndarray | torch.Tensor, block_length: int = 1 << 17
    ) -> torch.Tensor:
        """The picture of a recording of any length, block by block.

        Blocks overlap by six standard deviations of the longest window, 6 q / fmin, and each frame
        comes from one that sees all of its surroundings: there are no seams. (Just below Nyquist,
        where a Gaussian is cut off sharply, its ringing dies away only slowly.) Around the
        recording there is silence, where `forward` sees the other end. The count threshold is that
        of the whole. Memory holds the result, one histogram of counts, and the work of one block.

        Parameters
        ----------
        waveform : array or tensor, shape (time,)
            Real floating-point samples, at least 2. A `numpy.memmap` is read block by block.
        block_length : int
            Samples in a block with its overlaps, raised to four times these where it is less.

        Returns
        -------
        tensor, shape (frequency, time), or (q, frequency, time), as from `forward`

        Raises
        ------
        TypeError, ValueError
            As `forward`.
        """
        if not hasattr(waveform, "ndim") or waveform.ndim != 1:
            raise ValueError(
                "waveform must have shape (time,) here, got "
                f"{getattr(waveform, 'ndim', 'no')} dimensions; take channels one by one"
            )
        if isinstance(waveform, torch.Tensor) and self._belongs_on_the_cpu(waveform):
            return self.long_recording(waveform.cpu(), block_length).to(waveform.device)
        check_samples(as_float_tensor(waveform[:2], "waveform"), "waveform")
        first = as_float_tensor(waveform[:1], "waveform")
        dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        each, hop = self.settings.each_q(), self.settings.hop_length
        slowest = max(one.q / one.low for one in each)
        margin = -(-int(np.ceil(MARGIN * slowest)) // hop)  # in frames, like all below
        block_length = whole_number(block_length, "block_length")
        length = scipy.fft.next_fast_len(max(block_length, 8 * margin * hop, hop))
        core = length // hop - 2 * margin
        n_frames = self.settings.frames(waveform.shape[0])
        shape = (len(each), self.settings.n_rows, n_frames)
        out = torch.zeros(shape, dtype=dtype, device=first.device)
        counts = torch.zeros_like(out[0])
        for one, picture in zip(each, out, strict=True):
            for start in range(0, n_frames, core):
                block = self._block(waveform, (start - margin) * hop, length, dtype)
                energy, count = self._histogram(block[None], one)
                stop = min(start + core, n_frames)
                inner = slice(margin, margin + stop - start)
                picture[:, start:stop] = energy[0, :, inner]
                counts[:, start:stop] = count[0, :, inner]
            if self.settings.count_threshold:
                least = counts.max().sqrt()
                for row, number in zip(picture, counts, strict=True):  # by row: no large mask
                    row[number < least] = 0
        return finished(out, self.settings)

    def _belongs_on_the_cpu(self, x: torch.Tensor) -> bool:
        """Whether a tensor from elsewhere is computed there: MPS has no float64 to add up in."""
        return x.device.type == "mps" or (x.device.type != "cpu" and not self.settings.exact)

    def _block(
        self, waveform: np.ndarray | torch.Tensor, start: int, length: int, dtype: torch.dtype
    ) -> torch.Tensor:
        """Samples start .. start + length - 1, with silence outside the recording."""
        low, high = max(start, 0), min(start + length, waveform.shape[0])
        part = as_float_tensor(waveform[low:high], "waveform")
        check_finite(part, "waveform")
        block = torch.zeros(length, dtype=dtype, device=part.device)
        block[low - start : high - start] = part
        return block

    def _histogram(self, x: torch.Tensor, one: Settings) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy and count of one q, each (batch, frequency, time), of signals (batch, N)."""
        if x.device.type != "cpu":
            return torch_backend.exact_histograms(x, one)
        ((energy, count),) = histograms(x.detach().numpy(), [one])
        return torch.from_numpy(energy), torch.from_numpy(count)
