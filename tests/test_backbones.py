"""Other backbones: any family of vision tower or language model goes through build, save, load and ask; and the presets."""

import math

import pytest
import torch
from conftest import REGION, text_config, tiny_tokenizer, vision_config
from PIL import Image
from transformers import (
    ConvNextConfig,
    Dinov2WithRegistersConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipVisionConfig,
    SwinConfig,
    TimmBackbone,
    TimmBackboneConfig,
)

import roilab
from roilab import interpret, presets
from roilab.interpret import Target
from roilab.model import GPT4RoI
from roilab.training.features import FeatureCache
from roilab.vision import VisionTower, in_stages, map_shapes, pyramid_stages

WIDTHS = [8, 12, 16, 20]
TIMM = TimmBackboneConfig(backbone="test_efficientnet")
TRANSFORMERS = {
    "siglip": SiglipVisionConfig(
        image_size=32, patch_size=8, hidden_size=32, intermediate_size=48, num_hidden_layers=5, num_attention_heads=4
    ),
    "dinov2 with registers": Dinov2WithRegistersConfig(
        image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=5, num_attention_heads=4, num_register_tokens=3
    ),
}
STAGES = {
    "timm": (TIMM, [24, 32, 48, 64]),
    "resnet": (ResNetConfig(embedding_size=8, hidden_sizes=WIDTHS, depths=[1, 1, 1, 1], layer_type="basic"), WIDTHS),
    "convnext": (ConvNextConfig(hidden_sizes=WIDTHS, depths=[1, 1, 1, 1]), WIDTHS),
    "swin": (
        SwinConfig(image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 2], window_size=4),
        [8, 16, 32, 64],
    ),
}
TEXT = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
LANGUAGES = {
    "mistral": MistralConfig(**TEXT, **HEADS, sliding_window=None),
    "qwen2": Qwen2Config(**TEXT, **HEADS),
    "smollm2": LlamaConfig(**TEXT | {"hidden_size": 72}, num_attention_heads=9, num_key_value_heads=3, head_dim=8, tie_word_embeddings=True),
    "gemma": GemmaConfig(**TEXT, **HEADS, head_dim=12),
}  # fmt: skip
QUESTION, BOXES = "Is <region1> larger than <region2>?", [[4, 4, 30, 40], [20, 8, 60, 44]]


def built(vision=None, language=None, **options):
    tokenizer = tiny_tokenizer()
    if language is None:
        language = text_config(tokenizer)
    else:
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        language = type(language)(**language.to_dict() | {"vocab_size": len(tokenizer), "initializer_range": 0.3} | ids)
    torch.manual_seed(0)
    return roilab.build(vision or vision_config(), language, REGION, "tiny", tokenizer, device="cpu", **options)


def check_the_whole_way(model, picture, folder):
    """Save, load, the same logits, an answer, gradients to the pixels; returns the loaded model."""
    inputs = model.processor(images=picture, text=QUESTION, boxes=BOXES)
    with torch.no_grad():
        logits = model(**inputs).logits
    model.save_pretrained(folder)
    loaded = roilab.load(folder, device="cpu")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, each in model.state_dict().items():
        assert torch.equal(each, loaded.state_dict()[name]), name

    pixels = inputs["pixel_values"].clone().requires_grad_()
    features = loaded.encode_image(pixels)
    found = loaded(**inputs | {"pixel_values": None}, features=features).logits
    torch.testing.assert_close(found.detach(), logits, rtol=1e-4, atol=1e-4)
    answer = roilab.Chat(loaded, picture, max_new_tokens=1).ask(QUESTION, BOXES)
    words = logits[0, -1].index_fill(0, torch.tensor(loaded.generation_config.suppress_tokens), -math.inf)
    assert answer.ids[0] == words.argmax()

    # The picture decides, on both of its paths.
    (regions,) = loaded.region_encoder.pool(loaded.fuse(features), inputs["boxes"])
    for path in (found[:, -1], features.patches, regions):
        (grad,) = torch.autograd.grad(path.square().sum(), pixels, retain_graph=True)
        assert grad.isfinite().all() and grad.abs().sum() > 0
    assert not any(each.requires_grad for each in loaded.vision.parameters())
    return loaded


# Language models


@pytest.mark.parametrize("name", LANGUAGES)
def test_language_models(name, picture, tmp_path):
    model = built(language=LANGUAGES[name])
    assert type(model.language_model.config) is type(LANGUAGES[name])
    loaded = check_the_whole_way(model, picture, tmp_path / "model")
    tied = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    assert tied == LANGUAGES[name].tie_word_embeddings

    rounds = []
    for caches in (True, False):
        chat = roilab.Chat(loaded, picture, caches=caches, max_new_tokens=2)
        rounds.append([chat.ask(QUESTION, BOXES), chat.ask("Why?")])
    for cached, plain in zip(*rounds):
        assert cached.ids == plain.ids and len(plain.logprobs) > 0
        torch.testing.assert_close(torch.tensor(cached.logprobs), torch.tensor(plain.logprobs), rtol=1e-3, atol=1e-4)


# Vision towers


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_vision_transformers(name, picture, tmp_path):
    loaded = check_the_whole_way(built(TRANSFORMERS[name]), picture, tmp_path / "model")
    assert not in_stages(TRANSFORMERS[name]) and loaded.vision.grid == (4, 4)
    assert loaded.vision.level_widths == [32] * 4 and loaded.projector.in_features == loaded.vision.width == 32


def test_more_channels_than_tensors_load(tmp_path):
    from transformers import TimmBackboneConfig

    model = built(TimmBackboneConfig(backbone="resnet10t", out_indices=[3, 4]), image_size=64)
    model.save_pretrained(tmp_path)
    assert roilab.load(tmp_path, device="cpu").vision.level_widths[-1] > len(model.state_dict())


@pytest.mark.parametrize("name", STAGES)
def test_networks_in_stages_give_their_natural_pyramid(name, picture, tmp_path):
    config, widths = STAGES[name]
    before = config.to_dict()
    model = built(config, image_size=64)
    assert config.to_dict() == before  # the caller's is left alone
    loaded = check_the_whole_way(model, picture, tmp_path / "model")
    tower = loaded.vision
    assert in_stages(config) and tower.patch_size == (32, 32) and tower.grid == (2, 2) and tower.image_size == (64, 64)
    assert tower.level_widths == loaded.config.region_config.level_widths == widths
    assert loaded.processor.num_image_tokens == 4 and loaded.projector.in_features == tower.width == widths[-1]

    pixels = torch.randn(2, 3, 96, 64)  # other sizes than the configured one
    with torch.no_grad():
        features = tower(pixels)
        maps = tower.model(pixels).feature_maps
        fused = loaded.fuse(features)
    assert features.grid == (3, 2) and features.patches.shape == (2, 6, widths[-1])
    assert [tuple(each.shape) for each in features.levels] == [
        (2, width, 96 // stride, 64 // stride) for width, stride in zip(widths, (4, 8, 16, 32))
    ]
    for level, own in zip(features.levels, maps, strict=True):
        torch.testing.assert_close(level, own)
    torch.testing.assert_close(features.patches[:, 3], maps[-1][:, :, 1, 1])  # row 1, column 1 of two columns
    assert [each.shape[-2:] for each in fused] == [each.shape[-2:] for each in features.levels]


def test_stages_can_be_chosen():
    whole = TimmBackboneConfig(backbone="test_efficientnet", out_indices=[0, 1, 2, 3, 4])
    assert map_shapes(TimmBackbone(whole).eval()) == [(2, 16), (4, 24), (8, 32), (16, 48), (32, 64)]
    assert pyramid_stages(TIMM) == [1, 2, 3, 4] and pyramid_stages(whole) == [0, 1, 2, 3, 4]
    assert pyramid_stages(TIMM, [-1, 2]) == [2, 4]
    three = built(TIMM, image_size=(32, 64), feature_layers=[-3, -2, -1]).vision
    assert three.level_widths == [32, 48, 64] and three.grid == (1, 2)
    finer = built(TIMM, image_size=32, image_layer=-2).vision  # image tokens from another level
    assert finer.patch_size == (16, 16) and finer.num_patches == 4 and finer.width == 48
    features = finer(torch.randn(1, 3, 32, 32))
    assert features.grid == (2, 2) and features.patches.shape == (1, 4, 48)
    torch.testing.assert_close(features.patches[:, 2], features.levels[-2][:, :, 1, 0])


@pytest.mark.parametrize(
    "vision, options, words",
    [
        (TIMM, {}, ["timm_backbone", "image_size", "32"]),
        (TIMM, {"image_size": 100}, ["100 x 100", "32"]),
        (TIMM, {"image_size": (64, 16)}, ["64 x 16", "32"]),
        (TIMM, {"image_size": 64, "feature_layers": [1, 7]}, ["stage 7", "5"]),
        (TIMM, {"image_size": 64, "image_layer": 4}, ["layer 4", "4 feature maps"]),
        (
            TimmBackboneConfig(backbone="hf-hub:someone/network"),
            {"image_size": 64},
            ["hf-hub:someone/network", "timm's own"],
        ),
        (vision_config(), {"image_size": 64}, ["image_size 64", "32 pixels"]),
    ],
)
def test_errors_name_both_sides(vision, options, words):
    with pytest.raises(ValueError) as error:
        built(vision, **options)
    assert all(word in str(error.value) for word in words), error.value


@torch.no_grad()
def random_statistics(module):
    """Weights and running statistics unlike those of a fresh network."""
    generator = torch.Generator().manual_seed(2)
    for name, each in module.state_dict().items():
        if each.is_floating_point():
            each.copy_(torch.rand(each.shape, generator=generator) + 0.5 if "var" in name else torch.randn(each.shape, generator=generator) * 0.1)  # fmt: skip
    return module


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_weights_of_a_folder_are_kept_and_nothing_is_fetched(kind, tmp_path, monkeypatch):
    import timm
    from transformers import CLIPImageProcessor

    asked, create = [], timm.create_model

    def watched(*args, pretrained=False, **kwargs):
        asked.append(pretrained)
        return create(*args, pretrained=pretrained, **kwargs)

    monkeypatch.setattr(timm, "create_model", watched)
    if kind == "timm":
        source = random_statistics(TimmBackbone(TIMM))
        weights = source.state_dict()
    else:  # a checkpoint with a classifier, as they are published
        source = random_statistics(ResNetForImageClassification(STAGES["resnet"][0]))
        weights = source.resnet.state_dict()
    source.save_pretrained(tmp_path / "vision")
    CLIPImageProcessor(image_mean=[0.5] * 3).save_pretrained(tmp_path / "vision")
    model = built(str(tmp_path / "vision"), image_size=32)
    found = model.vision.model.state_dict()
    assert found.keys() == weights.keys()
    for name, each in weights.items():
        assert torch.equal(found[name], each), name
    assert list(model.processor.image_processor.image_mean) == [0.5] * 3
    model.save_pretrained(tmp_path / "model")
    found = roilab.load(tmp_path / "model", device="cpu").vision.model.state_dict()
    assert all(torch.equal(found[name], each) for name, each in weights.items())
    assert not any(asked) and (kind != "timm" or asked)


# A frozen network with batch norm


def test_running_statistics_of_a_frozen_network_do_not_drift():
    model = built(TIMM, image_size=64)
    random_statistics(model.vision.model)
    state = {name: each.clone() for name, each in model.vision.state_dict().items()}
    assert any("running_mean" in name for name in state)
    pixels = torch.randn(2, 3, 64, 64)
    wanted = model.vision(pixels).patches
    model.train()
    assert model.language_model.training and model.region_encoder.training
    torch.testing.assert_close(model.vision(pixels).patches, wanted)
    for name, each in model.vision.state_dict().items():
        assert torch.equal(each, state[name]), name

    model.vision.requires_grad_(True)  # one that learns is another matter
    model.train()
    model.vision(pixels)
    assert any(not torch.equal(each, state[name]) for name, each in model.vision.state_dict().items())


# What else works on a pyramid


@pytest.fixture(scope="module")
def pyramid_model():
    """A model on a timm network, pictures of 64 x 96 pixels, and a target."""
    model = built(TIMM, image_size=(64, 96))
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (6, 8, 3), generator=generator, dtype=torch.uint8).numpy()
    picture = Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC)
    return model, Target.of(roilab.Chat(model, picture), QUESTION, BOXES, answer="Yes, it is.")


MAPS = {
    "to_pixels": lambda model, target: interpret.to_pixels(model, target, "saliency", path="regions"),
    "to_tokens": lambda model, target: interpret.to_tokens(model, target, "input_x_gradient"),
    "attention_map": interpret.attention_map,
    "rollout": interpret.rollout,
    "relevance": interpret.relevance,
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_a_pyramid(name, pyramid_model):
    import matplotlib.pyplot as plt

    model, target = pyramid_model
    scores = MAPS[name](model, target)
    assert scores.grid == (2, 3)
    if scores.pixels is None:
        assert scores.image.shape == (2, 3) and scores.image.isfinite().all() and scores.image.abs().sum() > 0
    else:
        assert scores.pixels.shape == (64, 96) and scores.pixels.isfinite().all() and scores.pixels.abs().sum() > 0
    plt.close(scores.plot())


def test_occlusion_of_a_pyramid_covers_its_patches(pyramid_model):
    model, target = pyramid_model
    scores = interpret.cover(model, target, "occlusion")
    assert scores.settings["stride"] == (32, 32) and scores.settings["window"] == (64, 64)
    assert scores.pixels.shape == (64, 96) and scores.pixels.isfinite().all() and scores.pixels.abs().sum() > 0


@pytest.mark.parametrize("name", ["logit_lens", "attention_knockout", "region_anatomy"])
def test_other_methods_on_a_pyramid(name, pyramid_model):
    import matplotlib.pyplot as plt

    model, target = pyramid_model
    found = getattr(interpret, name)(model, target, *(["region1"] if name == "attention_knockout" else []))
    if name == "region_anatomy":  # its terms add up to the token that the pyramid gave
        assert found.token.abs().max() > 0.1 and found.difference < 1e-4
    else:
        plt.close(found.plot())


def test_features_of_a_pyramid_on_disk(pyramid_model, tmp_path):
    model, target = pyramid_model
    model.requires_grad_(False)
    items = [{"image": target.image, "turns": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "Yes."}], "boxes": BOXES}] * 2  # fmt: skip
    cache = FeatureCache(tmp_path, model)
    collate = cache.wrap(model.processor.collate)
    collate(items)
    cached = collate(items)["features"]
    own = model.encode_image(model.processor.preprocess([target.image] * 2))
    torch.testing.assert_close(cached.patches, own.patches)
    torch.testing.assert_close(cached.levels, own.levels)
    assert cached.grid == own.grid == (2, 3)
    stored = sum(each[0].numel() for each in own.levels) * 4  # the last level and the image tokens are one
    assert cache.size() == pytest.approx(stored, abs=1024)


def test_a_familiar_picture(pyramid_model):
    model, target = pyramid_model
    config = model.config.to_dict() | {"familiarity": True}
    familiar = GPT4RoI(type(model.config)(**config))
    statistics = familiar.familiarity.statistics(torch.randn(2000, 6, 64))
    assert statistics.shape == (2000, 128)
    familiar.familiarity.fit(statistics)
    near, far = (familiar.familiarity(torch.randn(1, 6, 64) * scale) for scale in (1, 9))
    assert near < familiar.familiarity.threshold < far


# Presets


@pytest.mark.parametrize(
    "preset, language, width, layers",
    [(presets.paper_7b, 6_738_464_768, 4096, 32), (presets.paper_13b, 13_015_925_760, 5120, 40)],
)
def test_presets_of_the_paper(preset, language, width, layers):
    config = preset()
    assert (config.image_token_id, config.region_token_id, config.template) == (32001, 32002, "vicuna_v0")
    assert config.feature_layers == [-11, -8, -5, -2] and config.image_layer == -2
    with torch.device("meta"):
        model = GPT4RoI(config)
    counts = {
        name: sum(each.numel() for each in getattr(model, name).parameters()) for name in ("vision", "language_model")
    }
    assert counts == {"vision": 303_179_776, "language_model": language}
    assert model.projector.weight.shape == (width, 1024) and model.region_encoder.output.weight.shape[0] == width
    assert model.vision.grid == (16, 16) and len(model.language_model.model.layers) == layers


def test_presets_can_be_shrunk_to_a_model():
    config = presets.paper_7b()
    for part, sizes in (
        (config.vision_config, {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 12, "num_attention_heads": 4}),
        (config.text_config, {"vocab_size": 32006, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}),
        (config.region_config, {"level_widths": [32] * 4, "width": 16, "norm_groups": 4, "hidden_size": 8, "output_size": 16}),
    ):  # fmt: skip
        for name, value in sizes.items():
            setattr(part, name, value)
    model = GPT4RoI(config).eval()
    ids = torch.tensor([[1, *[32001] * 256, 5, 32002, 9]])
    with torch.no_grad():
        logits = model(
            ids, pixel_values=torch.randn(1, 3, 224, 224), boxes=[torch.tensor([[0.1, 0.2, 0.5, 0.9]])]
        ).logits
    assert logits.shape == (1, 260, 32006) and logits.isfinite().all()


def test_the_tiny_preset_is_the_shipped_model():
    shipped = roilab.load("tiny", device="cpu")
    fresh = GPT4RoI(presets.tiny())
    assert {name: each.shape for name, each in fresh.state_dict().items()} == {
        name: each.shape for name, each in shipped.state_dict().items()
    }
    assert not torch.equal(fresh.projector.weight, shipped.projector.weight)


def test_clip_and_smollm2_from_folders(picture, tmp_path):
    from conftest import chatml_tokenizer
    from transformers import AutoModel, AutoModelForCausalLM, CLIPImageProcessor

    torch.manual_seed(0)
    AutoModel.from_config(vision_config()).save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(size={"shortest_edge": 32}).save_pretrained(tmp_path / "clip")
    tokenizer = chatml_tokenizer()
    language = type(LANGUAGES["smollm2"])(**LANGUAGES["smollm2"].to_dict() | {"vocab_size": len(tokenizer)})
    AutoModelForCausalLM.from_config(language).save_pretrained(tmp_path / "smollm2")
    tokenizer.save_pretrained(tmp_path / "smollm2")
    model = presets.clip_smollm2(tmp_path / "clip", tmp_path / "smollm2", region=REGION, device="cpu")
    assert model.processor.template == "chatml" and model.config.text_config.tie_word_embeddings
    check_the_whole_way(model, picture, tmp_path / "model")


def test_a_tower_alone_reads_what_its_configuration_names():
    tower = VisionTower(STAGES["swin"][0], [-1], -1)  # without build: what the configuration names
    assert tower.level_widths == [64] and tower.grid == (2, 2) and math.prod(tower.grid) == tower.num_patches
