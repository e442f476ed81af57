"""Attention maps, rollout, relevance and the logit lens, against formulas written out."""

import inspect

import pytest
import torch
from conftest import small_model

from roilab import Chat
from roilab.interpret.attention import attention_map, relevance, rollout, sink_positions
from roilab.interpret.lens import logit_lens, unembed
from roilab.interpret.passes import prepare, splice
from roilab.interpret.target import Target
from roilab.interpret.tracing import trace

BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]


@pytest.fixture(scope="module")
def explained(_session_model, picture):
    return Target.of(
        Chat(_session_model, picture), "Is <region1> left of <region2>?", BOXES, answer="yes it is", about="it"
    )


def dense(model, explained):
    """All attention maps [L, heads, T, T] with their gradients of the target, from transformers' own eager pass."""
    language_model = model.language_model
    language_model.set_attn_implementation("eager")
    try:
        embeds = splice(model, prepare(model, explained)).detach().requires_grad_()
        output = language_model(inputs_embeds=embeds, output_attentions=True)
        ids = torch.tensor([explained.ids[i] for i in explained.chosen])
        total = output.logits[0, explained.predicting].log_softmax(-1).gather(1, ids[:, None]).sum()
        slopes = torch.autograd.grad(total, output.attentions)
        return torch.cat(output.attentions).detach(), torch.cat(slopes)
    finally:
        language_model.set_attn_implementation("sdpa")


def test_attention_is_the_mean_over_layers_heads_and_chosen_tokens(model, explained):
    maps, _ = dense(model, explained)
    found = attention_map(model, explained)
    torch.testing.assert_close(found.positions, maps[:, :, explained.predicting].mean((0, 1, 2)), atol=1e-6, rtol=1e-4)
    assert sum(found.parts.values()) == pytest.approx(1, abs=1e-5)
    one = attention_map(model, explained, layers=[1], heads=[2])
    torch.testing.assert_close(one.positions, maps[1, 2, explained.predicting].mean(0), atol=1e-6, rtol=1e-4)
    assert found.image.shape == model.vision.grid
    assert set(found.regions) == {1, 2} and len(found.text) == len(explained.positions("text"))
    with pytest.raises(ValueError, match="head 9, but the heads are 0 to 3"):
        attention_map(model, explained, heads=[9])


def test_rollout_is_the_product_of_half_mixed_maps(model, explained):
    maps, _ = dense(model, explained)
    product = torch.eye(maps.shape[-1])
    for heads in maps:
        mixed = heads.mean(0) / 2 + torch.eye(len(product)) / 2
        product = mixed / mixed.sum(1, keepdim=True) @ product
    found = rollout(model, explained)
    torch.testing.assert_close(found.positions, product[explained.predicting].mean(0), atol=1e-6, rtol=1e-4)
    assert found.settings["map_bytes"] == maps[0].nbytes
    assert (found.positions[explained.predicting[-1] + 1 :] == 0).all()  # nothing comes from behind


def test_relevance_is_that_of_the_dense_formula(model, explained):
    maps, slopes = dense(model, explained)
    relevances = torch.eye(maps.shape[-1])
    for heads, upon in zip(maps, slopes, strict=True):
        relevances = relevances + (heads * upon).clamp_min(0).mean(0) @ relevances
    wanted = (relevances - torch.eye(len(relevances)))[explained.predicting].mean(0)
    found = relevance(model, explained)
    torch.testing.assert_close(found.positions, wanted, atol=1e-6, rtol=1e-3)
    assert found.positions.max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_said_of_a_sink_goes_to_the_others(model, explained, picture):
    states = torch.randn(4, 6, 1024, generator=torch.Generator().manual_seed(0))
    states[1:-1, 0, 7] = 900  # the first position, and one other with the same large entry
    states[2, 3, 7] = 800
    states[2, 4, 8] = 800  # large, but in no sink dimension
    assert sink_positions(states) == [0, 3]
    found = attention_map(model, explained, sinks=False)
    assert 0 in found.settings["sink_positions"] and found.positions[0] == 0
    assert sum(found.parts.values()) == pytest.approx(1, abs=1e-5)
    rows = trace(model, explained).attention[
        :, :, [explained.positions("answer").tolist().index(i) for i in explained.chosen]
    ]
    rows[..., found.settings["sink_positions"]] = 0
    torch.testing.assert_close(
        found.positions, (rows / rows.sum(-1, keepdim=True)).mean((0, 1, 2)), atol=1e-6, rtol=1e-4
    )


def test_a_generic_question_takes_its_share_of_the_image_off(model, explained):
    plain, less = attention_map(model, explained), attention_map(model, explained, generic="What is in the picture?")
    patches = explained.positions("image")
    general = Target.of(Chat(model, explained.image), "What is in the picture?")
    off = attention_map(model, general)
    torch.testing.assert_close(
        plain.positions[patches] - less.positions[patches], off.positions[general.positions("image")]
    )
    others = explained.positions("regions", "text")
    torch.testing.assert_close(plain.positions[others], less.positions[others])


def test_the_last_state_of_the_lens_is_the_model_itself(model, explained):
    last = explained.predicting
    lens = logit_lens(model, explained, positions=last, words=["it"], top=3, control=False)
    with torch.no_grad():
        logits = model.language_model(inputs_embeds=splice(model, prepare(model, explained))).logits[0, last]
    wanted = logits.softmax(-1).topk(3)
    torch.testing.assert_close(lens.probabilities[-1], wanted.values, atol=1e-5, rtol=1e-4)
    assert lens.tokens[-1] == [
        model.processor.tokenizer.batch_decode([[i] for i in row]) for row in wanted.indices.tolist()
    ]
    first = model.processor.tokenizer(" it", add_special_tokens=False)["input_ids"][0]
    torch.testing.assert_close(lens.words["it"][-1], logits.softmax(-1)[:, first], atol=1e-5, rtol=1e-4)
    assert len(lens.tokens) == len(lens.probabilities) == model.config.text_config.num_hidden_layers + 1


def test_the_lens_control_sees_other_regions(model, explained):
    lens = logit_lens(model, explained)
    assert lens.positions == explained.positions("regions").tolist()
    with torch.no_grad():
        inputs = prepare(model, explained)
        wanted = unembed(model, inputs.regions[0]).softmax(-1).topk(5).values  # state 0 is the region token itself
    torch.testing.assert_close(lens.probabilities[0], wanted, atol=1e-5, rtol=1e-4)
    assert (lens.probabilities[0] - lens.control.probabilities[0]).abs().max() > 1e-4
    with pytest.raises(ValueError, match="0 positions to look at"):
        logit_lens(model, Target.of(Chat(model, explained.image), "What is it?", answer="it"))
    assert lens.to_dict()["control"]["positions"] == lens.positions


def test_relevance_refuses_logits_that_are_no_output_layer_of_the_final_norm(explained, picture, monkeypatch):
    model = small_model()
    plain = model.language_model.forward

    def capped(*args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = 3 * torch.tanh(output.logits)
        return output

    capped.__signature__ = inspect.signature(plain)
    monkeypatch.setattr(model.language_model, "forward", capped)
    with pytest.raises(ValueError, match="relevance cannot be computed"):
        relevance(model, Target.of(Chat(model, picture), "What is <region1>?", BOXES[:1], answer="it"))
