"""LinearReassignment: the transform as a torch module, for clips, batches and long recordings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch

from . import analysis as analyses
from . import torch_backend
from .checks import as_float_tensor, check_finite, check_power, check_samples
from .consensus import consensus_picture
from .grid import whole_number

ARGUMENT_NAMES = {"hop": "hop_length", "sample_rate": "sample_rate"}
BACKENDS = ("auto", "compiled", "torch")

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

    **The fast form** (``exact=False``) approximates, in single precision. Each Gaussian is cut at
    5.5 sigma, so that an inverse transform needs only as many points as the band is wide, each
    standing for the samples around it; only scan lines 0.54 sigma apart (0.27 below q = 2) are
    transformed, and those between are interpolated; lines closer than 0.085 sigma are thinned out.
    `accuracy` scales all but the cut. Agreement with the exact form, measured for each q and each
    accuracy on real and synthetic sounds, stands in ``benchmarks/hyperresolution/README.md``.

    **Silence.** A point is followed where :math:`|m|^2 + (10^{-6} \max|x| / |\xi|)^2 < 1/4`. In
    digital silence :math:`\xi` is rounding noise, and the authors' program, like the drop-in
    function here, follows and counts a third of it; the threshold then depends on the precision.

    **The count threshold** compares whole numbers with a limit. A bin whose count lies within a
    tenth of the limit may be there in one form and not in the other. So may a click that lies
    exactly on the edge of two frames: rounding decides.

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
        same grid, every point with fmin <= f0 < fmax counted, and no count threshold. What it
        lacks of the reassigned picture is what reassignment does.
    center : bool
        True: frame j is centred on sample j hop_length, as librosa's are, and there are
        1 + n // hop_length of them. False: frame j holds the times j hop_length <= t <
        (j + 1) hop_length, the first sample's time being 1, as the method's authors count.
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
    backend : {"auto", "compiled", "torch"}
        "compiled" runs loops compiled by numba, on a CPU only, in as many threads as
        `torch.get_num_threads()` says; "torch" runs batched torch operations on the waveform's own
        device. "auto" takes the first on a CPU and the second elsewhere.

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
    torch.Size([129, 51])
    >>> loudest = int(power.sum(-1).argmax())
    >>> print(f"{transform.frequencies[loudest]:.0f} Hz")
    1000 Hz
    """

    def __init__(
        self,
        sample_rate: float,
        q: float | Sequence[float] = 2.0,
        hop_length: int = 512,
        bins_per_octave: float = 24,
        fmin: float = 30.0,
        fmax: float | None = None,
        oversampling: int = 10,
        exact: bool = False,
        reassign: bool = True,
        center: bool = True,
        axis: str = "log",
        n_bins: int | None = None,
        count_threshold: bool = True,
        consensus: int | None = None,
        accuracy: float = 1.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.analysis = analyses.make_analysis(
            sample_rate,
            q,
            hop_length,
            bins_per_octave,
            fmin,
            fmax,
            oversampling,
            exact,
            reassign,
            center,
            axis,
            n_bins,
            count_threshold,
            consensus,
            accuracy,
            ARGUMENT_NAMES,
        )
        self.sample_rate = float(sample_rate)
        self.settings = self.analysis.settings
        self.hop_length = self.settings[0].hop
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        self.backend = backend

    def extra_repr(self) -> str:
        """What `print` shows of the module."""
        one, chosen = self.settings[0], self.analysis
        q = list(chosen.q) if chosen.several_q else chosen.q[0]
        form = "exact" if chosen.exact else f"accuracy={chosen.accuracy:g}"
        form += "" if one.reassign else ", reassign=False"
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
        """Centres of the frames in seconds after the first sample, shape (time,)."""
        return self.settings[0].times(whole_number(n_samples, "n_samples")) / self.sample_rate

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
            If it is shorter than two samples, or not finite, or its power does not fit its dtype.
        RuntimeError
            Inside `torch.jit.trace`.

        Warns
        -----
        UserWarning
            If the last axis is so short that it is hardly time.
        """
        if torch.jit.is_tracing():
            raise RuntimeError(
                "LinearReassignment cannot be traced: where a point falls depends on the samples, "
                "so a trace would hold the example's picture; call it outside of torch.jit.trace"
            )
        x = as_float_tensor(waveform, "waveform")
        check_samples(x, "waveform", stacklevel=5)  # past torch's __call__, to the caller
        if x.device.type == "mps":  # it has no float64, in which points are added up
            return self.forward(x.cpu()).to(x.device)
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        if self._in_torch(x.device):
            pictures = self._pictures(flat)
        else:
            found = analyses.pictures(flat.detach().numpy(), self.analysis, "waveform")
            pictures = torch.from_numpy(found)
        return self._arranged(pictures, x.shape[:-1])

    @torch.no_grad()
    def long_recording(
        self, waveform: np.ndarray | torch.Tensor, block_length: int = 1 << 18
    ) -> torch.Tensor:
        """The picture of a recording of any length, in memory that its length bounds only mildly.

        The recording is taken in blocks that overlap by six standard deviations of the longest
        window, 6 q / fmin; each frame comes from one block that sees all of its surroundings, so
        there are no seams. (Below Nyquist; at it, where the spectrum ends, a Gaussian is cut off
        sharply and its ringing dies away only slowly.) Before the first sample and after the last
        there is silence, where `forward` sees the other end. The count threshold is that of the
        whole recording. Besides the input, memory holds the result, one histogram of counts, and
        the work of one block.

        Parameters
        ----------
        waveform : array or tensor, shape (time,)
            Real floating-point samples, at least 2. A `numpy.memmap` is read block by block.
        block_length : int
            Samples in a block with its overlaps, raised to twice the overlaps where it is less.

        Returns
        -------
        tensor, shape (frequency, time), or (q, frequency, time) as from `forward`, float32
            (float64 for a float64 recording in the exact form).

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
        n_samples = waveform.shape[0]
        check_samples(as_float_tensor(waveform[:2], "waveform"), "waveform")
        block_length = whole_number(block_length, "block_length")
        hop = self.hop_length
        slowest = max(one.q / one.fmin for one in self.settings)
        margin = -(-int(np.ceil(MARGIN * slowest)) // hop)  # in frames, like all below
        length = scipy.fft.next_fast_len(
            max(block_length, 4 * margin * hop, (2 * margin + 1) * hop)
        )
        core = length // hop - 2 * margin
        n_frames = self.settings[0].frames(n_samples)
        first = as_float_tensor(waveform[:1], "waveform")
        double = self.analysis.exact and first.dtype == torch.float64
        dtype = torch.float64 if double else torch.float32
        out = torch.zeros(
            len(self.settings), self.settings[0].n_bins, n_frames, dtype=dtype, device=first.device
        )
        counts = torch.zeros(out.shape[1:], device=first.device)
        loudest = 0.0
        for i in range(len(self.settings)):
            for start in range(0, n_frames, core):
                block = self._block(waveform, (start - margin) * hop, length, dtype)
                loudest = max(loudest, float(block.abs().max()))
                energy, count = self._histograms(block, i)
                stop = min(start + core, n_frames)
                inner = slice(margin, margin + stop - start)
                out[i, :, start:stop] = energy[:, inner]
                counts[:, start:stop] = count[:, inner]
            if self.analysis.count_threshold:
                least = counts.max().sqrt()
                for row, number in zip(out[i], counts, strict=True):  # row by row: no large mask
                    row[number < least] = 0
        check_power(bool(torch.isfinite(out).all()), "waveform", loudest, dtype)
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

    def _in_torch(self, device: torch.device) -> bool:
        """Whether torch operations do the work for a waveform on this device."""
        if self.backend == "compiled" and device.type != "cpu":
            raise ValueError(
                f"backend='compiled' needs the waveform on a CPU, got {device}; "
                "use 'auto' or 'torch'"
            )
        return self.backend == "torch" or device.type != "cpu"

    def _histograms(self, x: torch.Tensor, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy and count of the i-th q for one signal, each (frequency, time)."""
        if self._in_torch(x.device):
            ((energy, count),) = torch_backend.histograms(
                x[None], self.settings[i : i + 1], self.analysis, analyses.SILENCE
            )
            return energy[0], count[0]
        ((energy, count),) = analyses.histograms(x.numpy(), self.analysis, [i])
        return torch.from_numpy(energy), torch.from_numpy(np.ascontiguousarray(count))

    def _pictures(self, x: torch.Tensor) -> torch.Tensor:
        """Power of signals on their own device, (batch, N) to (batch, q, frequency, time)."""
        one = self.settings[0]
        if len(x) == 0:
            return x.new_zeros(0, len(self.settings), one.n_bins, one.frames(x.shape[-1]))
        kept = []
        found = torch_backend.histograms(x, self.settings, self.analysis, analyses.SILENCE)
        for energy, count in found:
            if self.analysis.count_threshold:
                least = count.amax((-2, -1), keepdim=True).sqrt()
                energy = torch.where(count < least, 0, energy)
            kept.append(energy.to(x.dtype))
        pictures = torch.stack(kept, dim=1)
        finite = bool(torch.isfinite(pictures).all())
        check_power(finite, "waveform", float(x.abs().max()), x.dtype)
        return pictures

    def _arranged(self, pictures: torch.Tensor, batch: tuple[int, ...]) -> torch.Tensor:
        """From (flat batch, q, frequency, time) to the shape that `forward` promises."""
        pictures = pictures.reshape(*batch, *pictures.shape[1:])
        chosen = self.analysis
        if chosen.consensus is not None:
            return consensus_picture(pictures, chosen.q, chosen.consensus)
        return pictures if chosen.several_q else pictures.squeeze(-3)
