"""Helpers of the numbered notebooks; these names are loaded when first used, not at import."""

import lazy_loader

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
