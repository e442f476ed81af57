"""roilab: GPT4RoI rebuilt for learning and for research: talk about regions of pictures, and look inside."""

import importlib.util
import pkgutil

__version__ = "0.1.0"

__all__ = ["Chat", "build", "load", "plotting", "scenes"]

_HOMES = {"Chat": "chat", "build": "weights", "load": "weights"}


def __getattr__(name: str):
    # Everything heavy (torch, transformers, matplotlib) is imported on first use.
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if not name.startswith("_") and importlib.util.find_spec(f".{name}", __name__):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__, *(module.name for module in pkgutil.iter_modules(__path__))})
