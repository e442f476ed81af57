"""The four region tests and the report: each score against a pass made by hand, verdicts against models with known defects."""

import dataclasses
import math
import random

import pytest
import torch
from PIL import Image

import roilab
from roilab import Chat
from roilab.interpret.passes import prepare, score, splice
from roilab.interpret.regions import BOTH, PICTURE, TEXT, TOKEN, Bank, RegionTests, region_tests, token_bank
from roilab.interpret.report import RegionReport, region_report
from roilab.interpret.target import Target
from roilab.scenes import language

BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]


@pytest.fixture(scope="module")
def explained(_session_model, picture):
    return Target.of(Chat(_session_model, picture), "Is <region1> left of <region2>?", BOXES, answer="yes it is")


@pytest.fixture(scope="module")
def bank(_session_model):
    generator = torch.Generator().manual_seed(0)
    pictures = [Image.effect_noise((40, 40), 60 + 10 * i).convert("RGB") for i in range(2)]
    boxes = [[10 * torch.rand(2, generator=generator).tolist()[0], 2, 30, 35], [5, 5, 20, 20]]
    return token_bank(_session_model, [(picture, boxes) for picture in pictures])


def scored(model, explained, token, region=1):
    inputs = prepare(model, explained)
    regions = inputs.regions.clone()
    regions[0, explained.index(region)] = token
    return score(model, splice(model, inputs, regions=regions), explained).item()


@torch.no_grad()
def test_every_test_is_the_pass_that_it_says(model, explained, bank, picture):
    found = region_tests(model, explained, 1, bank=bank, foreign=2, seed=3)
    inputs, encoder = prepare(model, explained), model.region_encoder
    token = inputs.regions[0, explained.index(1)]
    position = encoder.output.weight @ encoder.position(inputs.boxes[:1])[0]
    assert found.score == pytest.approx(score(model, splice(model, inputs), explained).item(), abs=1e-3)
    assert found.mean == pytest.approx(scored(model, explained, bank.tokens.mean(0)), abs=1e-3)
    assert found.mean_content == pytest.approx(scored(model, explained, bank.content.mean(0) + position), abs=1e-3)
    assert found.mean_position == pytest.approx(
        scored(model, explained, token - position + bank.position.mean(0)), abs=1e-3
    )
    others = [scored(model, explained, each) for each in bank.tokens]
    assert len(found.foreign) == 2 and all(min(abs(each - other) for other in others) < 1e-3 for each in found.foreign)
    swapped = splice(model, inputs, regions=inputs.regions.flip(1))
    assert found.partner == 2 and found.exchanged == pytest.approx(score(model, swapped, explained).item(), abs=1e-3)
    assert region_tests(model, explained, 1, bank=bank, foreign=2, seed=3).to_dict() == found.to_dict()


@torch.no_grad()
def test_pixels_are_taken_out_of_the_image_tokens_alone(model, bank):
    """A picture that is one colour outside the box: without the box it says nothing, and the region's token stays."""
    image = Image.new("RGB", (64, 48), (200, 30, 30))
    box = (16, 12, 48, 36)
    image.paste(Image.effect_noise((32, 24), 90).convert("RGB"), box[:2])
    explained = Target.of(Chat(model, image), "What is <region1>?", [box], answer="yes")
    found = region_tests(model, explained, bank=bank)
    pixels = model.processor.preprocess(image)
    from roilab.interpret.pictures import baseline_pixels

    covered = pixels.clone()
    covered[..., 8:24, 8:24] = baseline_pixels(model, pixels, "blur")[..., 8:24, 8:24]
    hidden = prepare(model, explained, pixel_values=covered)
    wanted = score(model, splice(model, prepare(model, explained), image=hidden.image), explained).item()
    assert found.without_pixels == pytest.approx(wanted, abs=1e-3)
    assert math.isnan(found.exchanged) and found.partner is None


def test_a_bank_splits_tokens_into_content_and_position(model, bank):
    assert bank.content.shape == bank.position.shape == (4, model.config.text_config.hidden_size)
    torch.testing.assert_close(bank.position[0], bank.position[2])  # the same box in two pictures
    assert (bank.content[0] - bank.content[2]).abs().max() > 1e-4
    assert isinstance(token_bank(model), Bank) and len(token_bank(model).tokens) > 40  # by default drawn scenes


@pytest.mark.parametrize(
    ("foreign", "without_pixels", "verdict"),
    [(-5.0, -0.1, TOKEN), (-0.2, -5.0, PICTURE), (-5.0, -5.0, BOTH), (-0.2, -0.1, TEXT), (-0.1 - 0.8, -0.1, TOKEN)],
)
def test_verdicts(explained, foreign, without_pixels, verdict):
    """A drop of more than log 2 counts, the larger of the mean token's and the foreign tokens'."""
    tests = RegionTests(explained, 1, -0.1, -0.1, -0.1, -0.1, float("nan"), without_pixels, [foreign, foreign])
    assert tests.verdict == verdict == tests.to_dict()["verdict"]
    assert dataclasses.replace(tests, mean=foreign, foreign=[-0.1]).verdict == verdict


@pytest.mark.parametrize(
    ("numbers", "finding"),
    [
        ((9, 3, 0, 3, 1.0), "uses its region tokens"),
        ((9, 3, 0, 0.1, 1.0), "ignores the order of regions"),
        ((9, 3, 0, 3, 0.1), "swaps regions 1 and 2"),
        ((0.1, 0, 0, 3, 1.0), "uses only positions"),
        ((0.1, 0, 3, 0.1, 0.5), "reads the picture, not the regions"),
        ((0.1, 0, 0, 0.1, 0.5), "reads only the text"),
        ((9, 3, 0, 3, float("nan")), "uses its region tokens"),
    ],
)
def test_findings(numbers, finding):
    assert RegionReport(8, *map(float, numbers)).finding == finding


def pairs(count, first=20_000):
    """Pictures of validation scenes with two boxes that are apart."""
    found = []
    while len(found) < count:
        scene = roilab.scenes.sample(language.seed_of("val", first))
        rng, first = random.Random(first), first + 1
        items = rng.sample(list(scene.objects), len(scene.objects))
        other = next((each for each in items[1:] if abs(each.centre[0] - items[0].centre[0]) > 0.06 * scene.size), None)
        if other is not None:
            found.append((scene.image, [items[0].box, other.box]))
    return found


DEFECTS = {
    "tiny": "uses its region tokens",
    "tiny-ignores-order": "ignores the order of regions",
    "tiny-only-positions": "uses only positions",
    "tiny-only-text": "reads only the text",
    "tiny-swaps-1-and-2": "swaps regions 1 and 2",
}


@pytest.mark.parametrize(
    ("name", "finding"),
    [pytest.param(*each, marks=[] if "only" in each[0] else pytest.mark.slow) for each in DEFECTS.items()],
)
def test_planted_defects_are_named(name, finding):
    model = roilab.load(name)
    report = region_report(model, pairs(8))
    assert report.finding == finding, report
    assert report.pictures == 8 == len(report.tests) and report.to_dict()["finding"] == finding


def test_a_trained_model_uses_its_region_token():
    model, scene = roilab.load("tiny"), roilab.scenes.sample(7)
    item = scene.objects[0]
    explained = Target.of(Chat(model, scene.image), "What colour is <region1>?", [item.box], about=item.colour)
    assert region_tests(model, explained).verdict == TOKEN
    ignorant = roilab.load("tiny-shuffled-regions")
    explained = Target.of(Chat(ignorant, scene.image), "What colour is <region1>?", [item.box])
    assert region_tests(ignorant, explained).verdict in (TEXT, PICTURE)


def test_mistakes_name_both_sides(model, explained, picture, bank):
    for call, words in {
        lambda: region_tests(
            model, explained, 3, bank=bank
        ): "region3 is not shown to the model; the regions are region1, region2",
        lambda: region_tests(model, explained, 1, partner=3, bank=bank): "region3 is not shown to the model",
        lambda: region_report(model, []): "0 pictures, expected at least 1",
        lambda: region_report(model, [(picture, BOXES[:1])]): "1 boxes, expected 2 for each picture",
        lambda: region_report(model, [(picture, [BOXES[0], BOXES[0]])]): "neither is left of the other",
    }.items():
        with pytest.raises(ValueError, match=words):
            call()
