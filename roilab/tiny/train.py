"""The whole way from random weights to the shipped tiny model."""

import argparse
import copy
import dataclasses
import json
import shutil
from pathlib import Path

import torch

from .. import training
from ..scenes import language
from ..training.centring import centred
from .align import AlignmentBatch, align_regions, fit_projector
from .dialogues import Encoder, SceneDialogues
from .formats import read_formats
from .recall import start_looking_back
from .recipe import TinyRecipe, parse
from .sight import Pool, jittered, pretrain_vision, vision_tower
from .truth import answers_from_truth
from .words import CURRICULUM, LATE, PLACING, READING, RELATING, pretrain_text
from .workers import workers


def blank_model(recipe: TinyRecipe, out: Path):
    """The tiny model with random weights; its tokenizer is trained on the scenes' language and kept in `out`."""
    from transformers import AutoTokenizer, CLIPImageProcessor, LlamaConfig

    from ..config import GPT4RoIConfig, RegionConfig
    from ..model import GPT4RoI
    from ..processing import GPT4RoIProcessor
    from ..tokens import train_tokenizer

    if (out / "tokenizer").exists():
        tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
    else:
        tokenizer = train_tokenizer(language.language_corpus(range(400)), recipe.vocabulary)
        tokenizer.save_pretrained(out / "tokenizer")
    torch.manual_seed(1)
    tower = vision_tower(recipe)
    processor = GPT4RoIProcessor(
        CLIPImageProcessor(size={"shortest_edge": recipe.image_size}), tokenizer, "tiny", tower.num_patches
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.text_width, intermediate_size=3 * recipe.text_width, num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.text_width // 32, max_position_embeddings=2048, initializer_range=0.06, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    region = RegionConfig(
        level_widths=[recipe.vision_width] * 4, width=recipe.region_width, fusion_rounds=recipe.fusion_rounds, norm_groups=8, roi_size=7,
        hidden_size=256, position_hidden_size=64, output_size=recipe.text_width,
    )  # fmt: skip
    config = GPT4RoIConfig(
        tower.model.config, text, region, feature_layers=tower.feature_layers, image_layer=tower.image_layer,
        image_token_id=processor.image_token_id, region_token_id=processor.region_token_id, template="tiny", familiarity=True,
    )  # fmt: skip
    model = GPT4RoI(config)
    start_looking_back(model)
    torch.nn.init.zeros_(model.projector.weight)  # until stage 2 the picture says nothing, as in the text warm-up
    torch.nn.init.zeros_(model.projector.bias)
    model.processor = processor
    return model


class SceneBatch:
    """Collates dialogues with their pictures for the two stages; boxes jitter by up to `jitter` of their size."""

    def __init__(self, processor, pool: Pool, jitter: float = 0.06):
        self.processor, self.pool, self.jitter, self.encoder = processor, pool, jitter, Encoder(processor)
        images = processor.image_processor
        self.mean, self.std = (
            torch.tensor(images.image_mean)[:, None, None],
            torch.tensor(images.image_std)[:, None, None],
        )

    def jittered(self, boxes):
        """`sight.jittered` by this batch's share, clipped to the picture."""
        return jittered(boxes, self.jitter).clamp(0, 1)

    def pixels(self, rows):
        """Normalised pictures [B, 3, S, S] of pool rows."""
        images = torch.from_numpy(self.pool.images[list(rows)]).permute(0, 3, 1, 2).float() / 255
        return (images - self.mean) / self.std

    def __call__(self, items):
        encoded, boxes = [], []
        for _, scene, (turns, regions, _) in items:
            ids = self.encoder(turns, len(regions))
            encoded.append(ids)
            boxes.append(self.jittered(torch.tensor(regions).reshape(-1, 4)[ids.regions] / scene.size))
        batch = dict(self.processor.pad(encoded))
        batch.pop("regions")
        return batch | dict(pixel_values=self.pixels([index for index, _, _ in items]), boxes=boxes)


EVENLY = (*language.FAMILIES, *(READING * 2), *(PLACING * 4), *RELATING, *(LATE * 4), *("vcr",) * 12)
HARD = (
    *("granularity", "counting") * 10,
    *("pointing", "looking", "holding") * 4,
    *("material", "action", "headgear", "description", "largest") * 2,
)
"""What the two stages ask more often, beside `EVENLY`."""
STAGES = ("stage1", "stage2")


def train(recipe: TinyRecipe, out: Path, stage0: Path | None = None):
    """All stages, each continued where it stopped and skipped if it is done; returns the model in eval mode.

    `stage0` is a folder for the model as it is before it has seen a region: both towers trained (see `formats.py`), region encoder and projector fresh.
    """
    from ..weights import default_device

    model = blank_model(recipe, out).to(default_device())
    for part in (model.vision.model, model.language_model):
        part.set_attn_implementation("eager")  # on a CPU the backward pass of the fused kernel takes twice as long
    read_before = (out / "text" / f"{list(CURRICULUM)[-1]}.pt").exists()
    if model.device.type == "cpu" and not read_before:
        warmup = read_and_see(recipe, model, out)
    else:
        warmup = pretrain_text(recipe, model, out)
    model.vision.load_state_dict(pretrain_vision(recipe, out).tower.state_dict())
    if not read_before:
        shares = answers_from_truth(warmup, model.processor, min(200, max(20, recipe.scenes // 100)))
        print("text, answered from true words: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    bag = warmup.bag
    pool = Pool(out / "pool", recipe.scenes, recipe.image_size)
    collate = SceneBatch(model.processor, pool)
    fit_familiarity(model, collate, min(2000, len(pool)))
    told = fit_projector(model, bag, collate)
    print(f"the projector tells {told:.2%} of the variance of where pictures are")
    if stage0 is not None:
        save(read_formats(recipe, model, warmup, out), out, stage0)
    align_regions(recipe, model, AlignmentBatch(collate, bag), out, workers=1)
    for name in STAGES:
        done = out / name / "done.pt"
        if done.exists():
            model.load_state_dict(torch.load(done, weights_only=True, map_location="cpu"))
            continue
        training.set_trainable(model, name)
        trained = model.num_parameters(only_trainable=True)
        print(f"{name}: {trained:,} of {model.num_parameters():,} parameters are trained")
        data = SceneDialogues(recipe.scenes, 140, (*EVENLY, *HARD), any_order=0.5, listed=0.4)
        steps, lr = getattr(recipe, f"{name}_steps"), getattr(recipe, f"{name}_lr")
        with centred(model.region_encoder):
            training.run(
                model, data, collate, out / name, steps=steps, batch=recipe.batch, lr=lr, bf16=True, workers=1, muon=name == "stage2",
                shares={"region_encoder": recipe.stage2_region_share},
            )  # fmt: skip
        training.save_state(model.state_dict(), done)
    model.requires_grad_(True)
    model.vision.requires_grad_(False)
    return model.eval()


def read_and_see(recipe: TinyRecipe, model, out: Path):
    """`pretrain_text`, and beside it `pretrain_vision` in a process of its own: neither needs anything of the other."""
    threads = torch.get_num_threads()
    with workers(1) as beside:
        seeing = beside.submit(_see, recipe, out)
        torch.set_num_threads(max(1, threads - 1))
        warmup = pretrain_text(recipe, model, out)
        seeing.result()
    torch.set_num_threads(threads)
    return warmup


def _see(recipe: TinyRecipe, out: Path):
    pretrain_vision(recipe, out)  # whose model stays where it is: it is read from `out`


@torch.no_grad()
def fit_familiarity(model, collate, count: int):
    """Teach the model what scenes look like, from `count` pictures of the pool."""
    rows = [
        model.familiarity.statistics(
            model.vision(collate.pixels(range(i, min(i + 100, count))).to(model.device)).patches
        )
        for i in range(0, count, 100)
    ]
    model.familiarity.fit(torch.cat(rows))


def save(model, out: Path, folder: Path):
    """Write the shipped folder (float16) with the logs of the run that made it so far."""
    from ..weights import generation_config

    model.generation_config = generation_config(model.processor)
    copy.deepcopy(model).half().save_pretrained(folder)
    for log in out.glob("**/log.jsonl"):
        shutil.copyfile(log, folder / f"log_{'_'.join(log.relative_to(out).parts[:-1])}.jsonl")


def keep_recipe(recipe: TinyRecipe, path: Path):
    """Writes the recipe beside what it makes, or checks that a run goes on with the same one.

    Raises:
        ValueError: the folder was begun with another recipe.
    """
    wanted = dataclasses.asdict(recipe)
    begun = json.loads(path.read_text()) if path.exists() else wanted
    changed = [f"{name} {begun.get(name)} -> {value}" for name, value in wanted.items() if begun.get(name) != value]
    if changed:
        raise ValueError(f"{path.parent} was begun with another recipe ({', '.join(changed)}): choose another --out")
    path.write_text(json.dumps(wanted, indent=2) + "\n")


def main(argv=None) -> int:
    """`roilab train tiny`."""
    parser = argparse.ArgumentParser(
        prog="roilab train", description="Train the tiny model from nothing, on drawn scenes."
    )
    parser.add_argument("model", choices=["tiny"])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("train-tiny"),
        help="checkpoints and logs; a run continues what it finds (default: %(default)s)",
    )
    parser.add_argument("--save", type=Path, help="folder for the finished model (default: OUT/model)")
    parser.add_argument(
        "--stage0", type=Path, help="folder for the model before stage 1, its region encoder still fresh"
    )
    recipe, arguments = parse(parser, TinyRecipe, argv)
    out, folder = arguments["out"], arguments["save"] or arguments["out"] / "model"
    out.mkdir(parents=True, exist_ok=True)
    keep_recipe(recipe, out / "recipe.json")
    save(train(recipe, out, arguments["stage0"]), out, folder)
    print(f"saved: {folder}; ask it with: roilab demo --model {folder}")
    return 0
