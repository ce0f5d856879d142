"""Helpers of the numbered notebooks; these names are loaded when first used, not at import."""

import os
from pathlib import Path

import lazy_loader

# With wider registers sums are rounded in another order. Kept to AVX2, AMD processors with and
# without AVX-512 give the same scores. torch, oneDNN and numba read this when first used.
_cpuinfo = Path("/proc/cpuinfo")
if _cpuinfo.exists() and " avx2 " in _cpuinfo.read_text():
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    os.environ.setdefault("NUMBA_CPU_NAME", "x86-64-v3")
    os.environ.setdefault("NUMBA_CPU_FEATURES", "")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "sounds.catalogue": ["load"],
        "sounds.clips": ["best_centred_crop", "decode"],
        "features.representations": ["VARIANTS"],
        "learning.tagger": ["Tagger"],
        "scoring.metrics": ["map_at_k", "top_k_error"],
    },
)
