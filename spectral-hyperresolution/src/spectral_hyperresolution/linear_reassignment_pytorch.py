"""Old import path; see `spectral_hyperresolution.linear_reassignment`."""

from .linear_reassignment import high_resolution_spectogram, high_resolution_spectrogram

__all__ = ["high_resolution_spectogram", "high_resolution_spectrogram"]
