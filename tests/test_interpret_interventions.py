"""Cutting edges, patching states, taking tokens apart, moving boxes: each against what it must be."""

import dataclasses

import pytest
import torch
from conftest import TOKENIZERS, small_model
from PIL import ImageOps

import roilab
from roilab import Chat
from roilab.interpret.anatomy import exchange_positions, recombined, region_anatomy, slope
from roilab.interpret.attribution import from_pixels
from roilab.interpret.knockout import attention_knockout, edges, knockout_by_layer, patches_inside, random_edges
from roilab.interpret.live import Live, _word
from roilab.interpret.passes import log_probabilities, logits_at, prepare, score, splice
from roilab.interpret.patching import activation_patching, attribution_patching
from roilab.interpret.perturbation import segment_labels
from roilab.interpret.sensitivity import box_sensitivity
from roilab.interpret.target import Target

BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]


@pytest.fixture(scope="module")
def explained(_session_model, picture):
    return Target.of(Chat(_session_model, picture), "Is <region1> left of <region2>?", BOXES, answer="yes it is")


@pytest.fixture(scope="module")
def coloured():
    """tiny, a question about a colour, and the same about the scene with that colour changed."""
    model, scene = roilab.load("tiny"), roilab.scenes.sample(7)
    item = scene.objects[0]
    clean = Target.of(Chat(model, scene.image), "What colour is <region1>?", [item.box], about=item.colour)
    other = next(colour for colour in roilab.scenes.COLOURS if colour != item.colour)
    return model, clean, dataclasses.replace(clean, image=scene.edit(item, colour=other).image)


# Knockout


@pytest.mark.parametrize("layers", [None, [1]])
def test_knocking_a_region_out_for_all_later_queries_is_masking_its_key(model, explained, layers):
    """The same as an attention mask with that key switched off for the queries behind it; position ids stay."""
    position, length = explained.position(1), len(explained.ids)
    found = attention_knockout(model, explained, "region1", "later", layers, controls=0)
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    allowed[position + 1 :, position] = False
    mask = torch.zeros(length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]
    plain = torch.zeros(length, length).masked_fill(
        ~torch.ones(length, length, dtype=torch.bool).tril(), torch.finfo(torch.float32).min
    )
    with torch.no_grad():
        embeds = splice(model, prepare(model, explained))
        if layers is None:
            wanted = score(model, embeds, explained, attention_mask=mask)
        else:  # a mask for some layers alone: the layers one by one
            inner = model.language_model.model
            hidden, ids = embeds, torch.arange(length)[None]
            rotary = inner.rotary_emb(hidden, ids)
            for i, layer in enumerate(inner.layers):
                hidden = layer(
                    hidden,
                    attention_mask=mask if i in layers else plain[None, None],
                    position_ids=ids,
                    position_embeddings=rotary,
                )
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            logits = model.language_model.lm_head(inner.norm(hidden))[:, explained.predicting]
            wanted = log_probabilities(logits, explained).sum(1)
        assert abs(found.drop) > 1e-4
    assert found.cut == pytest.approx(wanted.item(), abs=1e-4)
    assert found.score == pytest.approx(score(model, embeds, explained).item(), abs=1e-4)
    assert found.edges == length - position - 1


def test_edges_exist_and_spare_the_position_itself():
    cut = edges(5, [1, 3], [0, 1, 3, 4])
    assert cut.nonzero().tolist() == [[1, 0], [3, 0], [3, 1]]


def test_controls_cut_as_many_other_edges_of_the_same_queries(model, explained):
    rows = explained.predicting
    cut = edges(len(explained.ids), rows, explained.positions("regions").tolist())
    other = random_edges(cut, rows, torch.Generator().manual_seed(0))
    assert torch.equal(cut.sum(1), other.sum(1)) and not (cut & other).any() and other.tril(-1).equal(other)
    found = attention_knockout(model, explained, "regions", controls=7, seed=1)
    assert len(found.control) == 7 and len(set(found.control)) > 1
    assert found.control == attention_knockout(model, explained, "regions", controls=7, seed=1).control
    assert found.control_drop == pytest.approx(found.score - sum(found.control) / 7)
    record = found.to_dict()
    assert record["drop"] == found.drop and record["keys"] == "regions" and record["target"]["answer"] == "yes it is"


def test_windows_of_layers(model, explained):
    found = knockout_by_layer(model, explained, "region1", "later", width=1, controls=0)
    assert [each.layers for each in found] == [[0], [1]]
    assert found[0].cut == attention_knockout(model, explained, "region1", "later", [0], controls=0).cut
    assert [each.layers for each in knockout_by_layer(model, explained, "region1", width=3, controls=0)] == [
        [0, 1],
        [0, 1],
    ]


def test_image_tokens_inside_a_box(model, picture):
    def inside(box):
        explained = Target.of(Chat(model, picture), "What is <region1>?", [box], answer="yes")
        first = explained.positions("image")[0].item()
        return [position - first for position in patches_inside(model, explained, 1)]

    assert inside((0, 0, 32, 24)) == [0, 1, 4, 5]  # a quarter of 4 x 4 patches
    assert inside((0, 0, 64, 48)) == list(range(16))
    assert inside((18, 14, 20, 16)) == [5]  # too small for any middle: the patch that it lies in


def test_cutting_the_region_takes_the_answer_cutting_its_pixels_does_not(coloured):
    """The shipped model reads colours from region tokens."""
    model, clean, _ = coloured
    region, pixels = (
        attention_knockout(model, clean, keys, "later", controls=0) for keys in ("region1", "inside region1")
    )
    assert region.drop > 3 > 0.3 > abs(pixels.drop)
    random = attention_knockout(model, clean, "region1", "later", controls=10)
    assert abs(random.control_drop) < 0.3 * random.drop


# Patching


def test_patching_everything_recovers_all_and_nothing_recovers_nothing(coloured):
    model, clean, corrupt = coloured
    found = activation_patching(model, clean, corrupt, {"everything": list(range(len(clean.ids))), "nothing": []})
    depths = model.config.text_config.num_hidden_layers + 1
    torch.testing.assert_close(found.recovered, torch.tensor([[1.0, 0.0]]).repeat(depths, 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.lost, torch.tensor([[1.0, 0.0]]).repeat(depths, 1), atol=1e-3, rtol=0)


def test_the_colour_enters_at_the_region_and_leaves_at_the_answer(coloured):
    model, clean, corrupt = coloured
    found = activation_patching(model, clean, corrupt)
    region, answer, image = (found.groups.index(name) for name in ("region1", "answer", "image"))
    for shares in (found.recovered, found.lost):
        assert shares[0, region] > 0.9 and shares[-1, region].abs() < 0.05
        assert shares[-1, answer] > 0.9 and shares[0, answer].abs() < 0.05
        assert shares[:, image].abs().max() < 0.1
    assert found.clean > found.corrupt + 3
    assert len(found.to_dict()["recovered"]) == len(found.recovered)


def test_a_patch_is_the_pass_with_that_state(model, explained):
    """One group at one depth, against a pass whose hidden state is overwritten by hand."""
    corrupt = dataclasses.replace(explained, image=ImageOps.invert(explained.image))
    positions = [explained.position(1), explained.position(1) + 1]
    found = activation_patching(model, explained, corrupt, {"two": positions})
    inner, kept = model.language_model.model, []
    hook = inner.layers[0].register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        embeds = [splice(model, prepare(model, each)) for each in (explained, corrupt)]
        clean_score, corrupt_score = (score(model, each, explained).item() for each in embeds)
        hook.remove()

        def put(module, args, output):
            output = output.clone()
            output[0, positions] = kept[0][0, positions]
            return output

        hook = inner.layers[0].register_forward_hook(put)
        by_hand = score(model, embeds[1], explained).item()
        hook.remove()
    assert found.recovered[1, 0].item() == pytest.approx(
        (by_hand - corrupt_score) / (clean_score - corrupt_score), abs=1e-3
    )


@pytest.mark.slow
def test_estimates_are_verified_and_right_where_the_model_is_linear(coloured):
    """Behind the last layer but for the norm: estimate and truth agree in sign; each listed estimate carries its true patch."""
    model, clean, corrupt = coloured
    found = attribution_patching(model, clean, corrupt, top=6)
    true = activation_patching(model, clean, corrupt, {str(i): [i] for i in range(len(clean.ids))})
    assert len(found.verified) == 6
    for depth, position, estimated, share in found.verified:
        assert estimated == pytest.approx(found.estimated[depth, position].item())
        assert share == pytest.approx(true.recovered[depth, position].item(), abs=1e-3)
    flat = torch.stack([found.estimated.flatten(), true.recovered.flatten()])
    assert torch.corrcoef(flat)[0, 1] > 0.7


def test_a_small_difference_is_estimated_to_first_order(model, explained, monkeypatch):
    """A box moved by a hair changes the target linearly: estimate and truth are the same."""
    box = [explained.boxes[0][0] + 0.4, *explained.boxes[0][1:]]
    corrupt = dataclasses.replace(explained, shapes=[box, explained.boxes[1]])
    monkeypatch.setattr("roilab.interpret.patching.CLOSE", 0.0)
    found = attribution_patching(model, explained, corrupt, top=3)
    assert found.estimated[0, explained.position(1)].item() == pytest.approx(1, abs=0.15)


# Anatomy


def test_the_terms_of_a_token_add_up(coloured, model, explained):
    for each, about in ((coloured[0], coloured[1]), (model, explained)):
        parts = region_anatomy(each, about)
        assert parts.difference < 1e-5
        side = each.config.region_config.roi_size
        assert parts.cells.shape == (side, side, each.config.text_config.hidden_size)
        direction = torch.randn(len(parts.token), generator=torch.Generator().manual_seed(0))
        bias, position, heat = parts.read(direction)
        assert bias + position + heat.sum().item() == pytest.approx((parts.token @ direction).item(), abs=1e-4)
    with pytest.raises(ValueError, match=r"a direction of shape \[3\], the token has \[48\]"):
        parts.read(torch.zeros(3))


def test_a_cell_is_where_it_lies_in_the_box(model, explained):
    """Zeroing one cell's features takes exactly that cell's term out of the token."""
    parts, inputs = region_anatomy(model, explained), prepare(model, explained)
    encoder = model.region_encoder

    def without(module, args, output):
        output = output.clone()
        output[:, :, 1, 3] = 0
        return output

    hook = encoder.cells.register_forward_hook(without)
    with torch.no_grad():
        token = encoder.pool(inputs.fused, [inputs.boxes[:1]])[0][0]
    hook.remove()
    torch.testing.assert_close(token, parts.token - parts.cells[1, 3], atol=1e-5, rtol=1e-4)


def test_content_and_position_are_put_together_anew(model, explained):
    one, two = region_anatomy(model, explained, 1), region_anatomy(model, explained, 2)
    torch.testing.assert_close(recombined(model, explained, 1, 1), one.token, atol=1e-5, rtol=1e-4)
    mixed = recombined(model, explained, content=1, position=2)
    torch.testing.assert_close(mixed, one.token - one.position + two.position, atol=1e-5, rtol=1e-4)
    exchanged = exchange_positions(model, explained)[0]
    torch.testing.assert_close(exchanged[explained.index(1)], mixed, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(exchanged.sum(0), one.token + two.token, atol=1e-4, rtol=1e-4)


def test_the_slope_is_a_direction_of_the_token(model, explained):
    direction = slope(model, explained, region=2)
    inputs, step = prepare(model, explained), 1e-2
    with torch.no_grad():
        changed = inputs.regions.repeat(2, 1, 1)
        changed[:, explained.index(2)] += step * direction / direction.norm() * torch.tensor([[1.0], [-1.0]])
        up, down = score(model, splice(model, inputs, regions=changed), explained)
    assert (up - down).item() / (2 * step) == pytest.approx(direction.norm().item(), rel=0.05)


# Box sensitivity


def test_every_shifted_and_scaled_box_scores_as_if_asked_with_it(model, explained):
    found = box_sensitivity(model, explained, region=2, steps=3, factors=(0.5, 1, 3), batch=4)
    width, height = explained.image.size
    x1, y1, x2, y2 = explained.boxes[explained.index(2)]

    def scored(box):
        boxes = [list(each) for each in explained.boxes]
        boxes[explained.index(2)] = [max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])]
        changed = dataclasses.replace(explained, shapes=boxes)
        with torch.no_grad():
            return score(model, splice(model, prepare(model, changed)), changed).item()

    w, h = x2 - x1, y2 - y1
    assert found.score == pytest.approx(scored((x1, y1, x2, y2)), abs=1e-3) and found.scaled[1] == pytest.approx(
        found.score, abs=1e-4
    )
    assert found.x == pytest.approx([w / 2, width / 2, width - w / 2]) and found.y == pytest.approx(
        [h / 2, height / 2, height - h / 2]
    )
    for row, column in ((0, 0), (2, 1), (1, 2)):
        x, y = found.x[column], found.y[row]
        assert found.shifted[row, column].item() == pytest.approx(
            scored((x - w / 2, y - h / 2, x + w / 2, y + h / 2)), abs=1e-3
        )
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    assert found.scaled[2] == pytest.approx(scored((x - 1.5 * w, y - 1.5 * h, x + 1.5 * w, y + 1.5 * h)), abs=1e-3)
    assert found.to_dict()["region"] == 2 and len(found.to_dict()["shifted"]) == 3


@torch.no_grad()
def test_outlines_are_explained_as_they_are_shown(model, picture):
    """Tokens, their terms, the patches inside, shifted boxes and pixels taken out: all with the outline's cells alone."""
    lasso = [[4, 4], [40, 6], [20, 44]]
    explained = Target.of(Chat(model, picture), "Is <region1> left of <region2>?", [lasso, BOXES[1]], answer="yes")
    assert explained.shapes == [lasso, list(BOXES[1])] and explained.boxes == [[4, 4, 40, 44], list(BOXES[1])]
    inputs = prepare(model, explained)
    wanted = model.region_encoder.pool(inputs.fused, [inputs.boxes], [inputs.masks])[0]
    torch.testing.assert_close(inputs.regions[0], wanted)
    whole = prepare(model, dataclasses.replace(explained, shapes=explained.boxes))
    assert (inputs.regions - whole.regions)[0, 0].abs().max() > 1e-4
    parts = region_anatomy(model, explained, 1)
    assert parts.difference < 1e-5 and (parts.cells[inputs.masks[0] == 0] == 0).all()
    first = explained.positions("image")[0].item()
    inside = {position - first for position in patches_inside(model, explained, 1)}
    boxed = dataclasses.replace(explained, shapes=explained.boxes)
    assert inside < {position - first for position in patches_inside(model, boxed, 1)}
    found = box_sensitivity(model, explained, 1, steps=2, factors=(1,))
    assert found.scaled[0] == pytest.approx(found.score, abs=1e-4)
    assert found.score == pytest.approx(score(model, splice(model, inputs), explained).item(), abs=1e-3)
    forward = from_pixels(model, explained)
    pixels = model.processor.preprocess(picture).expand(2, -1, -1, -1)
    torch.testing.assert_close(forward(pixels), torch.full((2,), found.score), atol=1e-3, rtol=1e-3)
    labels = segment_labels(model, explained, "regions", (48, 64))
    assert labels[6, 6] == 1 and labels[20, 50] == 2 and labels[2, 2] == 0


def test_mistakes_name_both_sides(model, explained, picture):
    for call, words in {
        lambda: attention_knockout(model, explained, "region7"): "no part region7; the parts are system, image",
        lambda: attention_knockout(
            model, explained, "inside region7"
        ): "region7 is not shown to the model; the regions are region1, region2",
        lambda: attention_knockout(model, explained, "region1", layers=[5]): "layer 5, but the layers are 0 to 1",
        lambda: attention_knockout(
            model, explained, [400]
        ): f"position 400, but the sequence has {len(explained.ids)} positions",
        lambda: attention_knockout(model, explained, "region1", [0]): "no edge from",
        lambda: attention_knockout(model, explained, list(range(30)), [32]): "pass controls=0",
        lambda: activation_patching(model, explained, explained): "nothing to recover",
        lambda: activation_patching(
            model, explained, Target.of(Chat(model, picture), "What is <region1>?", BOXES[:1], answer="it")
        ): "must have the same words",
        lambda: region_anatomy(model, explained, 3): "region3 is not shown to the model",
        lambda: box_sensitivity(model, explained, 3): "region3 is not shown to the model",
    }.items():
        with pytest.raises(ValueError, match=words):
            call()


def test_live_answers_leave_out_the_tokens_that_generate_leaves_out(picture):
    model, question = small_model(), "Is <region1> larger than <region2>?"
    first = Chat(model, picture).ask(question, BOXES).ids[0]
    model.generation_config.suppress_tokens.append(first)
    asked = Chat(model, picture).ask(question, BOXES, max_new_tokens=64)
    assert first not in asked.ids
    chat = Chat(model, picture)
    chat.revise(BOXES)
    assert Live(chat, question)(BOXES).answer == asked.text


def test_live_answers_are_those_of_chat_and_its_words_those_of_the_model(model, picture):
    chat = Chat(model, picture)
    chat.revise(BOXES)
    live = Live(chat, "Is <region1> larger than <region2>?", top=5)
    assert live.token == live.target.positions("answer").tolist().index(live.target.chosen[0])
    for boxes in ([(1, 1, 20, 20), (30, 20, 64, 48)], BOXES):
        found = live([list(map(float, box)) for box in boxes])
        asked = Chat(model, picture)
        assert found.answer == asked.ask("Is <region1> larger than <region2>?", boxes, max_new_tokens=64).text
        moved = dataclasses.replace(live.target, shapes=[list(map(float, box)) for box in boxes])
        logits = logits_at(model, splice(model, prepare(model, moved)), [live.target.chosen[0] - 1])
        chances = logits[0, 0].softmax(-1).topk(5)
        torch.testing.assert_close(torch.tensor(found.probabilities), chances.values, atol=1e-5, rtol=1e-4)
        decoded = [model.processor.tokenizer.decode([i]) for i in chances.indices.tolist()]
        assert found.words == [_word(each) for each in decoded]
    assert [_word(each) for each in (" ball", " ", "\x10")] == ["ball", "␣", "\\x10"]


def test_live_says_what_it_cannot_do(model, picture):
    chat = Chat(model, picture)
    chat.revise(BOXES)
    with pytest.raises(ValueError, match="token 9, but the answer 'She runs.' has"):
        Live(chat, "What is <region1>?", "She runs.", token=9)
    live = Live(chat, "What is <region2>?", "She runs.", token=0)
    for shapes in ([BOXES[0]], [BOXES[0], None]):
        with pytest.raises(ValueError, match=r"no region 2 on the picture; the regions: \[1\]"):
            live(shapes)


@pytest.mark.parametrize("template", list(TOKENIZERS))
def test_what_is_said_is_what_is_generated(template, picture):
    model = small_model(template)
    chat = Chat(model, picture)
    chat.revise(BOXES)
    found = Live(chat, "What is <region1>?", "She runs.", token=0)(chat.regions)
    assert found.answer == chat.ask("What is <region1>?", max_new_tokens=64).text


def test_live_answers_a_question_without_regions_at_any_token(model, picture):
    chat = Chat(model, picture)
    found = Live(chat, "What is in the picture?", "She runs.", token=1)([])
    assert found.answer == chat.ask("What is in the picture?", max_new_tokens=64).text
