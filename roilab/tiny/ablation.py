"""Baselines and ablation: what the region token is worth beside other ways of telling a model where a region is, and what of it matters.

All arms (`arms.py`) begin from one stage 0 and take the same number of steps in stage 2. Stage 0 is that of the tiny model (`train.py`), and
some more text in which regions are coordinates (`coordinates.py`); the projector is fitted, as the paper's comes from LLaVA, and every region
encoder begins fresh. Arms with regions then train it alone in stage 1, by what is there to be read in a box (`align.py`); arms without have
nothing to train there. The models with planted defects begin as the finished tiny model and take stage 2 alone, longer.
"""

import argparse
import copy
import dataclasses
import functools
import json
import time
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import training
from ..plotting.style import SAVED_DPI
from ..training.centring import centred
from .ablation_table import figure, table
from .align import AlignmentBatch, align_regions
from .arms import MODELS, SEEDS, ArmBatch, build, in_order, lacking
from .dialogues import SceneDialogues
from .keeping import Snapshots, keep
from .recipe import TinyRecipe, parse
from .sight import Pool
from .truth import answers_from_truth
from .words import PLACING, TALKING, TextWarmup
from .workers import workers

DRILL = (*(PLACING * 8), *(("leftmost", "largest") * 3), *TALKING)
"""What an arm that is `drilled` is asked: comparisons above all, and something of everything."""


@dataclass
class AblationRecipe:
    """Schedule of the ablation: runs take two to ten minutes on one CPU core, evaluation on `scenes` included."""

    reading_steps: int = 1000
    stage1_steps: int = 160
    stage1_lr: float = 4e-3
    stage2_steps: int = 180
    stage2_lr: float = 1e-3
    stage2_region_share: float = 1.0
    defect_steps: int = 450
    drill_steps: int = 600
    drill_lr: float = 3e-3
    batch: int = 16
    words: int = 60
    scenes: int = 200


def run_arm(
    name: str, seed: int, recipe: AblationRecipe, tiny: TinyRecipe, source: Path, out: Path, finished="tiny"
) -> dict:
    """Trains and evaluates one arm with one seed, or reads what it did: steps go on where they stopped, in `out`/NAME-SEED.

    Of the first run with region tokens the region encoder is kept on its way (`Snapshots`).
    """
    from ..evaluation import evaluate_scenes
    from ..weights import load
    from .train import EVENLY, SceneBatch

    folder, arm = out / f"{name.replace(' ', '-')}-{seed}", MODELS[name]
    done = folder / "result.json"
    if done.exists():
        return json.loads(done.read_text())
    begun, resumed = time.time(), folder.exists()
    begins = load(finished if arm.finished else out / "stage0", device="cpu", dtype=torch.float32)
    model = build(begins, arm, seed)
    pictures = SceneBatch(model.processor, Pool(source / "pool", tiny.scenes, tiny.image_size))
    watched = (name, seed) == ("region token", 0)
    first, second = ([Snapshots(model.region_encoder, folder / "snapshots", s)] * watched for s in ("stage1", "stage2"))
    if arm.stage1 and arm.present == "regions":
        align(model, arm, seed, recipe, tiny, pictures, out, folder, first)
    training.set_trainable(model, "stage2")
    for part in lacking(arm) if arm.present == "regions" and not arm.drilled else ["region_encoder"]:
        model.get_submodule(part).requires_grad_(False)
    families, words, steps, lr = EVENLY, recipe.words, recipe.stage2_steps, recipe.stage2_lr
    if arm.finished:
        words, steps = 1, recipe.defect_steps
    if arm.drilled:
        families, steps, lr = DRILL, recipe.drill_steps, recipe.drill_lr
    data = SceneDialogues(tiny.scenes, words, families, any_order=0.5, listed=0.2)
    with centred(model.region_encoder):
        training.run(
            model, data, ArmBatch(pictures, arm), folder / "stage2", steps=steps, batch=recipe.batch, seed=seed,
            lr=lr, bf16=True, muon=True, shares={"region_encoder": recipe.stage2_region_share}, save_every=40, log_every=10,
            callbacks=second,
        )  # fmt: skip
    trained = time.time() - begun
    result = evaluate_scenes(model.eval(), recipe.scenes, seed=1, families=TALKING, arm=arm.present)
    result |= {
        "arm": name,
        "training_seed": seed,
        "minutes": None if resumed else trained / 60,
        "minutes_with_evaluation": None if resumed else (time.time() - begun) / 60,
    }
    copy.deepcopy(model).half().save_pretrained(folder / "model")
    done.write_text(json.dumps(result, indent=1) + "\n")
    return result


def align(model, arm, seed: int, recipe: AblationRecipe, tiny: TinyRecipe, pictures, out: Path, folder: Path, kept):
    """Stage 1: the region encoder alone, as in the tiny model's alignment; the encoders that `kept` has seen on the way are fitted, too."""
    warmup = TextWarmup(model)
    read = torch.load(out / "reading" / "coordinates.pt", weights_only=True, map_location="cpu")
    warmup.load_state_dict(read, strict=False)
    collate = AlignmentBatch(pictures, warmup.bag, functools.partial(in_order, order=arm.order))
    steps, lr = recipe.stage1_steps, recipe.stage1_lr
    schedule = dataclasses.replace(tiny, alignment_steps=steps, alignment_batch=recipe.batch, alignment_lr=lr)
    align_regions(schedule, model, collate, folder, fitted=450, seed=seed, callbacks=kept, save_every=50)
    for name in lacking(arm):  # the fit of positions gave some to an arm that lacks them
        for each in model.get_submodule(name).parameters():
            torch.nn.init.zeros_(each)
    for each in kept if not (folder / "stage2").exists() else ():
        each.fit(schedule, model, collate)


def prepare(tiny: TinyRecipe, recipe: AblationRecipe, source: Path, out: Path):
    """Writes the stage 0 of all arms to `out`/stage0, from the finished parts of `roilab train tiny --out SOURCE`.

    Raises:
        ValueError: the vision or the text part of the run has not ended.
    """
    from .coordinates import CoordinateReader, fit_to_patches, read_coordinates
    from .sight import pretrain_vision
    from .train import SceneBatch, blank_model, fit_familiarity
    from .words import CURRICULUM, pretrain_text

    if (out / "stage0" / "model.safetensors").exists():
        return
    parts = source / "vision" / "vision.pt", source / "text" / f"{list(CURRICULUM)[-1]}.pt"
    missing = [str(path) for path in parts if not path.exists()]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)}: run `roilab train tiny --out {source}` first")
    model = blank_model(tiny, source)
    model.vision.load_state_dict(pretrain_vision(tiny, source).tower.state_dict())
    warmup = pretrain_text(tiny, model, source)
    for part in (model.vision.model, model.language_model):
        part.set_attn_implementation("eager")
    read_coordinates(model, warmup, min(tiny.scenes, 6000), out / "reading", recipe.reading_steps)
    shares = answers_from_truth(warmup, model.processor, min(100, max(20, tiny.scenes // 100)), CoordinateReader)
    told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    print(f"stage 0, answered by coordinates from patches that say the truth: {told}")
    pictures = SceneBatch(model.processor, Pool(source / "pool", tiny.scenes, tiny.image_size))
    fit_familiarity(model, pictures, min(2000, tiny.scenes))
    told = fit_to_patches(model, warmup.bag, pictures)
    print(f"stage 0: the projector tells {told:.1%} of the variance of what covers patches")
    copy.deepcopy(model).half().save_pretrained(out / "stage0")


def main(argv=None) -> int:
    """`roilab train ablation`."""
    from .train import keep_recipe

    parser = argparse.ArgumentParser(
        prog="roilab train", description="Baselines and ablation of the tiny model, from one stage 0."
    )
    parser.add_argument("ablation", choices=["ablation"])
    parser.add_argument(
        "--source", type=Path, default=Path("train-tiny"), help="a run of `roilab train tiny` (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("ablation"), help="runs; those that ended are kept (default: %(default)s)"
    )
    parser.add_argument(
        "--arms", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="ARM", help=", ".join(MODELS)
    )
    parser.add_argument(
        "--finished",
        default="tiny",
        help="the model in which defects are planted: tiny or a folder (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one core each (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument(
        "--readme", type=Path, help="file whose lines between <!-- ablation --> and <!-- /ablation --> become the table"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        help="folder for small weights of some models and for snapshots: roilab/assets/tiny-variants",
    )
    parser.add_argument("--plot", type=Path, help="file for the figure, such as ablation.png")
    recipe, arguments = parse(parser, AblationRecipe, argv)
    source, out = arguments["source"], arguments["out"]
    if not (source / "recipe.json").exists():
        raise ValueError(
            f"{source} holds no run of `roilab train tiny`: make one with `roilab train tiny --out {source}`"
        )
    tiny = TinyRecipe(**json.loads((source / "recipe.json").read_text()))
    out.mkdir(parents=True, exist_ok=True)
    keep_recipe(recipe, out / "recipe.json")
    prepare(tiny, recipe, source, out)
    wanted = [(name, seed) for seed in range(SEEDS) for name in arguments["arms"] if seed < MODELS[name].seeds]
    results = []
    with workers(arguments["workers"]) as executor:
        common = recipe, tiny, source, out, arguments["finished"]
        running = [executor.submit(run_arm, name, seed, *common) for name, seed in wanted]
        for future in as_completed(running):
            results.append(future.result())
            print(
                f"{len(results)} of {len(wanted)}: {results[-1]['arm']}, seed {results[-1]['training_seed']}",
                flush=True,
            )
    results.sort(key=lambda each: (list(MODELS).index(each["arm"]), each["training_seed"]))
    text = table(results)
    print(text)
    if arguments["json"]:
        arguments["json"].write_text(json.dumps(results, indent=1) + "\n")
    if arguments["plot"]:
        figure(results).savefig(arguments["plot"], dpi=SAVED_DPI)
    if arguments["keep"]:
        keep(out, arguments["keep"])
    if arguments["readme"]:
        from ..files import replace_between

        replace_between(arguments["readme"], "ablation", text)
    return 0
