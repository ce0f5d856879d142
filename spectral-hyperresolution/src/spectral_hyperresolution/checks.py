"""What a waveform must be before it is transformed; shared by every entry point."""

from __future__ import annotations

import warnings

import numpy as np
import torch

# A last axis this many times shorter than the one before it is hardly time.
SURELY_NOT_TIME = 50

# The sum of the power of a few hours of such samples still fits the precision.
LARGEST_SINGLE, LARGEST_DOUBLE = 1e14, 1e140


def as_float_tensor(x: np.ndarray | torch.Tensor, name: str) -> torch.Tensor:
    """`x` as a real floating-point tensor, sharing memory where it can.

    Raises
    ------
    TypeError
        If `x` is no array or tensor, or holds integers, booleans or complex numbers.
    """
    if isinstance(x, np.ndarray):
        if x.dtype.kind != "f":
            raise TypeError(
                f"{name} must hold real floating-point samples (float32 or float64), got {x.dtype}"
                + integer_hint(x.dtype.kind in "iu")
            )
        # Negative strides, foreign byte order and long doubles have no tensor.
        kind = np.float64 if x.dtype.itemsize > 8 else x.dtype.newbyteorder("=")
        x = np.ascontiguousarray(x, dtype=kind)
        x = torch.from_numpy(x if x.flags.writeable else x.copy())
    elif not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch tensor or a NumPy array, got {type(x).__name__}")
    if not x.is_floating_point():
        is_integer = not x.is_complex() and x.dtype != torch.bool
        raise TypeError(
            f"{name} must hold real floating-point samples (float32 or float64), got {x.dtype}"
            + integer_hint(is_integer)
        )
    return x


def integer_hint(is_integer: bool) -> str:
    """The likely cure for the likely mistake."""
    return "; divide 16-bit integers by 32768 first" if is_integer else ""


def check_samples(x: torch.Tensor, name: str) -> None:
    """ValueError unless time, the last axis, has two samples or more, all finite.

    Warns where the last axis is too short to be time.
    """
    if x.ndim == 0 or x.shape[-1] < 2:
        n = 0 if x.ndim == 0 else x.shape[-1]
        raise ValueError(f"{name} must have at least 2 samples along time, got {n}")
    if x.ndim > 1 and x.shape[-2] > SURELY_NOT_TIME * x.shape[-1]:
        warnings.warn(
            f"{name} has shape {tuple(x.shape)}: time is the last axis, so this is taken for "
            f"{x.shape[-2]} clips of {x.shape[-1]} samples; transpose (time, channel) first",
            UserWarning,
            stacklevel=3,
        )
    check_finite(x, name)


def check_finite(x: torch.Tensor, name: str) -> None:
    """ValueError if a sample is NaN or infinite, or so large that its power would be."""
    if x.numel() == 0:
        return
    # NumPy on a CPU: after a parallel torch operation its threads keep turning for a while, in the
    # way of those of the compiled loops.
    on_cpu = x.device.type == "cpu" and x.dtype != torch.bfloat16
    peak = float(np.abs(x.detach().numpy()).max() if on_cpu else x.abs().max())
    if not np.isfinite(peak):
        raise ValueError(f"{name} must be finite, got NaN or infinity among its samples")
    largest = LARGEST_DOUBLE if x.dtype == torch.float64 else LARGEST_SINGLE
    if peak > largest:
        raise ValueError(
            f"{name} must lie within +-{largest:g}, so that its power is finite in "
            f"{'double' if x.dtype == torch.float64 else 'single'} precision, got {peak:.3g}"
        )
