"""What the first cell of a notebook needs, and what makes an executed one small enough to be kept."""

import io
import platform
import random
import re
import sys
from base64 import b64decode, encodebytes
from pathlib import Path

WIDGET = "application/vnd.jupyter.widget-view+json"
COLOURS = 128  # of a picture in a notebook that is kept


def setup(seed: int = 0) -> str:
    """Make random numbers repeatable, let widgets of others run on Colab, and say what this notebook runs on.

    Returns:
        One line: versions of roilab, Python and torch, and the device that `roilab.load` will take.
    """
    import torch

    from . import __version__

    random.seed(seed)
    torch.manual_seed(seed)
    if on_colab():
        from google.colab import output

        output.enable_custom_widget_manager()  # Colab keeps ipycanvas out until this is called
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"the CPU, {torch.get_num_threads()} threads"
    return f"roilab {__version__}, Python {platform.python_version()}, torch {torch.__version__} on {device}"


def on_colab() -> bool:
    """Whether this is a kernel of Colab, which loads `google.colab` before the first cell."""
    return "google.colab" in sys.modules


def shrink(path) -> int:
    """Makes an executed notebook small, in place; returns the file's size in bytes.

    PNG pictures are reduced to `COLOURS` colours each: drawn scenes and figures look the same and take a third of the space. Progress bars,
    which are widgets, go.
    """
    import nbformat
    from PIL import Image

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                picture = Image.open(io.BytesIO(b64decode(output.data["image/png"])))
                if picture.mode != "P":
                    small = io.BytesIO()
                    reduced = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
                    reduced.save(small, "PNG", optimize=True)
                    output.data["image/png"] = encodebytes(small.getvalue()).decode()
    nbformat.write(notebook, path)
    return Path(path).stat().st_size


def is_progress_bar(output) -> bool:
    """Whether an output of a cell is a bar of tqdm."""
    data = output.get("data", {})
    return WIDGET in data and bool(re.search(r"(\d+%|\d+it)", data.get("text/plain", "")))


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(f"{each}: {shrink(each):,} bytes")
