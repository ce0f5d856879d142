"""Do differential learning rates help? One rate for all layers, against slower early ones.

log dB alone, the strong profile, three seeds: a family of one.
"""

from freesound_tagging.learning.profiles import Profile
from studies.common import arguments, run_conditions


def conditions(profile: Profile) -> dict[str, tuple[str, dict]]:
    """Return name -> representation and what is different; slower early layers are the grid's."""
    return {"one_rate": ("log_db", {"lr_ratio": 1.0})}


def main(argv: list[str] | None = None) -> None:
    """Make the runs and keep their scores."""
    parser = arguments(__doc__.splitlines()[0], "esc10", "pretrained", 3)
    run_conditions(parser.parse_args(argv), "rates", conditions)


if __name__ == "__main__":
    main()
