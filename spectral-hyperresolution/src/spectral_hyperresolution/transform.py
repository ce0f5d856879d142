"""LinearReassignment: the transform as a torch module, for clips, batches and long recordings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch

from . import analysis, torch_backend
from .checks import as_float_tensor, check_finite, check_samples
from .consensus import consensus_picture, smoothed
from .grid import whole_number

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

    **The fast form** (``exact=False``) approximates, in single precision. Each Gaussian is cut at 6
    sigma, so that an inverse transform needs only as many points as the band is wide, each
    standing for several samples; only scan lines 0.7 sigma apart, and f0 / 24 at the most, are
    transformed, and those between are weighted sums of their neighbours; lines closer than 0.07
    sigma are thinned out, to five a bin at the least. Where |m| = 1/2 lies among the samples and
    lines that a point stands for, it counts for a share of them; where a window lasts less than
    seven samples, the points are the samples. `accuracy` scales all of these, and counts three
    times below q = 1.
    Measured against the exact form on real and synthetic 2 s clips at 22,050 Hz with the default
    settings, q = 1, 2, 4, 8 (``benchmarks/hyperresolution/accuracy.json``), cosine similarity of
    the power and correlation of the pictures in dB over an 80 dB range, the lowest of all clips
    and q:

    ========  ======  ==============  ===============
    accuracy  cosine  dB correlation  relative points
    ========  ======  ==============  ===============
    0.25      0.996   0.92            0.4
    0.5       0.997   0.97            0.6
    1         0.999   0.981           1
    2         0.9999  0.992           3.1
    4         0.9999  0.997           6.6
    ========  ======  ==============  ===============

    On clicks, staircases, noise and glides drawn at random the cosine is at least 0.999 for every q
    from 0.25 to 16 (``benchmarks/hyperresolution/clicks.json``). The count threshold is unsure of
    sparse clicks at q <= 2, down to 0.54: in digital silence rounding decides how many points there
    are, and the exact form in single precision is hardly surer.

    **Gradients** do not pass: which bin a point falls into has none.

    Parameters
    ----------
    sample_rate : float
        Samples per second, > 0.
    q : float or sequence of float
        Quality factor, > 0. Small resolves time (0.5 to 1: clicks), large frequency (2 to 8:
        tones). Several q share the transform of the signal and one grid.
    hop_length : int
        Samples per frame, >= 1.
    bins_per_octave : float
        Bins per octave of the log axis, > 0; with `oversampling` it also spaces the scan lines.
    fmin, fmax : float
        Frequency range in Hz, 0 < fmin < fmax <= sample_rate / 2, the default of `fmax`.
    oversampling : int
        Scan lines for each log-axis bin, >= 1.
    exact : bool
        Every scan line at every sample, in the precision of the waveform, as the authors' MATLAB
        computes it.
    reassign : bool
        False: count each point where its filter stands, at time n and frequency f0, instead of
        where it is reassigned to. That is a constant-Q Gabor spectrogram: the same Gaussians on the
        same grid, every point with fmin <= f0 < fmax followed, and no count threshold. What it
        lacks of the reassigned picture is what reassignment does.
    axis : {"log", "mel", "linear"}
        Frequency axis that the points are binned on. "mel" has equal steps of
        log(1 + f / 700 Hz).
    n_bins : int, optional
        Number of bins of a mel or linear axis, >= 1; the log axis has
        ceil(bins_per_octave log2(fmax / fmin) + 1).
    count_threshold : bool
        Set bins to zero that receive fewer points than the square root of the largest number in
        the picture, as the authors do: it takes away the faintest froth.
    consensus : int, optional
        With several q: return one picture, the energy that at least this many of them put into the
        same bin; see `consensus_picture`.
    accuracy : float
        Of the fast form, 0.25 to 8: more points and closer lines. The time is nearly proportional.
    smooth : int
        Passes, >= 0, in which the power of each cell is shared with its neighbours: weights 1 2 1
        by 1 2 1 over 3 x 3 cells. Reassigned noise is a froth of full and empty cells, which
        decibels turn into cliffs.

    Attributes
    ----------
    frequencies : float64 array, shape (frequency,)
        Centres of the bins in Hz, rising. On the log axis fmax 2^(-i / bins_per_octave).

    Raises
    ------
    ValueError
        Naming the argument and its legal range.

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

    def __init__(
        self,
        sample_rate: float,
        q: float | Sequence[float] = 2.0,
        hop_length: int = 197,
        bins_per_octave: float = 26.2,
        fmin: float = 30.9,
        fmax: float | None = None,
        oversampling: int = 10,
        exact: bool = False,
        reassign: bool = True,
        axis: str = "log",
        n_bins: int | None = None,
        count_threshold: bool = True,
        consensus: int | None = None,
        accuracy: float = 1.0,
        smooth: int = 0,
    ) -> None:
        super().__init__()
        self.analysis = analysis.make_analysis(
            sample_rate,
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
        )
        self.sample_rate = self.analysis.settings[0].sample_rate
        self.q, self.several_q = self.analysis.q, self.analysis.several_q
        self.settings = list(self.analysis.settings)
        self.hop_length, self.reassign = self.settings[0].hop, self.settings[0].reassign
        self.exact, self.accuracy = self.analysis.exact, self.analysis.accuracy
        self.count_threshold = self.analysis.count_threshold
        self.consensus = self.analysis.consensus

    def extra_repr(self) -> str:
        """What `print` shows of the module."""
        one = self.settings[0]
        q = list(self.q) if self.several_q else self.q[0]
        form = "exact" if self.exact else f"accuracy={self.accuracy:g}"
        form += "" if self.reassign else ", reassign=False"
        return (
            f"sample_rate={self.sample_rate:g}, q={q}, hop_length={self.hop_length}, "
            f"axis={one.axis!r}, {one.n_bins} bins from {one.fmin * self.sample_rate:g} to "
            f"{one.fmax * self.sample_rate:g} Hz, {form}"
        )

    @property
    def frequencies(self) -> np.ndarray:
        """Centres of the frequency bins in Hz, rising, shape (frequency,)."""
        return self.settings[0].frequencies() * self.sample_rate

    @property
    def frequency_edges(self) -> np.ndarray:
        """Edges of the frequency bins in Hz, rising, shape (frequency + 1,)."""
        return self.settings[0].bin_edges() * self.sample_rate

    def times(self, n_samples: int) -> np.ndarray:
        """Centres of the frames in seconds after the first sample, shape (ceil(n / hop_length),).

        Frame j holds the reassigned times from j hop_length to (j + 1) hop_length, where the
        authors, and so this grid, give the first sample the time 1.
        """
        frames = self.settings[0].frames(whole_number(n_samples, "n_samples"))
        return ((np.arange(frames) + 0.5) * self.hop_length - 1) / self.sample_rate

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
            For a waveform on MPS, which has no float64, the work is done on the CPU.
            With a sequence of q, shape (..., q, frequency, time); with `consensus`, without q.

        Raises
        ------
        TypeError
            If the waveform is no tensor or array of real floating-point samples.
        ValueError
            If it is shorter than two samples, not finite, or too large for its power to be.
        RuntimeError
            Under `torch.jit.trace`.

        Warns
        -----
        UserWarning
            If the last axis is so much shorter than the one before that it is hardly time.
        """
        if torch.jit.is_tracing():
            raise RuntimeError(
                "LinearReassignment cannot be traced: a trace would give its example's picture "
                "for every input; call the module itself"
            )
        x = as_float_tensor(waveform, "waveform")
        check_samples(x, "waveform")
        if x.device.type == "mps":  # it has no float64, in which points are added up
            return self.forward(x.cpu()).to(x.device)
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        frames = self.settings[0].frames(x.shape[-1])
        if len(flat) == 0:
            shape = (0, len(self.q), self.settings[0].n_bins, frames)
            pictures = flat.new_zeros(shape)
        else:
            pictures = self._pictures(self._histograms(flat), dtype)
        return self._arranged(pictures, x.shape[:-1])

    @torch.no_grad()
    def long_recording(
        self, waveform: np.ndarray | torch.Tensor, block_length: int = 1 << 17
    ) -> torch.Tensor:
        """The picture of a recording of any length, in memory that its length bounds only mildly.

        The recording is taken in blocks that overlap by six standard deviations of the longest
        window, 6 q / fmin; each frame comes from one block that sees all of its surroundings, so
        there are no seams. (Below Nyquist; at it, where the spectrum ends, a Gaussian is cut off
        sharply and its ringing dies away only slowly.) Before the first sample and after the last
        there is silence, where `forward` sees the other end. The count threshold is that of the
        whole recording. Besides the input, memory holds the result, one histogram of counts, and
        the work of one block: about 1 GB for an hour of float32 samples at 22,050 Hz with one q on
        the default grid.

        Parameters
        ----------
        waveform : array or tensor, shape (time,)
            Real floating-point samples, at least 2. A `numpy.memmap` is read block by block.
        block_length : int
            Samples in a block with its overlaps, raised to four times these where it is less.

        Returns
        -------
        tensor, shape (frequency, time), or (q, frequency, time) as from `forward`; float64 for a
            float64 recording, which takes twice the memory, else float32.

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
        if isinstance(waveform, torch.Tensor) and waveform.device.type == "mps":  # as in forward
            return self.long_recording(waveform.cpu(), block_length).to(waveform.device)
        n_samples = waveform.shape[0]
        check_samples(as_float_tensor(waveform[:2], "waveform"), "waveform")
        block_length = whole_number(block_length, "block_length")
        hop = self.hop_length
        slowest = max(one.q / one.fmin for one in self.settings)
        margin = -(-int(np.ceil(MARGIN * slowest)) // hop)  # in frames, like all below
        length = scipy.fft.next_fast_len(max(block_length, 8 * margin * hop, hop))
        core = length // hop - 2 * margin
        n_frames = self.settings[0].frames(n_samples)
        first = as_float_tensor(waveform[:1], "waveform")
        double = first.dtype == torch.float64
        kind = {"dtype": torch.float64 if double else torch.float32, "device": first.device}
        out = torch.zeros(len(self.q), self.settings[0].n_bins, n_frames, **kind)
        counts = torch.zeros_like(out[0])
        for i in range(len(self.q)):
            for start in range(0, n_frames, core):
                block = self._block(waveform, (start - margin) * hop, length, kind["dtype"])
                ((energy, count),) = self._histograms(block[None], [i])
                stop = min(start + core, n_frames)
                inner = slice(margin, margin + stop - start)
                out[i, :, start:stop] = energy[0, :, inner]
                counts[:, start:stop] = count[0, :, inner]
            if self.count_threshold:
                least = counts.max().sqrt()
                for row, number in zip(out[i], counts, strict=True):  # row by row: no large mask
                    row[number < least] = 0
        return self._arranged(out[None], ())

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

    def _histograms(self, x: torch.Tensor, which: Sequence[int] | None = None) -> list:
        """(energy, count) of the chosen settings, each (batch, frequency, time)."""
        settings = [self.settings[i] for i in (range(len(self.q)) if which is None else which)]
        if x.device.type == "cpu":
            found = analysis.histograms(x.detach().numpy(), self.analysis, settings)
            return [tuple(map(torch.from_numpy, pair)) for pair in found]
        return [torch_backend.exact_histograms(x, one) for one in settings]

    def _pictures(self, histograms: list, dtype: torch.dtype) -> torch.Tensor:
        """Energies without the bins below the count threshold, (batch, q, frequency, time)."""
        if histograms[0][0].device.type == "cpu":  # in NumPy, see `checks.on_cpu`
            kind = np.float64 if dtype == torch.float64 else np.float32
            arrays = [(energy.numpy(), count.numpy()) for energy, count in histograms]
            return torch.from_numpy(analysis.pictures(arrays, self.analysis, kind))
        kept = []
        for energy, count in histograms:
            if self.count_threshold:
                least = count.amax((-2, -1), keepdim=True).sqrt()
                energy = torch.where(count < least, 0, energy)
            kept.append(energy.to(dtype))
        return torch.stack(kept, dim=1)

    def _arranged(self, pictures: torch.Tensor, batch: tuple[int, ...]) -> torch.Tensor:
        """From (flat batch, q, frequency, time) to the shape that `forward` promises."""
        pictures = pictures.reshape(*batch, *pictures.shape[1:])
        if self.consensus is not None:
            pictures = consensus_picture(pictures, self.q, self.consensus)
        elif not self.several_q:
            pictures = pictures.squeeze(-3)
        return smoothed(pictures, self.analysis.smooth)
