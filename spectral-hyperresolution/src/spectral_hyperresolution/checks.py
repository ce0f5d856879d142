"""What a waveform must be before it is transformed; shared by every entry point."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# A last axis this many times shorter than the one before it is hardly time.
SURELY_NOT_TIME = 50

# The sum of the power of a few hours of such samples still fits the precision.
LARGEST_SINGLE, LARGEST_DOUBLE = 1e14, 1e140


def as_float_array(x: np.ndarray, name: str) -> np.ndarray:
    """`x` in this machine's byte order, or TypeError if it is no array of real floats."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(x).__name__}")
    if x.dtype.kind != "f":
        raise wrong_samples(name, x.dtype, is_integer=x.dtype.kind in "iu")
    kind = np.float64 if x.dtype.itemsize > 8 else x.dtype.newbyteorder("=")
    return np.ascontiguousarray(x, dtype=kind)


def as_float_tensor(x: np.ndarray | torch.Tensor, name: str) -> torch.Tensor:
    """`x` as a real floating-point tensor, sharing memory where it can, or TypeError."""
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


def check_samples(x: np.ndarray | torch.Tensor, name: str) -> None:
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


def check_finite(x: np.ndarray | torch.Tensor, name: str) -> None:
    """ValueError if a sample is NaN or infinite, or so large that its power would be."""
    if 0 in x.shape:
        return
    peak = float(abs(on_cpu(x)).max())
    if not np.isfinite(peak):
        raise ValueError(f"{name} must be finite, got NaN or infinity among its samples")
    largest, precision = LARGEST_SINGLE, "single"
    if str(x.dtype).endswith("float64"):
        largest, precision = LARGEST_DOUBLE, "double"
    if peak > largest:
        raise ValueError(
            f"{name} must lie within +-{largest:g}, so that its power is finite in "
            f"{precision} precision, got {peak:.3g}"
        )


def on_cpu(x: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """`x` as an array where its memory and its type have one.

    After a parallel torch operation its threads keep turning for a while, in the way of those of
    the compiled loops.
    """
    if isinstance(x, np.ndarray) or x.device.type != "cpu" or str(x.dtype) == "torch.bfloat16":
        return x
    return x.detach().numpy()
