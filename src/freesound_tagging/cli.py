"""``freesound-tagging``: one command with the subcommands run, study, publish and report.

Arguments are checked before torch, fastai and matplotlib are loaded, so that a slip is answered at
once; each subcommand imports what it needs when its work begins.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from freesound_tagging.errors import DataError
from freesound_tagging.learning.profiles import get_profile, parse_seeds
from freesound_tagging.runs.questions import check_study
from freesound_tagging.sounds.catalogue import check_dataset, is_table

STOPPED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""

SETTINGS = ("WORK_FOLDER", "DATA_MIRROR", "SEEDS", "STRICT", "SCHEDULER")
"""Environment variables that say how a command works."""


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand and return the exit status: 0, 1 (a notebook failed), 2 (bad input), 130."""
    options = _parser().parse_args(arguments)
    for variable in ("WORK_FOLDER", "DATA_MIRROR"):  # notebooks run in a folder of their own
        if os.environ.get(variable):
            os.environ[variable] = str(Path(os.environ[variable]).expanduser().resolve())
    try:
        return options.work(options)
    except KeyboardInterrupt:
        given = [(name, os.environ.get(name)) for name in SETTINGS]
        settings = "".join(f" {name}={shlex.quote(value)}" for name, value in given if value)
        command = f"make {_make_target(options)}{settings}"
        print(f"\nstopped; what is finished is kept, to go on: {command}", file=sys.stderr)
        return STOPPED
    except OSError as error:  # no permission, a full disk
        place = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {place}", file=sys.stderr)
        return 2
    except (DataError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Execute the notebooks in order, then print the table and where everything lies."""
    _check(options)
    from freesound_tagging.runs.notebooks import run_experiment

    dataset = options.dataset
    if is_table(dataset):
        dataset = str(Path(dataset).expanduser().resolve())
    return run_experiment(dataset, options.profile)


def study(options: argparse.Namespace) -> int:
    """Make the runs of a study and print their mean scores."""
    _check(options)
    from freesound_tagging.runs import studies

    studies.make_study(options.dataset, options.profile, options.study)
    return 0


def publish(options: argparse.Namespace) -> int:
    """Copy a finished run or study into results/, then write the tables anew."""
    _check(options)
    from freesound_tagging.reporting.publish import publish_into_results

    publish_into_results(options.dataset, options.profile, options.study)
    return report(options)


def report(_: argparse.Namespace) -> int:
    """Write the tables of README.md and results/README.md from the committed results."""
    from freesound_tagging.reporting.publish import write_pages

    write_pages()
    return 0


def _check(options: argparse.Namespace) -> None:
    check_dataset(options.dataset)
    if is_table(options.dataset) and not Path(options.dataset).expanduser().is_file():
        raise DataError(f"{options.dataset}: there is no such table")
    get_profile(options.profile)
    parse_seeds(os.environ.get("SEEDS"))
    if getattr(options, "study", ""):
        check_study(options.study, options.dataset)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="freesound-tagging", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for work in (run, study, publish, report):
        command = commands.add_parser(work.__name__, help=work.__doc__, description=work.__doc__)
        command.set_defaults(work=work)
        if work is report:
            continue
        command.add_argument("--dataset", default="microcalls", help="a name, or path/to/table.csv")
        command.add_argument("--profile", default="cpu")
        if work is not run:
            command.add_argument("--study", default="", required=work is study)
    return parser


def _make_target(options: argparse.Namespace) -> str:
    """Return the make target and variables that say the same as these options."""
    named = {"DATASET": "dataset", "PROFILE": "profile", "STUDY": "study"}
    given = [(name, getattr(options, option, "")) for name, option in named.items()]
    words = [f"{name}={shlex.quote(value)}" for name, value in given if value]
    return " ".join([options.work.__name__, *words])


if __name__ == "__main__":
    sys.exit(main())
