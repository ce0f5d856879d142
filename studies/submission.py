"""How do the networks of FSDKaggle2018 do on the test clips that the challenge scored?

All fold models of a representation are averaged. Writes test_summary.csv, and a file for Kaggle of
each representation, beside the runs that `make run DATASET=fsdkaggle2018` has made.
"""

import argparse

from freesound_tagging.experiment import open_experiment
from freesound_tagging.scoring.challenge import average_folds, submission, summarise_test
from freesound_tagging.sounds import fsdkaggle2018


def main(argv: list[str] | None = None) -> None:
    """Score the test clips, write what was found, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="fsdkaggle2018", choices=["fsdkaggle2018"])
    parser.add_argument("--profile", default="gpu")
    options = parser.parse_args(argv)
    experiment = open_experiment(options.dataset, options.profile)
    scores = experiment.load_scores(".test.csv")
    usage = fsdkaggle2018.usage_of_test_clips(experiment.raw_folder)
    summary = summarise_test(scores, usage)
    summary.to_csv(experiment.run_folder / "test_summary.csv", index=False, float_format="%.6g")
    sample = fsdkaggle2018.sample_submission(experiment.raw_folder)
    folder = experiment.run_folder / "submissions"
    folder.mkdir(exist_ok=True)
    for name, frame in scores.items():
        lines = submission(average_folds(frame), sample)
        lines.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    print(summary.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
