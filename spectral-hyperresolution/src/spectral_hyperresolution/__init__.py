"""Linear reassignment (Gardner & Magnasco 2006, doi 10.1073/pnas.0601707103).

`reassigned_spectrogram` takes and gives NumPy arrays, and numbers its frames as librosa does;
`LinearReassignment` is the transform as a torch module, fast by default;
`high_resolution_spectrogram` is the drop-in replacement of the published package's function.
Names are loaded when they are first used; the last two need torch.
"""

from importlib import import_module

_MODULES = {
    "LinearReassignment": "transform",
    "Settings": "settings",
    "consensus_picture": "pictures",
    "high_resolution_spectrogram": "linear_reassignment",
    "reassigned_spectrogram": "spectrogram",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            f"{name} needs PyTorch: pip install torch; reassigned_spectrogram works without it",
            name="torch",
        ) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
