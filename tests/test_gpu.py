"""What needs a CUDA device: the methods of `roilab.interpret` give there what they give on a CPU."""

import pytest
import torch

import roilab
from roilab import interpret
from roilab.interpret.scenes import COLOUR, world

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MAPS = [name for name in interpret.METHODS if name != "Shapley values"]  # its orders are drawn by the device


@pytest.fixture(scope="module")
def scene():
    return world(1, 3)[0]


@pytest.fixture(scope="module")
def both():
    """The tiny model on the CPU and on the GPU, in float32."""
    return [roilab.load("tiny", device=device, dtype=torch.float32) for device in ("cpu", "cuda")]


def target(model, scene):
    boxes = [item.box for item in scene.objects[:2]]
    return interpret.Target.of(roilab.Chat(model, scene.image), COLOUR + " There is <region2>, too.", boxes)


def test_it_answers_as_on_the_cpu(both, scene):
    cpu, gpu = (target(model, scene) for model in both)
    assert cpu.answer == gpu.answer and cpu.ids == gpu.ids


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_those_of_the_cpu(both, scene, name):
    cpu, gpu = (interpret.METHODS[name](model, target(model, scene)).map.cpu() for model in both)
    scale = cpu.abs().max()
    torch.testing.assert_close(gpu / scale, cpu / scale, atol=5e-3, rtol=0)


def test_interventions_are_those_of_the_cpu(both, scene):
    found = []
    for model in both:
        explained = target(model, scene)
        cut = interpret.attention_knockout(model, explained, "region1", controls=0)
        tests = interpret.region_tests(model, explained)
        moved = interpret.box_sensitivity(model, explained, steps=3)
        anatomy = interpret.region_anatomy(model, explained)
        assert anatomy.difference < 1e-4
        found.append(torch.tensor([cut.drop, tests.token_drop, tests.picture_drop, *moved.shifted.flatten().tolist()]))
    torch.testing.assert_close(*found, atol=1e-2, rtol=1e-3)


def test_the_lens_says_what_it_says_on_the_cpu(both, scene):
    cpu, gpu = (interpret.logit_lens(model, target(model, scene)) for model in both)
    assert cpu.to_dict().keys() == gpu.to_dict().keys()


def test_every_method_runs_in_half_precision(scene):
    model = roilab.load("tiny", device="cuda", dtype=torch.bfloat16)
    explained = target(model, scene)
    for name in MAPS:
        scores = interpret.METHODS[name](model, explained)
        assert torch.isfinite(scores.map).all(), name
        assert scores.origin["dtype"] == "bfloat16"
    assert interpret.region_tests(model, explained).verdict
