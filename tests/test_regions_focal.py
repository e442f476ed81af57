"""Region encoders that look at a crop of each region, too: the same crop whoever asks, and everything else works as without."""

import pytest
import torch
from conftest import REGION
from test_backbones import TIMM, TRANSFORMERS, built, check_the_whole_way

import roilab
from roilab import interpret
from roilab.config import RegionConfig
from roilab.interpret import Target
from roilab.regions import RegionEncoder
from roilab.regions.encoder import enlarged
from roilab.training.features import FeatureCache
from roilab.training.prefix import prefix_loss

QUESTION, BOXES = "Is <region1> larger than <region2>?", [[4, 4, 30, 40], [20, 8, 60, 44]]
TOWERS = {"transformer": (TRANSFORMERS["siglip"], {}), "in stages": (TIMM, {"image_size": 64})}


@pytest.fixture(params=TOWERS)
def model(request, monkeypatch):
    for name, value in {"focal_size": 32, "focal_width": 6, "focal_contexts": [1, 2]}.items():
        monkeypatch.setitem(REGION, name, value)
    config, options = TOWERS[request.param]
    return built(config, **options)


def test_the_whole_way(model, picture, tmp_path):
    loaded = check_the_whole_way(model, picture, tmp_path / "model")
    assert loaded.config.region_config.focal_size == 32 and loaded.region_encoder.cells.focal.out_channels == 6
    assert loaded.region_encoder.content.in_features == (16 + 2 * 6) * 4**2


def test_the_last_channels_are_what_the_tower_says_of_the_crop(model):
    """A box on whole pixels, of the size of the crop: cut out by hand, it gives the same."""
    pixels = torch.randn(2, 3, 64, 64)
    boxes = [torch.tensor([[0.25, 0.0, 0.75, 0.5], [0.5, 0.5, 1.0, 1.0]]), torch.tensor([[0.0, 0.25, 0.5, 0.75]])]
    cells = model.region_encoder.cells
    cells.sampling_ratio = 1
    with torch.no_grad():
        fused = model.fuse(model.encode_image(pixels))
        found = cells(fused, boxes)
        by_hand = torch.stack([pixels[0, :, :32, 16:48], pixels[0, :, 32:, 32:], pixels[1, :, 16:48, :32]])
        maps = cells.focal(model.vision(by_hand).levels[-1]).relu()
    assert torch.equal(fused[-1], pixels) and found.shape == (3, 28, 4, 4)
    wanted = torch.nn.functional.adaptive_avg_pool2d(maps, 4)
    torch.testing.assert_close(found[:, 16:22], wanted, rtol=1e-4, atol=1e-5)
    assert wanted.abs().max() > 1e-3


def test_a_larger_crop_shows_what_is_around_a_box_and_is_grey_beyond_the_edge(model):
    pixels, cells = torch.randn(1, 3, 64, 64), model.region_encoder.cells
    cells.sampling_ratio = 1
    box = [torch.tensor([[0.0, 0.25, 0.5, 0.75]])]  # 32 x 32 pixels; twice as large, half of its left half is outside
    wide = torch.zeros(1, 3, 64, 64)
    wide[..., 16:] = pixels[..., :48]
    with torch.no_grad():
        found = cells(model.fuse(model.encode_image(pixels)), box)[0, 22:]
        crop = cells.align(wide, [torch.tensor([[0.0, 0.0, 1.0, 1.0]])], 32)
        wanted = cells.focal(model.vision(crop).levels[-1]).relu().mean((2, 3))[0]
    torch.testing.assert_close(found, wanted[:, None, None].expand(6, 4, 4), rtol=1e-4, atol=1e-4)
    assert torch.equal(enlarged(torch.tensor([[1.0, 2.0, 3.0, 6.0]]), 2), torch.tensor([[0.0, 0.0, 4.0, 8.0]]))


def test_caches_and_moved_boxes_change_nothing(model, picture):
    found = []
    for caches in (True, False):
        chat = roilab.Chat(model, picture, caches=caches, max_new_tokens=2)
        found.append([chat.ask(QUESTION, BOXES), chat.ask("Why?"), chat.move(1, [10, 10, 50, 40])])
    for one, two in zip(*found, strict=True):
        assert one.ids == two.ids
        torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(two.logprobs), rtol=1e-3, atol=1e-4)


def test_the_picture_is_seen_once_and_each_region_once(model, picture):
    sizes = []
    model.vision.register_forward_pre_hook(lambda module, args: sizes.append(list(args[0].shape)))
    chat = roilab.Chat(model, picture, max_new_tokens=1)
    chat.ask(QUESTION, BOXES)
    chat.ask("Why?")
    chat.ask("What is <region1>?")
    whole = list(model.processor.preprocess(picture).shape)
    assert sizes == [whole, [4, 3, 32, 32]]


def test_looking_inside_works(model, picture):
    explained = Target.of(roilab.Chat(model, picture, max_new_tokens=2), QUESTION, BOXES)
    anatomy = interpret.region_anatomy(model, explained, 2)
    assert anatomy.difference < 1e-4 and anatomy.cells.shape[:2] == (4, 4)
    for name, method in interpret.METHODS.items():
        assert torch.isfinite(method(model, explained).map).all(), name
    moved = interpret.box_sensitivity(model, explained, steps=2)
    assert torch.isfinite(moved.shifted).all()
    assert interpret.region_tests(model, explained).verdict


def test_an_outline_masks_the_crop_s_cells_too(model, picture):
    encoder = model.region_encoder
    with torch.no_grad():
        fused = model.fuse(model.encode_image(model.processor.preprocess(picture)))
        boxes = [torch.tensor([[0.1, 0.1, 0.9, 0.9]])]
        nothing = encoder.pool(fused, boxes, [torch.zeros(1, 4, 4)])[0]
        blank = encoder.output(encoder.content.bias + encoder.position(boxes[0]))
    torch.testing.assert_close(nothing, blank)


def test_training_reaches_what_reads_the_crop_and_not_the_tower(model, picture, tmp_path):
    model.requires_grad_(False)
    model.region_encoder.requires_grad_(True)
    turns = [{"role": "user", "content": "What is <region1>?"}, {"role": "assistant", "content": "A small red ball."}]
    items = [{"image": picture, "turns": turns, "boxes": [BOXES[0]]}] * 2
    batches = [model.processor.collate(items), FeatureCache(tmp_path, model).wrap(model.processor.collate)(items)]
    again = FeatureCache(tmp_path, model).wrap(model.processor.collate)(items)  # from disk
    assert again["features"].picture.shape == (2, 3, *model.vision.image_size)
    losses = []
    for batch in (*batches, again):
        model.zero_grad()
        loss = prefix_loss(model, dict(batch)).loss
        loss.backward()
        losses.append(loss.detach())
        assert model.region_encoder.cells.focal.weight.grad.abs().sum() > 0
        assert all(each.grad is None for each in model.vision.parameters())
    torch.testing.assert_close(losses[0].expand(2), torch.stack(losses[1:]))


def test_features_with_and_without_the_picture_are_different_files(model, picture, tmp_path):
    plain = roilab.build(
        model.config.vision_config, model.config.text_config,
        {name: value for name, value in REGION.items() if not name.startswith("focal")}, "tiny", model.processor.tokenizer,
        device="cpu", feature_layers=model.config.feature_layers, image_layer=model.config.image_layer,
    )  # fmt: skip
    plain.vision.load_state_dict(model.vision.state_dict())
    items = [{"image": picture}]
    assert FeatureCache(tmp_path, plain).fill(items) == 1 and FeatureCache(tmp_path, model).fill(items) == 1
    assert FeatureCache(tmp_path, model).fill(items) == 0 == FeatureCache(tmp_path, plain).fill(items)


def test_mistakes_name_both_sides(model):
    with pytest.raises(ValueError, match="focal_size 224 and focal_width 0: a crop has both"):
        RegionConfig(focal_size=224)
    for size in (-1, 2000, 2.5, "big"):
        with pytest.raises(ValueError, match=f"focal_size is {size!r}, expected a whole number from 0 to 1024"):
            RegionConfig(focal_size=size, focal_width=8)
    for contexts, words in {
        (): "at least one",
        (0.5,): "from 1 to 8",
        (1,) * 9: "9 focal_contexts, expected at most 8",
    }.items():
        with pytest.raises(ValueError, match=words):
            RegionConfig(focal_size=32, focal_width=8, focal_contexts=contexts)
    features = model.encode_image(torch.randn(1, 3, *model.vision.image_size))
    fused = model.fuse(features)
    with pytest.raises(ValueError, match="4 fused levels given, the region encoder has 4 and the pictures"):
        model.region_encoder.pool(fused[:-1], [torch.rand(1, 4)])
    features.picture = None
    with pytest.raises(ValueError, match="these features have no picture"):
        model.fuse(features)
    alone = RegionEncoder(model.config.region_config)
    with pytest.raises(RuntimeError, match="use it as part of a GPT4RoI"):
        alone.pool([each.detach() for each in fused], [torch.tensor([[0.1, 0.1, 0.5, 0.5]])])
