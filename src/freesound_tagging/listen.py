"""Hear a waveform in a notebook; the committed copy of a notebook holds no sound."""

import html

import numpy as np


def listen(waveform: np.ndarray, sample_rate: int, title: str = "") -> None:
    """Show an audio player under the cell; where only text is shown, one line in its place.

    Parameters
    ----------
    waveform : floats, shape (time,) or (channels, time); its loudest sample plays at full scale.
    sample_rate : Hz.
    title : what one hears; it stands beside the player.
    """
    from IPython.display import Audio, display

    waveform = np.asarray(waveform)
    loud = bool(np.any(waveform))  # silence cannot be scaled to full scale
    player = Audio(waveform, rate=sample_rate, normalize=loud)
    seconds = waveform.shape[-1] / sample_rate
    line = f"[player: {title or 'sound'}, {seconds:.1f} s; run the notebook to hear it]"
    heading = f"<div>{html.escape(title)}</div>" if title else ""
    display({"text/html": heading + player._repr_html_(), "text/plain": line}, raw=True)


def strip_players(notebook) -> int:
    """Take the players out of an executed notebook (nbformat 4) and return how many there were."""
    stripped = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "<audio" in "".join(output.get("data", {}).get("text/html", "")):
                del output["data"]["text/html"]
                stripped += 1
    return stripped
