"""Make archives like FSDKaggle2018's, at full size, with generated sounds.

    python stand_in.py --tables FOLDER --out FOLDER

The tables are the challenge's real ones (train_post_competition.csv and
test_post_competition_scoring_clips.csv, from FSDKaggle2018.meta.zip); the sounds, one for each of
the 11,073 clips that they list, are made up: 0.3 to 30 s, 16 bit, 44.1 kHz, some 6 GB in all. Named
as DATA_MIRROR, the folder serves `make run DATASET=fsdkaggle2018`, which says that the archives are
not the published ones. What is measured on them holds for speed, memory and disk, not for scores.
"""

import argparse
import io
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import soundfile as sf
from tqdm import tqdm

SAMPLE_RATE = 44_100
SHORTEST, LONGEST, MEDIAN = 0.3, 30.0, 4.5
"""Seconds. The real clips last 0.3 to 30 s and 6.8 s in the mean, which this median gives."""
TABLES = ("train_post_competition.csv", "test_post_competition_scoring_clips.csv")


def make_sound(fname: str, label: str) -> bytes:
    """Return the wav file of one clip: decaying partials in noise; the same for the same names.

    A label has its pitch and its decay; a clip has its own length, tuning and noise.
    """
    generator = np.random.default_rng([zlib.crc32(fname.encode()), zlib.crc32(label.encode())])
    own = np.random.default_rng(zlib.crc32(label.encode()))
    pitch = 80 * 2 ** own.uniform(0, 6) * 2 ** generator.uniform(-0.1, 0.1)
    decay = own.uniform(0.5, 8)
    seconds = np.clip(MEDIAN * np.exp(0.95 * generator.standard_normal()), SHORTEST, LONGEST)
    time = np.arange(round(seconds * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    waveform = 0.01 * generator.standard_normal(len(time), dtype=np.float32)
    for partial in range(1, 4):
        if partial * pitch < SAMPLE_RATE / 2:
            envelope = np.exp(-decay * partial * time) / partial
            waveform += 0.3 * envelope * np.sin(np.float32(2 * np.pi * partial * pitch) * time)
    content = io.BytesIO()
    sf.write(content, waveform, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    return content.getvalue()


def write_archive(file: Path, folder: str, clips: pd.DataFrame) -> None:
    """Write the sounds of a table's clips into one zip, in a folder of the archive's name."""
    made = joblib.Parallel(n_jobs=joblib.cpu_count(), return_as="generator")(
        joblib.delayed(make_sound)(clip.fname, clip.label) for clip in clips.itertuples()
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for fname, content in tqdm(
            zip(clips["fname"], made, strict=True), total=len(clips), desc=file.name, unit="clip"
        ):
            archive.writestr(f"{folder}/{fname}", content)


def main() -> None:
    """Write the four archives."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=Path, required=True, help="folder of the real tables")
    parser.add_argument("--out", type=Path, required=True, help="folder for the archives")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(options.out / "FSDKaggle2018.meta.zip", "w") as archive:
        for name in TABLES:
            archive.write(options.tables / name, f"FSDKaggle2018.meta/{name}")
    with zipfile.ZipFile(options.out / "FSDKaggle2018.doc.zip", "w") as archive:
        archive.writestr("FSDKaggle2018.doc/README.md", "Generated sounds; not FSDKaggle2018.\n")
    for part, name in zip(("train", "test"), TABLES, strict=True):
        folder = f"FSDKaggle2018.audio_{part}"
        write_archive(options.out / f"{folder}.zip", folder, pd.read_csv(options.tables / name))


if __name__ == "__main__":
    main()
