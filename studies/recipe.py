"""What does each ingredient of the challenge's 4th place gain? One is left out at a time.

Kaggle discussion 62634: log-mel with its deltas as three channels, mixup, windows of 1.5 s that are
drawn in training and averaged in scoring, labels that nobody checked at a weight of 0.6.
"""

from dataclasses import replace

from freesound_tagging.learning.profiles import Profile
from studies.common import arguments, run_conditions

WORDS = {
    "whole": "log-mel with deltas, mixup, windows, weights",
    "mfcc": "MFCC in place of log-mel",
    "without_deltas": "log-mel alone",
    "without_mixup": "clips are not blended",
    "without_windows": "one crop as long as the grid's",
    "without_weights": "labels that nobody checked count in full",
    "nothing": "the grid's mel dB",
}
"""Each ingredient in words."""


def conditions(profile: Profile) -> dict[str, tuple[str, dict]]:
    """Return name -> representation and what is different from the profile."""
    once = replace(profile.grid, windows=1)
    windows = {"grid": replace(profile.grid, duration=1.5, windows=3)}
    whole = {"mixup": 0.3, "unverified_weight": 0.6} | windows
    return {
        "whole": ("3ch_mel_deltas", whole),
        "mfcc": ("3ch_mfcc_deltas", whole),
        "without_deltas": ("mel_db", whole),
        "without_mixup": ("3ch_mel_deltas", whole | {"mixup": 0.0}),
        "without_windows": ("3ch_mel_deltas", whole | {"grid": once}),
        "without_weights": ("3ch_mel_deltas", whole | {"unverified_weight": 1.0}),
        "nothing": ("mel_db", {}),
    }


def main(argv: list[str] | None = None) -> None:
    """Make the runs and keep their scores."""
    options = arguments(__doc__.splitlines()[0], "microcalls", "cpu", 3).parse_args(argv)

    def asked(profile: Profile) -> dict[str, tuple[str, dict]]:
        named = conditions(profile)
        if options.dataset != "fsdkaggle2018":  # elsewhere every label was checked
            named.pop("without_weights")
        return named

    run_conditions(options, "recipe", asked)


if __name__ == "__main__":
    main()
