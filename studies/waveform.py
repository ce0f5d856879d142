"""How far does a network get on the waveform itself? A 1-D network, as many epochs as the grid's.

Against the grid's log dB, clips cut to three quarters and changed in level by up to 6 dB.
"""

from freesound_tagging.learning.profiles import Profile
from studies.common import arguments, run_conditions


def conditions(profile: Profile) -> dict[str, tuple[str, dict]]:
    """Return name -> representation and what is different from the profile."""
    training = {"architecture": "waveform", "lr_max": 1e-2, "lr_ratio": 1.0}
    training |= {"frozen_epochs": 0, "epochs": profile.frozen_epochs + profile.epochs}
    return {"waveform": ("waveform", training | {"crop": 0.75, "gain": 6.0, "mask": 0.0})}


def main(argv: list[str] | None = None) -> None:
    """Make the runs and keep their scores."""
    parser = arguments(__doc__.splitlines()[0], "microcalls", "cpu", 3)
    run_conditions(parser.parse_args(argv), "waveform", conditions)


if __name__ == "__main__":
    main()
