"""What a model takes, counted from its configuration, against tensors that are there."""

import pytest
import torch

import roilab
from roilab import presets
from roilab.weights import generated
from roilab.weights.budget import NF4, budget, budget_table


def held(module) -> int:
    return sum(each.numel() * each.element_size() for each in module.parameters())


def test_every_part_is_what_a_model_holds(model, picture):
    found = budget(model.config, itemsize=4)
    for name in ("vision", "projector", "region_encoder"):
        assert found[name] == held(model.get_submodule(name))
    assert found["layers"] + found["words"] == held(model.language_model)
    layers = [each for name, each in model.language_model.named_parameters() if "proj.weight" in name]
    assert found["layers"] == sum(each.numel() * 4 for each in layers)


@pytest.mark.parametrize("template", ["tiny", "vicuna_v0"])
def test_the_caches_of_a_conversation(template, picture):
    from conftest import small_model

    model = small_model(template)
    chat = roilab.Chat(model, picture, max_new_tokens=3)
    chat.ask("What is <region1>?", regions=[(5, 4, 40, 30)])
    memory = chat._memory
    kept = memory._past
    positions = kept.get_seq_length()
    tensors = [each for layer in kept.layers for each in (layer.keys, layer.values)]
    found = budget(model.config, positions, itemsize=4)
    assert found["keys and values"] == sum(each.numel() * 4 for each in tensors)
    assert found["fused pyramid"] == sum(each.numel() * 4 for each in memory._fused)


@pytest.mark.slow
def test_four_bits_are_what_bitsandbytes_holds(tmp_path):
    from roilab.weights import convert, four_bit

    config = generated.small_config(hidden_size=256, intermediate_size=512)
    files = generated.write_official(tmp_path / "files", config)
    convert(files / "official", tmp_path / "out", files / "llama", files / "clip", progress=False)
    model = roilab.load(tmp_path / "out", device="cpu", quantization_config=four_bit("cpu"))
    found = budget(model.config, four_bit=True, itemsize=4)
    quantised = [each for each in model.parameters() if type(each).__name__ == "Params4bit"]
    packed = sum(each.numel() * each.element_size() for each in quantised)
    states = [each.quant_state for each in quantised]
    scales = sum(each.absmax.numel() * each.absmax.element_size() for each in states)
    scales += sum(each.state2.absmax.numel() * 4 for each in states)
    assert len(quantised) == 21 and found["layers"] == pytest.approx(packed + scales, rel=1e-3)
    others = sum(each.numel() * each.element_size() for each in model.language_model.parameters()) - packed
    assert found["words"] == others


def test_the_7b_fits_a_t4_in_four_bits_alone():
    whole, quantised = (sum(budget(presets.paper_7b(), four_bit=each).values()) for each in (False, True))
    assert whole > 15e9 > 8e9 > quantised
    layers = budget(presets.paper_7b(), four_bit=True)["layers"] / 6.476e9  # parameters of LLaMA-7B's layers
    assert layers == pytest.approx(NF4, rel=1e-3)
    table = budget_table(presets.paper_7b(), 1000)
    assert (
        "| 1,000 positions, GB |" in table
        and f"{budget(presets.paper_7b(), 1000)['keys and values'] / 1e9:.2f}" in table
    )


def test_the_13b_has_its_size():
    with torch.device("meta"):
        from roilab.model import GPT4RoI

        model = GPT4RoI(presets.paper_13b())
    assert 13.0e9 < sum(each.numel() for each in model.language_model.parameters()) < 13.1e9
    assert model.region_encoder.output.out_features == 5120
