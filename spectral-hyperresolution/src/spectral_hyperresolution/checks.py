"""What a waveform must be before it is transformed; shared by every entry point."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# A last axis this many times shorter than the one before it is hardly time.
SURELY_NOT_TIME = 50


def as_float_array(x: np.ndarray, name: str) -> np.ndarray:
    """`x` in this machine's byte order, as float32 or float64, copied only where it must be.

    Raises
    ------
    TypeError
        If `x` is no array, or holds integers, booleans or complex numbers.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(x).__name__}")
    if x.dtype.kind != "f":
        raise wrong_samples(name, x.dtype, is_integer=x.dtype.kind in "iu")
    kind = np.float32 if x.dtype.itemsize <= 4 else np.float64
    return np.ascontiguousarray(x, dtype=kind)


def as_float_tensor(x: np.ndarray | torch.Tensor, name: str) -> torch.Tensor:
    """`x` as a real floating-point tensor, sharing memory where it can.

    Raises
    ------
    TypeError
        If `x` is no array or tensor, or holds integers, booleans or complex numbers.
    """
    import torch

    if isinstance(x, np.ndarray):
        x = as_float_array(x, name)
        return torch.from_numpy(x if x.flags.writeable else x.copy())
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor or a NumPy array, got {type(x).__name__}")
    if not x.is_floating_point():
        raise wrong_samples(name, x.dtype, not x.is_complex() and x.dtype != torch.bool)
    return x


def wrong_samples(name: str, dtype: object, is_integer: bool) -> TypeError:
    """What is wrong, and the likely cure for the likely mistake."""
    cure = "; divide 16-bit integers by 32768 first" if is_integer else ""
    return TypeError(
        f"{name} must hold real floating-point samples (float32 or float64), got {dtype}{cure}"
    )


def check_samples(x: np.ndarray | torch.Tensor, name: str, stacklevel: int = 3) -> None:
    """ValueError unless the last axis has two samples or more, all finite; warn if it is not time.

    `stacklevel` is that of the warning, for the caller's caller.
    """
    if x.ndim == 0 or x.shape[-1] < 2:
        n = 0 if x.ndim == 0 else x.shape[-1]
        raise ValueError(f"{name} must have at least 2 samples along time, got {n}")
    if x.ndim > 1 and x.shape[-2] > SURELY_NOT_TIME * x.shape[-1]:
        warnings.warn(
            f"{name} has shape {tuple(x.shape)}: time is the last axis, so this is taken for "
            f"{x.shape[-2]} clips of {x.shape[-1]} samples; transpose (time, channel) first",
            UserWarning,
            stacklevel=stacklevel,
        )
    check_finite(x, name)


def check_finite(x: np.ndarray | torch.Tensor, name: str) -> None:
    """ValueError if a sample is NaN or infinite."""
    # NumPy on a CPU: after a parallel torch operation its threads keep turning for a while, in the
    # way of those of the compiled loops.
    if not isinstance(x, np.ndarray):
        import torch

        if x.device.type != "cpu" or x.dtype == torch.bfloat16:
            finite = bool(torch.isfinite(x).all())
        else:
            finite = np.isfinite(x.detach().numpy()).all()
    else:
        finite = np.isfinite(x).all()
    if not finite:
        raise ValueError(f"{name} must be finite, got NaN or infinity among its samples")


def check_power(finite: bool, name: str, peak: float, dtype: object) -> None:
    """ValueError if the power of finite samples is not finite."""
    if not finite:
        raise ValueError(
            f"{name} must be small enough for its power to fit {dtype}, got samples up to "
            f"{peak:.3g}; divide it by {peak:.3g} first"
        )
