"""Name or CSV -> clip table -> waveforms."""
