"""What the first cell of a notebook calls."""

import platform
import random
import sys
from types import ModuleType

import torch

import roilab
from roilab import notebook


def test_setup_says_what_runs_and_repeats_random_numbers():
    said = notebook.setup(3)
    drawn = random.random(), torch.rand(2).tolist()
    assert notebook.setup(3) == said and (random.random(), torch.rand(2).tolist()) == drawn
    for part in (f"roilab {roilab.__version__}", f"Python {platform.python_version()}", f"torch {torch.__version__}"):
        assert part in said
    assert ("CPU" in said) != torch.cuda.is_available()


def test_setup_lets_colab_show_the_canvas(monkeypatch):
    calls = []
    google, colab, output = ModuleType("google"), ModuleType("google.colab"), ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: calls.append("enabled")
    google.colab, colab.output = colab, output
    for module in (google, colab, output):
        module.__spec__ = object()  # find_spec() takes what a loaded module says of itself
        monkeypatch.setitem(sys.modules, module.__name__, module)
    notebook.setup()
    assert calls == ["enabled"]
