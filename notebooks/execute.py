"""Execute notebooks in place, as they are committed: in order, silent, with light figures.

python notebooks/execute.py [FILE...]    by default all of them; `make notebooks` does this
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image
from tqdm import tqdm

from freesound_tagging.listen import strip_players

FOLDER = Path(__file__).resolve().parent


def is_worth_keeping(output: dict) -> bool:
    """Say whether a reader gains from an output: progress bars and fastai's empty HTML go."""
    if output.output_type == "stream":
        return output.name == "stdout" and bool(output.text.strip())
    content = output.get("data", {})
    return not ("text/html" in content and not _text(content["text/html"]))


def _text(markup: str) -> str:
    """Return what is left of fastai's progress bar: a style sheet and nothing else is empty."""
    return markup.split("</style>")[-1].strip()


def shrink(output: dict) -> None:
    """Draw a figure with the colours that suit it best: a third of the bytes, the same look."""
    content = output.get("data", {})
    if "image/png" in content:
        figure = Image.open(io.BytesIO(base64.b64decode(content["image/png"]))).convert("RGB")
        for colours in (256, 64):
            small = io.BytesIO()
            few = figure.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(small, "png", optimize=True)
            if small.tell() < 100_000:
                break
        content["image/png"] = base64.b64encode(small.getvalue()).decode()


def execute(file: Path) -> None:
    """Run every cell in a fresh kernel and write the notebook back."""
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=None, kernel_name="python3").execute(cwd=str(file.parent))
    strip_players(notebook)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran: new in every commit
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_worth_keeping(output)]
            for output in cell.outputs:
                shrink(output)
    nbformat.write(notebook, file)


if __name__ == "__main__":
    files = [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("[0-9]*.ipynb"))
    for file in tqdm(files, unit="notebook"):
        execute(file)
