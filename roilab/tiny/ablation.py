"""Baselines and ablation: what the region token is worth beside other ways of telling a model where a region is, and what of it matters.

All arms (`arms.py`) begin from one stage 0 and take the same number of steps in stage 2. Stage 0 is that of the tiny model (`train.py`), and
some more text in which regions are coordinates (`coordinates.py`); the projector is fitted, as the paper's comes from LLaVA, and every region
encoder begins fresh. Arms with regions then train it alone in stage 1; arms without have nothing to train there. The models with planted
defects begin as the finished tiny model and take stage 2 alone.
"""

import argparse
import copy
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from .. import training
from ..plotting.style import SAVED_DPI
from ..training.centring import centred, take_out_means
from .ablation_table import figure, table
from .arms import MODELS, SEEDS, ArmBatch, build, lacking
from .dialogues import SceneDialogues
from .recipe import TinyRecipe, parse
from .sight import Pool


@dataclass
class AblationRecipe:
    """Schedule of the ablation; meant for runs of at most eight minutes on one CPU core, which is yet to be measured."""

    reading_steps: int = 400
    stage1_steps: int = 150
    stage1_lr: float = 2e-3
    stage2_steps: int = 150
    stage2_lr: float = 1e-3
    batch: int = 16
    words: int = 60
    scenes: int = 400


class Snapshots(TrainerCallback):
    """Keeps a region encoder as it is before a stage, after 1, 4, 16, ... steps, and at its end: `folder`/STAGE-STEP.safetensors, float16."""

    def __init__(self, region_encoder, folder: Path, stage: str):
        self.region_encoder, self.folder, self.stage = region_encoder, folder, stage

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0 and not self.folder.exists():  # a later stage begins where the one before has ended
            self._keep(0)

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        if step == state.max_steps or step in (4**k for k in range(10)):
            self._keep(step)

    def _keep(self, step: int):
        take_out_means(self.region_encoder)
        tensors = {name: each.half().contiguous() for name, each in self.region_encoder.state_dict().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, self.folder / f"{self.stage}-{step:04}.safetensors")


def run_arm(
    name: str, seed: int, recipe: AblationRecipe, scenes: int, source: Path, out: Path, finished="tiny"
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
    torch.set_num_threads(1)
    begun = time.time()
    begins = load(finished if arm.finished else out / "stage0", device="cpu", dtype=torch.float32)
    model = build(begins, arm, seed)
    pictures = SceneBatch(model.processor, Pool(source / "pool", scenes, model.config.vision_config.image_size))
    collate, data = ArmBatch(pictures, arm), SceneDialogues(scenes, recipe.words, EVENLY, any_order=0.5, listed=0.2)
    for stage in ("stage1", "stage2"):
        if stage == "stage1" and not (arm.stage1 and arm.present == "regions"):
            continue
        training.set_trainable(model, stage)
        for part in lacking(arm) if arm.present == "regions" else ["region_encoder"]:
            model.get_submodule(part).requires_grad_(False)
        ended = folder / f"{stage}.pt"
        if ended.exists():
            model.load_state_dict(torch.load(ended, weights_only=True, map_location="cpu"))
            continue
        with centred(model.region_encoder):
            training.run(
                model, data, collate, folder / stage, steps=getattr(recipe, f"{stage}_steps"), batch=recipe.batch, seed=seed,
                lr=getattr(recipe, f"{stage}_lr"), bf16=True, muon=stage == "stage2", save_every=25, log_every=10,
                callbacks=[Snapshots(model.region_encoder, folder / "snapshots", stage)] if (name, seed) == ("region token", 0) else (),
            )  # fmt: skip
        training.save_state(model.state_dict(), ended)
    trained = time.time() - begun
    result = evaluate_scenes(model.eval(), recipe.scenes, seed=1, arm=arm.present)
    result |= {
        "arm": name,
        "training_seed": seed,
        "minutes": trained / 60,
        "minutes_with_evaluation": (time.time() - begun) / 60,
    }
    copy.deepcopy(model).half().save_pretrained(folder / "model")
    done.write_text(json.dumps(result, indent=1) + "\n")
    return result


def prepare(tiny: TinyRecipe, recipe: AblationRecipe, source: Path, out: Path):
    """Writes the stage 0 of all arms to `out`/stage0, from the finished parts of `roilab train tiny --out SOURCE`.

    Raises:
        ValueError: the vision or the text part of the run has not ended.
    """
    from .coordinates import fit_to_patches, read_coordinates
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
    with ProcessPoolExecutor(arguments["workers"], mp_context=multiprocessing.get_context("spawn")) as executor:
        common = recipe, tiny.scenes, source, out, arguments["finished"]
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
    if arguments["readme"]:
        from ..files import replace_between

        replace_between(arguments["readme"], "ablation", text)
    return 0
