import pytest
import torch
from conftest import vision_config
from transformers import AutoModel, CLIPConfig, CLIPModel, Dinov2Config, Dinov2WithRegistersConfig, SiglipVisionConfig

from roilab.vision import VisionTower, unwrap

SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
}
CONFIGS = {
    "clip": (vision_config(), 1),
    "siglip": (SiglipVisionConfig(**SIZES), 0),
    "dinov2": (Dinov2Config(**SIZES), 1),
    "dinov2 with registers": (Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3), 4),
}
LAYERS = [-5, -4, -3, -2]


@pytest.mark.parametrize("name", CONFIGS)
def test_levels_are_the_hidden_states_without_class_and_register_tokens(name):
    config, extra = CONFIGS[name]
    torch.manual_seed(0)
    model = unwrap(AutoModel.from_config(config)).eval()
    tower = VisionTower(config, LAYERS, -2, model)
    pixels = torch.randn(2, 3, 32, 32)
    features = tower(pixels)
    states = model(pixels, output_hidden_states=True).hidden_states
    assert len(states) == 6
    assert features.grid == tower.grid == (4, 4) and tower.num_patches == 16
    torch.testing.assert_close(features.patches, states[-2][:, extra:])
    for level, index in zip(features.levels, LAYERS):
        assert level.shape == (2, 32, 4, 4)
        # Row 1, column 2 is patch 1 * 4 + 2.
        torch.testing.assert_close(level[:, :, 1, 2], states[index][:, extra + 6])


def test_first_hidden_state_is_the_embedding_and_the_last_the_last_layer_output():
    model = unwrap(AutoModel.from_config(vision_config())).eval()
    tower = VisionTower(vision_config(), [0, -1], -1, model)
    seen = {}
    model.encoder.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(first=args[0]), with_kwargs=True
    )
    model.encoder.layers[-1].register_forward_hook(
        lambda _, __, out: seen.update(last=out[0] if isinstance(out, tuple) else out)
    )
    features = tower(torch.randn(1, 3, 32, 32))
    torch.testing.assert_close(features.levels[0].flatten(2).transpose(1, 2), seen["first"][:, 1:])
    torch.testing.assert_close(features.patches, seen["last"][:, 1:])


@pytest.mark.parametrize("name", CONFIGS)
def test_pictures_that_are_not_square(name):
    config, _ = CONFIGS[name]
    tower = VisionTower(config, LAYERS, -2).eval()
    pixels = torch.randn(1, 3, 24, 48)
    features = tower(pixels)
    assert features.grid == (3, 6)
    assert features.patches.shape == (1, 18, 32) and features.levels[0].shape == (1, 32, 3, 6)
    changed = pixels.clone()
    changed[..., 16:24, 40:48] += 5  # the last patch: row 2, column 5
    moved = (
        (
            VisionTower(config, [0] * 4, 0, tower.model)(changed).levels[0]
            - VisionTower(config, [0] * 4, 0, tower.model)(pixels).levels[0]
        )
        .abs()
        .amax(1)[0]
    )
    assert moved[2, 5] > 0 and moved.sum() == moved[2, 5]


def test_frozen_weights_let_gradients_reach_the_pixels():
    tower = VisionTower(vision_config(), LAYERS, -2).requires_grad_(False)
    pixels = torch.randn(1, 3, 32, 32, requires_grad=True)
    tower(pixels).patches.sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert all(each.grad is None for each in tower.parameters())


def test_two_tower_models_are_unwrapped():
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 20,
    }
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=vision_config().to_dict(), projection_dim=8))
    tower = VisionTower(whole.config, LAYERS, -2, whole)
    assert tower(torch.randn(1, 3, 32, 32)).patches.shape == (1, 16, 32)
    assert not any("text" in name for name, _ in tower.named_parameters())


@pytest.mark.parametrize(
    "layers, pixels, words",
    [
        ([-7, -4, -3, -2], (1, 3, 32, 32), ["-7", "6 hidden states"]),
        ([-5, -4, -3, 6], (1, 3, 32, 32), ["layer 6", "6 hidden states"]),
        (LAYERS, (3, 32, 32), ["[3, 32, 32]", "[B, 3, H, W]"]),
        (LAYERS, (1, 3, 4, 32), ["4 x 32", "8 x 8"]),
    ],
)
def test_errors_name_both_sides(layers, pixels, words):
    with pytest.raises(ValueError) as error:
        VisionTower(vision_config(), layers, -2)(torch.zeros(pixels))
    assert all(word in str(error.value) for word in words), error.value
