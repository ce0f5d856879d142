"""What a waveform must be before it is transformed; shared by every entry point."""

from __future__ import annotations

import numpy as np
import torch


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
        x = np.ascontiguousarray(x)  # negative strides have no tensor
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
    """ValueError unless the last axis of `x` has two samples or more, all of them finite."""
    if x.ndim == 0 or x.shape[-1] < 2:
        n = 0 if x.ndim == 0 else x.shape[-1]
        raise ValueError(f"{name} must have at least 2 samples along time, got {n}")
    check_finite(x, name)


def check_finite(x: torch.Tensor, name: str) -> None:
    """ValueError if a sample is NaN or infinite."""
    # NumPy on a CPU: after a parallel torch operation its threads keep turning for a while, in the
    # way of those of the compiled loops.
    on_cpu = x.device.type == "cpu" and x.dtype != torch.bfloat16
    finite = np.isfinite(x.detach().numpy()) if on_cpu else torch.isfinite(x)
    if not bool(finite.all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity among its samples")
