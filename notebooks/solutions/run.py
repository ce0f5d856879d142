"""Run the answers behind their notebooks, in small: python notebooks/solutions/run.py [05 07 ...]

Each notebook runs with the profile `smoke` on generated sounds, and after it the code of its
answers. One that fails, or prints an object in place of what is in it, is named.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from tqdm import tqdm

FOLDER = Path(__file__).resolve().parent


def run(notebook: Path, answers: Path) -> list[str]:
    """Return what is wrong with the answers to a notebook."""
    content = load_notebook_node(str(notebook))
    content = parameterize_notebook(content, {"dataset": "microcalls", "profile": "smoke"})
    blocks = re.findall(r"```python\n(.*?)```", answers.read_text(), flags=re.DOTALL)
    content.cells += [nbformat.v4.new_code_cell(block) for block in blocks]
    try:
        NotebookClient(content, timeout=None, kernel_name="python3").execute(cwd=notebook.parent)
    except CellExecutionError as error:
        return [f"{answers.name}: {error.ename}: {error.evalue}"]
    said = [str(cell.outputs) for cell in content.cells[-len(blocks) :]]
    objects = re.findall(r"<\w[\w.]* (?:object )?at 0x\w+>|<function \S+", " ".join(said))
    return [f"{answers.name} prints {text}" for text in objects]


if __name__ == "__main__":
    chosen = sys.argv[1:] or [""]
    found = []
    for answers in tqdm(sorted(FOLDER.glob("*.md")), unit="notebook"):
        if answers.name.startswith(tuple(chosen)):
            found += run(FOLDER.parent / f"{answers.stem}.ipynb", answers)
    sys.exit("\n".join(found) or None)
