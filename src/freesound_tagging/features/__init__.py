"""Waveform -> stored spectrogram: every representation, declared as data."""
