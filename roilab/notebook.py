"""What the first cell of a notebook needs."""

import importlib.util
import platform
import random


def setup(seed: int = 0) -> str:
    """Make random numbers repeatable, let widgets of others run on Colab, and say what this notebook runs on.

    Returns:
        One line: versions of roilab, Python and torch, and the device that `roilab.load` will take.
    """
    import torch

    from . import __version__

    random.seed(seed)
    torch.manual_seed(seed)
    if importlib.util.find_spec("google") and importlib.util.find_spec("google.colab"):
        from google.colab import output

        output.enable_custom_widget_manager()  # Colab keeps ipycanvas out until this is called
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"the CPU, {torch.get_num_threads()} threads"
    return f"roilab {__version__}, Python {platform.python_version()}, torch {torch.__version__} on {device}"
