"""Do high-resolution spectrograms help a CNN tag sounds? Helpers of the numbered notebooks.

One direction of flow, each folder knowing only the ones before it::

    sounds -> features -> scoring -> learning

The names below are loaded when first used, so that ``import freesound_tagging`` is instant.
"""

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
