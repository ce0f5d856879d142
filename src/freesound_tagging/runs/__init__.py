"""The grid of runs, the studies, and the notebooks that make them."""
