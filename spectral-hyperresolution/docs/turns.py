"""Draws turns.png beside itself: which points the fast form computes, and from what.

Nodes, half-way places, lines and turns between two nodes of a real plan: q = 2 on the default grid.
Needs matplotlib.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from spectral_hyperresolution import Settings
from spectral_hyperresolution.plan import make_plan


def main() -> None:
    settings = Settings(22_050, q=2.0)
    batch = make_plan(44_100, settings).batches[0]
    turns, places = batch.layout.turns, batch.lines["node"]
    half = turns * np.sum(places == places[0]) // len(batch.turns)  # lines to the half-way place
    step = 2 * half
    points = np.arange(6 * turns)

    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for place, style, label in (
        (0, "-", "node: transformed, a short transform for each turn"),
        (half, "--", "half-way: a sum of the four nodes around"),
        (step, "-", None),
    ):
        axis.axhline(place, color="black", linestyle=style, linewidth=1.2, label=label)
        axis.scatter(points, np.full(len(points), place), s=26, c=points % turns, cmap="Set1")
    for line in range(1, step):
        at = np.arange(line % turns, len(points), turns)
        colour = np.full(len(at), line % turns)
        axis.scatter(at, np.full(len(at), line), 10, colour, cmap="Set1", vmin=0, vmax=turns - 1)
    axis.scatter([], [], s=10, color="gray", label="line: a sum of the places above and below")
    axis.set(
        xlabel=f"point of a line (a colour is a turn: {turns} neighbours, each every {turns}-th)",
        ylabel="scan line, counted from the node",
        yticks=[0, half, step],
    )
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncol=1, frameon=False, fontsize=8)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
