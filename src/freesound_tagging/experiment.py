"""One experiment = a data set and a profile: where its files lie, and its steps for notebooks.

fastai is loaded by the steps that train: who looks at sounds waits less.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from freesound_tagging import files
from freesound_tagging.errors import DataError
from freesound_tagging.features import store as stores
from freesound_tagging.features.grid import Grid
from freesound_tagging.jobs import check_scheduler
from freesound_tagging.learning.profiles import Profile, get_profile, parse_seeds
from freesound_tagging.scoring import metrics
from freesound_tagging.sounds import catalogue, tables
from freesound_tagging.sounds.clips import ClipError, load_clip

ROOT = Path(__file__).resolve().parents[2]
"""The repository: the package is installed in place (``pip install -e .``)."""

REFERENCE = (
    *("linear_linear", "linear_db", "log_linear", "log_db", "mel_linear", "mel_db"),
    *("hires_q1", "hires_q2", "hires_q4", "hires_q8"),
    *("3ch_linear_mel_log", "3ch_hires_q1_q4_q8", "3ch_hires_q1_q8_log_db"),
)
"""The reference experiment's table."""
COMPARED = (*REFERENCE, "gabor_q2", "gabor_q8")
"""What `make run` compares: the reference's thirteen representations, and two of them with their
filters unmoved. The other representations are for studies."""


def work_folder() -> Path:
    """Return the folder that holds ``data/`` and ``runs/``: the repository, or WORK_FOLDER."""
    return Path(os.environ.get("WORK_FOLDER") or ROOT).resolve()


class Experiment:
    """A data set, by name or path of a table of one's own, with a profile adjusted to it."""

    def __init__(self, dataset: str, profile_name: str, profile: Profile):
        self.dataset, self.profile_name, self.profile = dataset, profile_name, profile
        self.name = Path(dataset).stem if catalogue.is_table(dataset) else dataset
        work = work_folder()
        self.raw_folder = work / "data" / "raw"  # of sounds, unpacked or generated
        self.store_folder = work / "data" / "interim" / self.name  # of stored spectrograms
        self.run_folder = work / "runs" / self.name / profile_name  # of scores and notebooks
        self.model_folder = work / "models" / self.name / profile_name  # of what tags other sounds

    @contextmanager
    def hold_runs(self) -> Iterator[None]:
        """Hold the runs of this data set alone; what is amiss is told before any training."""
        from freesound_tagging import runs

        check_scheduler()
        with files.hold_alone(self.run_folder.parent, "training into this folder"):
            table = self.load_table()
            if catalogue.is_table(self.dataset):  # the other sets' clips are compared with hashes
                tables.check_sounds(table)
            runs.check_settings(self.run_folder, runs.describe_settings(table, self.profile))
            yield

    def load_table(self, split: str = "train") -> pd.DataFrame:
        """Return the clips of a split, "train" or "test", thinned where the profile asks for it.

        No run learns from the clips of the test split, which few data sets have.
        """
        is_generated, is_own = self.dataset == "microcalls", catalogue.is_table(self.dataset)
        options = {"clips_per_class": self.profile.clips_per_class} if is_generated else {}
        dataset = str(ROOT / self.dataset) if is_own else self.dataset  # absolute ones stay
        table = catalogue.load(dataset, self.raw_folder, **options)
        return thin(table[table["split"] == split], self.profile.max_clips)

    def examples(self, table: pd.DataFrame) -> dict[str, tuple[str, np.ndarray]]:
        """Return label -> (clip id, waveform): its first clip that is readable and not silent."""
        found, grid = {}, self.profile.grid
        for clip_id, clip in table.iterrows():
            with suppress(ClipError):  # the store reports it, with all others
                if clip["label"] not in found:
                    waveform, note = load_clip(clip["path"], grid.sample_rate, grid.duration)
                    if not note.startswith("silent"):
                        found[clip["label"]] = (clip_id, waveform)
        if not found:
            raise DataError(f"{self.dataset}: no clip can be read and holds sound")
        return found

    def build_store(
        self, table: pd.DataFrame, channels: Sequence[str], grid: Grid | None = None
    ) -> stores.Store:
        """Compute what the store lacks, of the test split too, and return it.

        The grid is by default the profile's. ``STRICT=1`` makes any unreadable clip an error.
        """
        clips, grid = pd.concat([table, self.load_table("test")]), grid or self.profile.grid
        strict = os.environ.get("STRICT") == "1"
        return stores.build(clips, channels, grid, self.store_folder, strict=strict)

    def make_runs(
        self, table: pd.DataFrame, store: stores.Store, variants: Sequence[str]
    ) -> pd.DataFrame:
        """Make the runs of some representations not made yet, and return one row for each."""
        from freesound_tagging import runs

        test = self.load_table("test")
        test = None if test.empty else test
        rows = runs.run_grid(table, store, variants, self.profile, self.run_folder, test=test)
        rows.insert(0, "dataset", self.name)
        rows.insert(1, "profile", self.profile_name)
        return rows

    def run_grid(
        self, table: pd.DataFrame, store: stores.Store, variants: Sequence[str] = COMPARED
    ) -> pd.DataFrame:
        """Make runs as `make_runs` does; write results.csv, and unreadable.csv beside it."""
        results = self.make_runs(table, store, variants)
        results.to_csv(self.run_folder / "results.csv", index=False)
        unreadable = pd.Series(store.failed, name="reason", dtype=str).sort_index()
        unreadable.to_csv(self.run_folder / "unreadable.csv", index_label="clip_id")
        return results

    def load_scores(self, suffix: str = ".csv") -> dict[str, pd.DataFrame]:
        """Return the scores of every representation in ``results.csv``, see `runs.load_scores`."""
        from freesound_tagging import runs

        results = pd.read_csv(self.run_folder / "results.csv")
        return runs.load_scores(self.run_folder, results, suffix)

    def write_summary(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rank the representations: write ``summary.csv`` and return it."""
        summary = metrics.summarise(self.load_scores(), table)
        summary.to_csv(self.run_folder / "summary.csv", index=False, float_format="%.6g")
        return summary


def open_experiment(dataset: str, profile: str, seeds: int | None = None) -> Experiment:
    """Return an experiment with as many seeds as given, else as SEEDS says, else the profile."""
    catalogue.check_dataset(dataset)
    settings = get_profile(profile, dataset)
    seeds = parse_seeds(os.environ.get("SEEDS")) if seeds is None else seeds
    if seeds:
        settings = replace(settings, seeds=tuple(range(seeds)))
    return Experiment(dataset, profile, settings)


def thin(table: pd.DataFrame, max_clips: int | None) -> pd.DataFrame:
    """Return about ``max_clips`` clips: the first of every label and fold, one at least of each."""
    if max_clips is None or len(table) <= max_clips:
        return table
    cells = table.sort_index().groupby(["label", "fold"])
    return cells.head(max(1, max_clips // cells.ngroups))
