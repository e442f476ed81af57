"""`roilab train`: a stage from the command line, with every field of its recipe as an option."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from .recipes import PRESETS, StageRecipe

TEXTS = {
    "stage1": "The region encoder alone, on COCO detection, RefCOCO and RefCOCO+.",
    "stage2": "Region encoder, projector and language model, on dialogues about regions.",
    "stage3_vcr": "As stage 2, fine-tuned to VCR's four-choice form.",
}
EPILOG = (
    "A run that was interrupted goes on when it is started again with the same options. On several GPUs: torchrun --nproc_per_node=N -m "
    "roilab train … (batch-size stays the number of records of one step, over all of them)."
)


def main(argv=None) -> int:
    """Runs one `roilab train …`; returns its exit status, 130 if Ctrl-C stopped it (after saving)."""
    argv = list(argv or [])
    if argv[:1] == ["tiny"]:
        from ..tiny.train import main as train_tiny

        return train_tiny(argv)
    if argv[:1] == ["photo"]:
        from ..photo.train import main as train_photo

        return train_photo(argv)
    if argv[:1] == ["ablation"]:
        from ..tiny.ablation import main as ablate

        return ablate(argv)
    arguments = vars(_parser().parse_args(argv))
    given = {field.name: arguments[field.name] for field in dataclasses.fields(StageRecipe) if field.name in arguments}
    recipe = PRESETS[arguments["stage"]](arguments["scale"], **given)
    return _run(recipe, model_folder(arguments["model"]), arguments["data"], arguments["out"])


def _run(recipe: StageRecipe, source: str, directory: Path, out: Path) -> int:
    from .engine import MODEL, train
    from .preparing import load_model

    first = int(os.environ.get("RANK", 0)) == 0
    records = _in_turn(lambda: read_mixture(recipe, directory))
    if first:
        print("\n".join(map(repr, records.values())))
    result = train(load_model(source, recipe, _device()), recipe, records, out, progress=first)
    if first:
        end = f"step {result.steps}, loss {result.losses[-1]['loss']:.4f}" if result.losses else f"step {result.steps}"
        if result.interrupted:
            print(f"interrupted at {end}; the same command goes on from there")
        else:
            print(f"{end}; saved: {out / MODEL}; ask it with: roilab demo --model {out / MODEL}")
    return 130 if result.interrupted else 0


def read_mixture(recipe: StageRecipe, directory: Path) -> dict:
    """name -> training records of the recipe's data sets.

    Raises:
        ValueError: says of every data set that was not found what is missing.
    """
    from .. import data

    found, missing = {}, []
    for name in recipe.mixture:
        try:
            found[name] = data.read(name, directory, "train")
        except ValueError as error:
            missing.append(str(error))
    if missing:
        rest = ",".join(f"{name}={recipe.mixture[name]:g}" for name in found)
        raise ValueError("; ".join(missing) + (f"; to train without: --mixture {rest}" if rest else ""))
    return found


def model_folder(name_or_path: str) -> str:
    """What to load: the model in the folder of a run, or what was given."""
    inside = Path(name_or_path) / "model"
    return str(inside) if (inside / "config.json").is_file() else name_or_path


def _in_turn(call):
    """What `call` returns; of several processes the first goes ahead, so that tables are made once."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return call()
    import torch
    from accelerate import PartialState

    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():
        return call()


def _device() -> str:
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="roilab train", description="Train a model.", epilog=EPILOG)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    stages.add_parser("tiny", help="the shipped tiny model, from nothing (roilab train tiny --help)", add_help=False)
    stages.add_parser("photo", help="the model for photographs (roilab train photo --help)", add_help=False)
    for name, preset in PRESETS.items():
        stage = stages.add_parser(name, help=TEXTS[name], description=TEXTS[name], epilog=EPILOG)
        stage.add_argument("--data", type=Path, required=True, metavar="DIR", help="where the data sets lie")
        stage.add_argument(
            "--model", "--init", required=True, metavar="MODEL", help="what to start from: tiny, a folder (also a run's OUT), or a hub id"
        )  # fmt: skip
        stage.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="checkpoints, log and, in OUT/model, the result"
        )
        stage.add_argument(
            "--scale", choices=("paper", "tiny"), default="paper", help="whose defaults (default: %(default)s)"
        )
        _add_fields(stage.add_argument_group("the recipe (defaults of paper; tiny)"), preset("paper"), preset("tiny"))
    return parser


def _add_fields(group, paper: StageRecipe, tiny: StageRecipe):
    for field in dataclasses.fields(StageRecipe):
        one, two = (_shown(getattr(recipe, field.name)) for recipe in (paper, tiny))
        text = f"{field.metadata['help']} ({one if one == two else f'{one}; {two}'})".replace("%", "%%")
        if field.type == "bool":
            kind = dict(action=argparse.BooleanOptionalAction)
        else:
            kind = dict(zip(("type", "metavar"), _READERS[field.type]))
        group.add_argument(f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS, help=text, **kind)


def _shown(value) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={weight:g}" for name, weight in value.items())
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _mixture(text: str) -> dict[str, float]:
    pairs = [part.rpartition("=") if "=" in part else (part, "=", "1") for part in text.split(",")]
    try:
        return {name: float(weight) for name, _, weight in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected NAME=WEIGHT,NAME=WEIGHT") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def _optional(kind):
    def read(text: str):
        return None if text.lower() == "none" else kind(text)

    return read


_READERS = {
    "int": (int, "N"), "float": (float, "X"), "str": (str, "NAME"), "int | None": (_optional(int), "N"),
    "float | None": (_optional(float), "X"), "str | None": (_optional(str), "NAME"), "dict[str, float]": (_mixture, "NAME=X,…"),
    "tuple[str, ...]": (_names, "NAME,…"), "tuple[float, float]": (_numbers, "X,X"),
}  # fmt: skip
"""Type of a field -> how its option is read, and what stands for its value in the help."""
