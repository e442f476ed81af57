"""A folder that `load` is given, checked before anything of the sizes it claims is made.

What is wrong with it is a ValueError that names the folder or the file. Nothing in a folder is executed: weights are tensors alone, and
Python files are never imported.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoint import Checkpoint, read_json, some

if TYPE_CHECKING:
    from ..model import GPT4RoI
    from ..processing import GPT4RoIProcessor

_COUNT = re.compile(
    r"layers?|rounds|depths?|blocks|stages|experts|level_widths"
)  # in the name of what is made in a loop
_FILES = (
    "generation_config.json", "processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


def read_configuration(folder: Path) -> dict:
    """config.json of a folder that `save_pretrained` wrote.

    Raises:
        ValueError: there is none, it is no JSON object, or it is of another kind of model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json: expected a folder that save_pretrained wrote")
    config = read_json(path)
    if config.get("model_type") != "gpt4roi":
        raise ValueError(
            f"{folder} holds a model of type {config.get('model_type')!r}, expected 'gpt4roi'; to put GPT4RoI on "
            "backbones use roilab.build"
        )
    return config


def check_folder(folder: Path) -> GPT4RoI:
    """Whether the configuration of a folder and its weights fit together, by names, shapes and dtypes alone.

    Returns:
        The model without values, on the device meta.
    Raises:
        ValueError: a file is damaged or missing, or the weights have other shapes than the configuration says.
    """
    import torch

    from ..config import GPT4RoIConfig
    from ..model import GPT4RoI

    config = read_configuration(folder)
    for name in _FILES:
        if (folder / name).exists():
            read_json(folder / name)
    weights = Checkpoint(folder)
    for key, value in _whole_numbers(config):
        if _COUNT.search(key) and not key.endswith("size") and abs(value) > len(weights.shapes):
            raise ValueError(
                f"{folder}/config.json: {key} is {value:,}, but the weights have {len(weights.shapes)} tensors"
            )
    with refusing(folder), torch.device("meta"):
        shell = GPT4RoI(GPT4RoIConfig.from_pretrained(folder))
    problems, quantized = [], "quantization_config" in config  # whose shapes are those of packed bits
    for name, value in () if quantized else shell.state_dict().items():
        shape, dtype = weights.shapes.get(name), weights.dtypes.get(name)
        if shape is not None and shape != tuple(value.shape):
            problems.append(f"{name} has the shape {list(shape)}, the configuration says {list(value.shape)}")
        elif shape is not None and value.is_floating_point() != getattr(dtype, "is_floating_point", False):
            problems.append(f"{name} holds {dtype}, expected {value.dtype}")
    if problems:
        raise ValueError(f"{folder}: {some(problems, 4)}")
    return shell


def check_keys(folder: Path, told: dict):
    """Raises ValueError if, by transformers' loading info, weights were missing or left over: parts of the model would be random."""
    problems = [f"missing key {name}" for name in sorted(told["missing_keys"])]
    problems += [f"unknown key {name}" for name in sorted(told["unexpected_keys"])]
    if problems:
        raise ValueError(f"{folder}: configuration and weights do not fit: {some(problems, 4)}")


def check_pair(model: GPT4RoI, processor: GPT4RoIProcessor, folder):
    """Raises ValueError if a model and a processor of one folder do not go together."""
    from PIL import Image

    config, rows = model.config, model.get_input_embeddings().num_embeddings
    pairs = {
        "template": (config.template, processor.template),
        "the id of <im_patch>": (config.image_token_id, processor.image_token_id),
        "the id of <bbox>": (config.region_token_id, processor.region_token_id),
        "the number of image tokens": (model.vision.num_patches, processor.num_image_tokens),
        "the image size": (list(model.vision.image_size), list(processor.image_size)),
    }
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise ValueError(f"{folder}: {name} is {ours!r} in the model, but {theirs!r} in the processor")
    if len(processor.tokenizer) > rows:
        raise ValueError(f"{folder}: the tokenizer has {len(processor.tokenizer)} tokens, the model {rows} embeddings")
    pixels = processor.preprocess(Image.new("RGB", tuple(reversed(processor.image_size))))
    if not pixels.isfinite().all():
        raise ValueError(f"{folder}: the image processor makes pixels that are not finite")


@contextlib.contextmanager
def refusing(folder):
    """Whatever transformers meets in a damaged folder (its readers raise many types) becomes a ValueError that names the folder.

    A lack of memory or of a package is no damage, and stays what it is.
    """
    import torch

    try:
        yield
    except (MemoryError, ImportError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if str(folder) in str(error) and type(error) is ValueError:
            raise
        told = " ".join(str(error).split())
        raise ValueError(f"{folder} cannot be loaded: {type(error).__name__}: {told[:300]}") from error


def _whole_numbers(value, key: str = "") -> Iterator[tuple[str, int]]:
    """(key, number) of all whole numbers in a JSON value; of those in a list, the key of the list, and its length too."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _whole_numbers(each, name)
    elif isinstance(value, list):
        yield key, len(value)
        for each in value if key != "level_widths" else ():  # each of these is a size, not a number of things
            yield from _whole_numbers(each, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value
