"""Attribution by captum: gradients against finite differences, completeness, the two paths, Shapley values by hand."""

import pytest
import torch
from conftest import small_model

import roilab
from roilab import Chat
from roilab.interpret import attribution, perturbation
from roilab.interpret.attribution import from_pixels, to_pixels, to_tokens
from roilab.interpret.passes import prepare, score, splice
from roilab.interpret.perturbation import cover, segment_labels
from roilab.interpret.pictures import baseline_pixels, shuffled_patches
from roilab.interpret.target import Target

BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]


@pytest.fixture(scope="module")
def double(picture):
    model = small_model().double()
    return model, Target.of(Chat(model, picture), "Is <region1> left of <region2>?", BOXES, answer="yes")


@pytest.fixture(scope="module")
def tiny():
    model, scene = roilab.load("tiny"), roilab.scenes.sample(7)
    person = scene.objects[0]
    return model, Target.of(Chat(model, scene.image), "What colour is <region1>?", [person.box], about=person.colour)


def test_saliency_of_region_tokens_is_the_slope_of_finite_differences(double):
    model, explained = double
    inputs = prepare(model, explained)
    found = to_tokens(model, explained, "saliency").regions
    with torch.no_grad():
        step = 3e-3  # norms compute in float32, whatever the model's dtype
        slopes = torch.zeros_like(inputs.regions[0])
        for i in range(2):
            for d in range(slopes.shape[1]):
                changed = inputs.regions.repeat(2, 1, 1)
                changed[0, i, d] += step
                changed[1, i, d] -= step
                up, down = score(model, splice(model, inputs, regions=changed), explained)
                slopes[i, d] = (up - down) / (2 * step)
    torch.testing.assert_close(torch.tensor(list(found.values())), slopes.abs().sum(1).float(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("path", attribution.PATHS)
def test_saliency_of_pixels_is_the_slope_of_finite_differences(double, path):
    model, explained = double
    pixels = model.processor.preprocess(explained.image).double()
    forward = from_pixels(model, explained, path)
    given = pixels.clone().requires_grad_()
    (slope,) = torch.autograd.grad(forward(given).sum(), given)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        # Norms, resizing and RoIAlign compute in float32, whatever the model's dtype: steps along which much happens.
        direction = slope * torch.rand(pixels.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        with torch.no_grad():
            up, down = forward(pixels + 1e-2 * direction), forward(pixels - 1e-2 * direction)
        torch.testing.assert_close((slope * direction).sum(), (up - down).sum() / 2e-2, rtol=2e-2, atol=1e-3)


def test_paths_hold_still_what_is_not_on_them(tiny):
    """The two paths see different things, and on each the other's tokens stay those of the picture."""
    model, explained = tiny
    pixels = model.processor.preprocess(explained.image)
    blurred = baseline_pixels(model, pixels, "blur")
    whole, blank = prepare(model, explained), prepare(model, explained, pixel_values=blurred)
    with torch.no_grad():
        wanted = {
            "image": score(model, splice(model, whole, image=blank.image), explained),
            "regions": score(model, splice(model, whole, regions=blank.regions), explained),
            "both": score(model, splice(model, blank), explained),
        }
        for path, value in wanted.items():
            torch.testing.assert_close(from_pixels(model, explained, path)(blurred), value, atol=1e-5, rtol=1e-5)


def test_integrated_gradients_are_complete_on_a_smooth_function(double, monkeypatch):
    """64 steps leave at most 1 %, of a smooth function in the place of the model."""
    model, explained = double
    weights = torch.randn(len(explained.ids), 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(
        attribution,
        "score",
        lambda model, embeds, target: (embeds * weights).sum((1, 2)).sigmoid() + (embeds**2).mean((1, 2)),
    )
    found = to_tokens(model, explained, steps=64)
    assert found.settings["gap_share"] <= 0.01 and found.settings["complete"]
    assert found.positions.sum().item() == pytest.approx(found.settings["difference"] + found.settings["gap"], rel=1e-4)


@pytest.mark.slow
def test_completeness_on_tiny_is_reached_by_doubling_steps(tiny):
    model, explained = tiny
    shares = []
    for steps in (64, 128, 256, 512):
        found = to_pixels(model, explained, steps=steps, path="regions")
        shares.append(found.settings["gap_share"])
        assert found.settings["complete"] == (shares[-1] <= 0.05)
        if shares[-1] <= 0.01:
            break
    assert shares[-1] <= 0.01
    assert found.pixels.sum().item() == pytest.approx(found.settings["difference"] + found.settings["gap"], rel=1e-3)


def test_a_gap_is_said_to_be_one(tiny):
    """From zeros the way leads through normalisations that blow up: the result says that it is not complete."""
    found = to_tokens(*tiny, baseline="zero")
    assert found.settings["gap_share"] > 0.05 and not found.settings["complete"]
    assert to_tokens(*tiny, baseline="mean").settings["complete"]


def test_what_tiny_says_of_a_colour_comes_through_the_region(tiny):
    model, explained = tiny
    through = {path: to_pixels(model, explained, path=path).pixels for path in ("image", "regions")}
    assert through["regions"].sum() > 5 > 0.5 > through["image"].abs().sum()
    x1, y1, x2, y2 = explained.boxes[0]
    size, side = explained.image.size[0], through["regions"].shape[0]
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[round(y1 * side / size) : round(y2 * side / size), round(x1 * side / size) : round(x2 * side / size)] = True
    assert through["regions"][inside].sum() > 0.5 * through["regions"].sum()


def test_input_x_gradient_is_the_product(double):
    model, explained = double
    inputs = prepare(model, explained)
    regions = inputs.regions.detach().requires_grad_()
    (slope,) = torch.autograd.grad(score(model, splice(model, inputs, regions=regions), explained).sum(), regions)
    found = to_tokens(model, explained, "input_x_gradient").regions
    torch.testing.assert_close(
        torch.tensor(list(found.values())), (slope * regions)[0].sum(-1).float(), rtol=1e-4, atol=1e-7
    )


def linear(monkeypatch, size=32):
    """A linear function of the pixels in the place of the model: [H, W] weights, the same for all colours."""
    weights = torch.randn(size, size, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(perturbation, "from_pixels", lambda *given: lambda pixels: (pixels * weights).sum((1, 2, 3)))
    return weights


@pytest.mark.parametrize("method", ["shapley", "feature_ablation"])
@pytest.mark.parametrize("segments", ["patches", "regions", "given"])
def test_of_a_linear_model_every_segment_is_worth_what_it_adds(model, picture, monkeypatch, method, segments):
    """By hand: weight x (pixel - fill), summed over the segment; so for Shapley values as for ablation."""
    weights = linear(monkeypatch)
    explained = Target.of(Chat(model, picture), "Is <region1> left of <region2>?", BOXES, answer="yes")
    given = torch.arange(64).reshape(8, 8) // 9 if segments == "given" else segments
    found = cover(model, explained, method, given, fill="mean", samples=2)
    pixels = model.processor.preprocess(picture)
    worth = ((pixels - pixels.mean((2, 3), keepdim=True)) * weights)[0].sum(0)
    labels = segment_labels(model, explained, given, (32, 32))
    for label in labels.unique():
        segment = labels == label
        assert found.pixels[segment].sum().item() == pytest.approx(worth[segment].sum().item(), abs=1e-2)
    assert found.settings["count"] == len(labels.unique())


def test_occlusion_of_a_linear_model_is_the_mean_of_the_squares_that_cover_a_pixel(model, picture, monkeypatch):
    weights = linear(monkeypatch)
    explained = Target.of(Chat(model, picture), "What is <region1>?", BOXES[:1], answer="yes")
    found = cover(model, explained, "occlusion", fill="mean")
    pixels = model.processor.preprocess(picture)
    worth = ((pixels - pixels.mean((2, 3), keepdim=True)) * weights)[0].sum(0)
    corner = worth[:16, :16].sum()  # squares are 16 pixels wide, 8 apart: one covers the corner patch
    torch.testing.assert_close(found.pixels[:8, :8], corner.expand(8, 8), atol=1e-3, rtol=1e-4)
    between = torch.stack([worth[y : y + 16, x : x + 16].sum() for y in (0, 8) for x in (0, 8)]).mean()
    torch.testing.assert_close(found.pixels[8:16, 8:16], between.expand(8, 8), atol=1e-3, rtol=1e-4)


def test_regions_as_segments_are_boxes_and_the_rest(model, picture):
    explained = Target.of(
        Chat(model, picture), "Is <region1> left of <region2>?", [(0, 0, 32, 24), (16, 0, 32, 24)], answer="yes"
    )
    labels = segment_labels(model, explained, "regions", (32, 32))
    assert labels.unique().tolist() == [0, 1, 2]
    assert (
        (labels[:16, :8] == 1).all()
        and (labels[:16, 8:16] == 2).all()
        and (labels[:, 16:] == 0).all()
        and (labels[16:] == 0).all()
    )


def test_pictures_that_say_nothing(model, picture):
    pixels = model.processor.preprocess(picture)
    mean = baseline_pixels(model, pixels, "mean")
    torch.testing.assert_close(mean.mean((2, 3)), pixels.mean((2, 3)))
    assert mean.std((2, 3)).max() < 1e-6
    assert 0 < baseline_pixels(model, pixels, "blur").std() < 0.7 * pixels.std()
    processor = model.processor.image_processor
    black = baseline_pixels(model, pixels, "black") * torch.tensor(processor.image_std)[:, None, None]
    torch.testing.assert_close(
        black + torch.tensor(processor.image_mean)[:, None, None], torch.zeros_like(black), atol=1e-6, rtol=0
    )
    shuffled = shuffled_patches(pixels, model.vision.grid, seed=1)
    torch.testing.assert_close(shuffled.flatten().sort().values, pixels.flatten().sort().values)
    assert not torch.equal(shuffled, pixels) and torch.equal(
        shuffled, shuffled_patches(pixels, model.vision.grid, seed=1)
    )
    rows, columns = model.vision.grid
    side = pixels.shape[2] // rows
    tiles = {
        tuple(pixels[0, :, r * side : (r + 1) * side, c * side : (c + 1) * side].flatten().tolist())
        for r in range(rows)
        for c in range(columns)
    }
    assert tuple(shuffled[0, :, :side, side : 2 * side].flatten().tolist()) in tiles


def test_mistakes_name_both_sides(model, picture):
    explained = Target.of(Chat(model, picture), "What is it?", answer="yes")
    for call, words in {
        lambda: to_tokens(model, explained, "magic"): "method 'magic', expected one of saliency",
        lambda: to_tokens(model, explained, steps=10): "10 steps, expected at least 50",
        lambda: to_tokens(model, explained, baseline="pink"): "baseline 'pink', expected one of mean, blur, black",
        lambda: to_pixels(model, explained, path="both ways"): "path 'both ways', expected one of both, image, regions",
        lambda: to_pixels(model, explained, path="regions"): r"the question shows no region \(0 boxes\)",
        lambda: cover(model, explained, "magic"): "method 'magic', expected one of occlusion",
        lambda: cover(
            model, explained, segments="clouds"
        ): "segments 'clouds', expected 'patches', 'regions' or whole numbers",
        lambda: cover(model, explained, segments=torch.rand(3, 3)): r"segments torch.float32 \[3, 3\], expected",
    }.items():
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("method", ["saliency", "input_x_gradient", "integrated_gradients"])
def test_questions_without_regions_are_explained_too(model, picture, method):
    explained = Target.of(Chat(model, picture), "What is in the picture?", answer="yes")
    found = to_tokens(model, explained, method)
    assert (
        found.regions == {}
        and found.image.abs().sum() > 0
        and set(found.parts) == {"system", "image", "question", "answer"}
    )


def test_scores_are_kept_as_json(tiny, tmp_path):
    import json

    found = to_tokens(*tiny, steps=50)
    found.save(tmp_path / "scores.json")
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["method"] == "integrated_gradients" and record["settings"]["baseline"] == "mean"
    assert (
        record["origin"]["model"] == "tiny"
        and record["origin"]["dtype"] == "float32"
        and record["origin"]["attention"] == "sdpa"
    )
    assert sum(record["positions"]) == pytest.approx(found.positions.sum().item(), rel=1e-4)
    assert len(record["tokens"]) == len(record["positions"]) == len(record["token_parts"])
    with pytest.raises(ValueError, match="scored pixels, not positions"):
        _ = to_pixels(*tiny, method="saliency").regions
