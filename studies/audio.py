"""How well does YAMNet, which has heard sounds, tag a data set? The profile `audio`.

Whole clips -> embeddings, their mean and maximum over patches -> logistic regression, its C chosen
inside the training folds -> out-of-fold probabilities. `--slowed` plays recordings at 16 kHz, so
that those of 44.1 kHz sound 2.76 times lower: insects sing above what the network hears.
"""

from dataclasses import replace

from freesound_tagging.experiment import Experiment
from freesound_tagging.features.yamnet import SAMPLE_RATE
from freesound_tagging.learning.audio import YAMNET
from studies.common import arguments, keep, open_study, train


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__.splitlines()[0], "esc10", "audio", 1)
    parser.add_argument("--slowed", action="store_true", help="play 44,100 samples in 2.76 s")
    options = parser.parse_args(argv)
    experiment = open_study(options)
    rate = 44_100 if options.slowed else SAMPLE_RATE
    profile = replace(experiment.profile, grid=replace(experiment.profile.grid, sample_rate=rate))
    experiment = Experiment(experiment.dataset, experiment.profile_name, profile)
    with experiment.hold_runs():
        rows, scores = train(experiment, [YAMNET], range(options.seeds))
    name = f"{YAMNET}_slowed" if options.slowed else YAMNET
    keep(experiment, options.out, {name: scores[YAMNET]}, rows.assign(variant=name))


if __name__ == "__main__":
    main()
