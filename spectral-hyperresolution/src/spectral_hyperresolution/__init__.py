"""Linear reassignment (Gardner & Magnasco 2006, doi 10.1073/pnas.0601707103).

`reassigned_spectrogram` takes and gives NumPy arrays, and numbers its frames as librosa does;
`LinearReassignment` is the transform as a torch module, fast by default;
`high_resolution_spectrogram` is the drop-in replacement of the published package's function.
"""

from .concentration import renyi_entropy
from .consensus import consensus_picture
from .linear_reassignment import high_resolution_spectrogram
from .spectrogram import reassigned_spectrogram
from .transform import LinearReassignment

__all__ = [
    "LinearReassignment",
    "consensus_picture",
    "high_resolution_spectrogram",
    "reassigned_spectrogram",
    "renyi_entropy",
]
