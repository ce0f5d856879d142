"""How well does YAMNet, which has heard sounds, tag a data set? The profile `audio`.

Whole clips -> embeddings, their mean and maximum over patches -> logistic regression, its C chosen
inside the training folds -> out-of-fold probabilities. Insects sing above what the network hears,
so their profile plays recordings of 44.1 kHz at 16 kHz: they sound 2.76 times lower.
"""

from freesound_tagging.features.yamnet import SAMPLE_RATE
from freesound_tagging.learning.audio import YAMNET
from studies.common import arguments, keep, open_study, train


def main(argv: list[str] | None = None) -> None:
    """Make the runs and keep their scores."""
    options = arguments(__doc__.splitlines()[0], "esc10", "audio", 1).parse_args(argv)
    experiment = open_study(options)
    with experiment.hold_runs():
        rows, scores = train(experiment, [YAMNET], range(options.seeds))
    is_slowed = experiment.profile.grid.sample_rate != SAMPLE_RATE
    name = f"{YAMNET}_slowed" if is_slowed else YAMNET
    keep(experiment, options.out, {name: scores[YAMNET]}, rows.assign(variant=name))


if __name__ == "__main__":
    main()
