"""Recipes: the paper's numbers, and mistakes that are found when a recipe is made."""

import dataclasses
import json
import subprocess
import sys

import pytest

from roilab.training import StageRecipe, stage1, stage2, stage3_vcr
from roilab.training.recipes import train_only

MIXTURE = {"coco": 1.0}


def test_presets_have_the_published_numbers():
    one, two, three = stage1(), stage2(), stage3_vcr()
    assert one.trainable == ("region_encoder",)
    assert one.mixture == {"coco": 1, "refcoco": 1, "refcoco+": 1}
    assert (one.epochs, one.steps, one.lr, one.batch_size, one.warmup_ratio, one.warmup_steps) == (
        2,
        None,
        2e-5,
        4,
        0.003,
        0,
    )
    assert one.weight_decay == 0.01 and one.augment
    assert two.trainable == three.trainable == ("region_encoder", "projector", "language_model")
    assert set(two.mixture) == {"refcocog", "flickr30k", "vg", "llava", "vcr_full", "vcr_single", "vcr_multi"}
    assert (two.epochs, two.lr, two.batch_size, two.warmup_steps, two.weight_decay) == (2, 2e-5, 16, 3000, 0)
    assert two.gradient_checkpointing and not two.four_choices
    assert three.four_choices and three.mixture == {"vcr_full": 1}
    for recipe in (one, two, three):
        assert recipe.precision == "bf16" and recipe.max_length == 2048
    assert "not publish" in stage3_vcr.__doc__  # its schedule is ours, and says so


@pytest.mark.parametrize("preset", [stage1, stage2, stage3_vcr])
def test_tiny_presets_differ_in_numbers_alone(preset):
    paper, tiny = preset(), preset("tiny")
    assert tiny.trainable == paper.trainable and tiny.four_choices == paper.four_choices
    assert list(tiny.mixture) == list(paper.mixture) and set(paper.mixture.values()) == {1}
    assert tiny.steps is not None and tiny.epochs is None
    with pytest.raises(ValueError, match="scale is 'huge', expected paper or tiny"):
        preset("huge")


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(steps=None), "epochs None, steps None: give one of them"),
        (dict(epochs=1), "epochs 1, steps 10: give one of them"),
        (dict(steps=0), "steps is 0, expected more than 0"),
        (dict(lr=float("nan")), "lr is nan"),
        (dict(batch_size=0), "batch_size is 0, expected at least 1"),
        (dict(batch_size=6, accumulation=4), "batch_size 6 cannot be cut into 4 pieces"),
        (dict(warmup_steps=3, warmup_ratio=0.1), "warmup_steps 3, warmup_ratio 0.1: give one of them"),
        (dict(warmup_ratio=1.5), "warmup_ratio is 1.5"),
        (dict(betas=(0.9, 1.0)), r"betas is \(0.9, 1.0\)"),
        (dict(precision="int8"), "precision is 'int8', expected bf16 or fp16 or float32"),
        (dict(load_in="2bit"), "load_in is '2bit', expected 4bit, 8bit or None"),
        (dict(mixture={}), "mixture is {}"),
        (dict(mixture={"coco": 0.0}), "mixture is {'coco': 0.0}, expected data sets with weights above 0"),
        (dict(trainable=()), r"trainable is \(\)"),
        (dict(lora_rank=8), "lora_rank 8, but language_model is not among the trainable region_encoder"),
        (dict(load_in="4bit", trainable=("language_model",)), "load_in 4bit freezes the language model, but it is trainable: use lora_rank"),
        (dict(load_in="8bit", precision="float32"), "load_in 8bit needs precision bf16 or fp16, not float32"),
        (dict(load_in="8bit", fsdp=True), "load_in 8bit together with fsdp"),
        (dict(centred_cells=True, fsdp=True), "centred_cells together with fsdp"),
        (dict(reuse_prefix=True, trainable=("projector",)), "region_encoder alone is trained, not projector"),
        (dict(reuse_prefix=True, gradient_checkpointing=True), "reuse_prefix and gradient_checkpointing"),
        (dict(cache_features=True, trainable=("vision",)), "cache_features, but vision is trainable"),
        (dict(cache_features=True, augment=True), "cache_features and augment"),
        (dict(keep=0), "keep is 0"),
    ],
)  # fmt: skip
def test_mistakes_are_found_when_the_recipe_is_made(changes, words):
    usual = dict(mixture=MIXTURE, steps=10)
    StageRecipe(**usual)
    with pytest.raises(ValueError, match=words):
        StageRecipe(**usual | changes)


def test_changes_take_the_place_of_what_they_exclude():
    recipe = stage2(epochs=1, warmup_ratio=0.1)
    assert (recipe.epochs, recipe.warmup_ratio, recipe.warmup_steps) == (1, 0.1, 0)
    recipe = recipe.replace(steps=20)
    assert (recipe.epochs, recipe.steps) == (None, 20)
    assert recipe.replace(epochs=3).steps is None
    with pytest.raises(ValueError, match="epochs 1, steps 2"):
        recipe.replace(epochs=1, steps=2)
    with pytest.raises(ValueError, match="a recipe has no learning_rate"):
        recipe.replace(learning_rate=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.lr = 1.0


def test_a_recipe_survives_json():
    recipe = stage1(betas=(0.9, 0.98))
    assert StageRecipe(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


def test_steps_of_a_run():
    recipe = StageRecipe(mixture=MIXTURE, epochs=2, batch_size=4)
    assert recipe.optimizer_steps(10) == 5
    assert recipe.optimizer_steps(11) == 6  # 22 items, the last step filled up
    assert recipe.replace(epochs=0.5).optimizer_steps(10) == 2
    assert recipe.replace(steps=7).optimizer_steps(10) == 7


def test_submodules_at_any_depth_can_be_trained(model):
    before = {name: each.requires_grad for name, each in model.named_parameters()}
    try:
        count = train_only(model, ["projector", "language_model.model.layers.1"])
        learning = {name for name, each in model.named_parameters() if each.requires_grad}
        assert all(name.startswith(("projector.", "language_model.model.layers.1.")) for name in learning)
        assert count == sum(
            p.numel() for m in (model.projector, model.language_model.model.layers[1]) for p in m.parameters()
        )
    finally:
        for name, each in model.named_parameters():
            each.requires_grad_(before[name])


def test_recipes_need_no_heavy_imports():
    code = "import roilab.training, sys; roilab.training.stage1(); print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
