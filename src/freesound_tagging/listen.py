"""Hear a waveform in a notebook; the committed copy of a notebook holds no sound."""

import html

import numpy as np


def listen(waveform: np.ndarray, sample_rate: int, title: str = "sound") -> None:
    """Show an audio player under the cell; where only text is shown, one line in its place.

    Floats, shape (time,) or (channels, time), at a rate in Hz; the loudest sample plays at full
    scale.
    """
    from IPython.display import Audio, display

    loud = bool(np.any(waveform))  # silence cannot be scaled to full scale
    player = Audio(waveform, rate=sample_rate, normalize=loud)._repr_html_()
    seconds = np.shape(waveform)[-1] / sample_rate
    line = f"[player: {title}, {seconds:.1f} s; run the notebook to hear it]"
    shown = {"text/html": f"<div>{html.escape(title)}</div>{player}", "text/plain": line}
    display(shown, raw=True)


def strip_players(notebook) -> None:
    """Take the players out of an executed notebook (nbformat 4)."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "<audio" in "".join(output.get("data", {}).get("text/html", "")):
                del output["data"]["text/html"]
