"""roilab: GPT4RoI rebuilt for learning and for research: talk about regions of pictures, and look inside."""

import importlib

__version__ = "0.1.0"

_FUNCTIONS = {"load": "weights", "build": "weights", "Chat": "chat"}
_MODULES = ("chat", "config", "model", "pictures", "plotting", "processing", "regions", "scenes", "training", "evaluation", "vision", "weights")

__all__ = ["load", "build", "Chat", "scenes", "plotting", "__version__"]


def __getattr__(name: str):
    # Everything heavy (torch, transformers, matplotlib) is imported on first use.
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f".{_FUNCTIONS[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(set(globals()) | set(__all__) | set(_MODULES))
