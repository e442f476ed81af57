"""Numbers beside the pictures: against curves and shares computed by hand."""

import dataclasses
import json

import pytest
import torch
from conftest import small_model
from PIL import ImageOps

from roilab import Chat
from roilab.interpret import faithfulness
from roilab.interpret.attention import attention_map
from roilab.interpret.faithfulness import (
    centre_map,
    deletion_insertion,
    energy_in_region,
    patch_map,
    pointing_game,
)
from roilab.interpret.pictures import baseline_pixels
from roilab.interpret.results import Scores
from roilab.interpret.sanity import Sanity, randomised, rank_correlation, sanity_checks
from roilab.interpret.target import Target

BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]


@pytest.fixture(scope="module")
def explained(_session_model, picture):
    return Target.of(Chat(_session_model, picture), "Is <region1> left of <region2>?", BOXES, answer="yes it is")


def scores(model, explained, image):
    positions = torch.zeros(len(explained.ids))
    positions[explained.positions("image")] = image.flatten()
    return Scores("by hand", explained, positions, model.vision.grid)


def test_deletion_and_insertion_follow_the_order_of_the_map(model, explained, monkeypatch):
    """The model makes way for one that counts uncovered patches with weights: every step can be computed by hand."""
    pixels = model.processor.preprocess(explained.image)
    blurred = baseline_pixels(model, pixels, "blur")
    weights = torch.arange(16).float().view(4, 4).flip(0) / 120  # they add up to 1

    def forward(pictures):
        tiles = pictures.reshape(len(pictures), 3, 4, 8, 4, 8)
        original = (tiles == pixels.reshape(1, 3, 4, 8, 4, 8)).all(5).all(3).all(1)  # [B, 4, 4]
        assert ((tiles == blurred.reshape(1, 3, 4, 8, 4, 8)).all(5).all(3).all(1) ^ original).all()
        return (original * weights).sum((1, 2)).clamp_min(1e-12).log()

    monkeypatch.setattr(faithfulness, "from_pixels", lambda *given: forward)
    found = deletion_insertion(model, scores(model, explained, weights), steps=4, batch=3)
    largest = weights.flatten().sort(descending=True).values
    wanted = torch.tensor([largest[4 * k :].sum() for k in range(5)])
    torch.testing.assert_close(torch.tensor(found.deletion["method"]), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(found.insertion["method"]), 1 - wanted, atol=1e-5, rtol=1e-4)
    deletion, insertion = found.areas["method"]
    assert deletion == pytest.approx(((wanted[1:] + wanted[:-1]) / 2).mean().item(), abs=1e-5)
    assert insertion == pytest.approx(1 - deletion, abs=1e-5)
    assert found.areas["random"][0] == pytest.approx(0.5, abs=0.1)
    assert deletion < found.areas["random"][0] < found.areas["random"][1] + 0.2 < insertion + 0.2
    middle = [5, 6, 9, 10]
    assert found.deletion["centre"][1] == pytest.approx(1 - weights.flatten()[middle].sum().item(), abs=1e-5)
    assert json.loads(json.dumps(found.to_dict()))["shares"] == [0, 0.25, 0.5, 0.75, 1]


def test_curves_begin_with_the_picture_and_end_with_the_covered_one(model, explained):
    found = deletion_insertion(model, attention_map(model, explained), steps=4)
    for name in ("method", "random", "centre"):
        assert found.deletion[name][0] == pytest.approx(found.insertion[name][-1], rel=1e-3)
        assert found.deletion[name][-1] == pytest.approx(found.insertion[name][0], rel=1e-3)
    assert deletion_insertion(model, attention_map(model, explained), steps=4).to_dict() == found.to_dict()


def test_pointing_and_energy(model, explained):
    image = torch.zeros(4, 4)
    image[1, 2], image[3, 0], image[0, 0] = 3, 1, -9
    found = scores(model, explained, image)
    assert pointing_game(found, (32, 12, 48, 24)) and not pointing_game(found, (0, 30, 20, 48))
    assert energy_in_region(found, (32, 12, 48, 24)) == pytest.approx(0.75)
    assert energy_in_region(found, (0, 0, 64, 48)) == 1
    assert energy_in_region(scores(model, explained, -image.abs()), (0, 0, 64, 48)) != energy_in_region(
        found, (0, 0, 64, 48)
    )


def test_pixels_become_patches(model, explained):
    pixels = torch.arange(1024.0).view(32, 32)
    found = Scores("by hand", explained, None, model.vision.grid, pixels)
    torch.testing.assert_close(patch_map(found, (4, 4))[1, 2], pixels[8:16, 16:24].mean())
    assert centre_map((4, 6)).flatten().argmax() in (8, 9, 14, 15)


def test_rank_correlation():
    one = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert rank_correlation(one, one**3) == pytest.approx(1) and rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(one, torch.ones(2, 2)) == 0
    # by hand: ranks 1 2 3 4 and 1.5 1.5 4 3: covariance 4, spreads sqrt(5) and sqrt(4.5)
    tied = torch.tensor([[1.0, 1.0], [9.0, 5.0]])
    assert rank_correlation(one, tied) == pytest.approx(3.5 / (5**0.5 * 4.5**0.5))
    with pytest.raises(ValueError, match=r"maps of \[2, 2\] and \[4\] cannot be compared"):
        rank_correlation(one, torch.ones(4))


def test_cascading_randomisation_begins_at_the_output(picture):
    model = small_model()
    layers = len(model.language_model.model.layers)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    twin = randomised(model, share=1 / (layers + 1), seed=1)
    changed = {name for name, each in twin.state_dict().items() if not torch.equal(each, before[name])}
    assert changed and all(name.startswith(f"language_model.model.layers.{layers - 1}.") for name in changed)
    whole = randomised(model)
    changed = {name for name, each in whole.state_dict().items() if not torch.equal(each, before[name])}
    assert {name.split(".")[0] for name in changed} == {"language_model", "projector", "region_encoder"}
    assert not any("embed_tokens" in name or "lm_head" in name for name in changed)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    again = randomised(model)
    assert all(torch.equal(each, again.state_dict()[name]) for name, each in whole.state_dict().items())


def test_a_map_that_does_not_depend_on_the_model_fails(model, explained, picture):
    def centre(model, explained):
        return scores(model, explained, centre_map((4, 4)))

    found = sanity_checks(model, explained, centre, ImageOps.invert(picture), shares=(0.5, 1))
    assert found.weights == {
        0.5: pytest.approx(1),
        1: pytest.approx(1),
    } and found.picture == found.regions == pytest.approx(1)
    assert found.stayed == ["100% random weights", "another picture", "exchanged regions"]
    assert "does NOT pass" in str(found) and found.to_dict()["stayed"] == found.stayed
    assert (
        "passes" in str(Sanity(explained, "x", {1.0: 0.1}, 0.2)) and not Sanity(explained, "x", {1.0: 0.1}, 0.2).stayed
    )


def test_maps_are_compared_with_those_of_the_changed_model_picture_and_regions(model, explained, picture):
    other = ImageOps.invert(picture)
    found = sanity_checks(model, explained, attention_map, other, shares=(1,), seed=4)
    own = attention_map(model, explained).image
    assert found.weights[1] == pytest.approx(
        rank_correlation(own, attention_map(randomised(model, 1, 4), explained).image)
    )
    changed = dataclasses.replace(explained, image=other)
    assert found.picture == pytest.approx(rank_correlation(own, attention_map(model, changed).image))
    changed = dataclasses.replace(explained, shapes=explained.shapes[::-1])
    assert found.regions == pytest.approx(rank_correlation(own, attention_map(model, changed).image))
