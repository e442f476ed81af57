"""The kept models of the ablation: they load, behave as their names say, and answer as often as their results say."""

import json
import random
import re

import pytest
import torch
from safetensors.torch import load_file

import roilab
from roilab import evaluation, weights
from roilab.scenes import language, sample
from roilab.tiny import ablation_table, arms

FOLDER = weights.ASSETS / "tiny-variants"
RESULTS = json.loads((FOLDER / "results.json").read_text())


@pytest.fixture(scope="module")
def load():
    models = {}

    def load(name):
        if name not in models:
            models[name] = roilab.load(f"tiny-{name}", device="cpu")
        return models[name]

    return load


def test_every_variant_is_small_and_has_the_log_of_its_run():
    for name in weights.VARIANTS:
        assert (FOLDER / f"{name}.safetensors").stat().st_size < 5e6
        logs = list(FOLDER.glob(f"log_{name}_*.jsonl"))
        assert logs, name
        for log in logs:
            assert "train_loss" in json.loads(log.read_text().splitlines()[-1])
    assert sum(path.stat().st_size for path in (FOLDER / "snapshots").iterdir()) <= 25e6


@pytest.mark.parametrize("name", weights.VARIANTS)
def test_a_variant_is_the_tiny_model_with_other_weights(name, load):
    own, tiny = load(name).state_dict(), roilab.load("tiny", device="cpu").state_dict()
    kept = set(load_file(FOLDER / f"{name}.safetensors"))
    assert own.keys() == tiny.keys() and kept | {"language_model.lm_head.weight"} == {
        key for key in own if not key.startswith(weights.loading.OF_ALL_VARIANTS)
    }
    for key in own:
        if key not in kept and "lm_head" not in key:
            assert torch.equal(own[key], tiny[key]), key
    key = "language_model.model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(own[key], tiny[key])


def test_the_results_are_of_all_arms_and_the_region_token_is_ahead():
    asked = {(each["arm"], each["training_seed"]) for each in RESULTS}
    assert asked == {(name, seed) for name, arm in arms.MODELS.items() for seed in range(arm.seeds)}
    rows = ablation_table.summary(RESULTS)
    token = rows["region token"]
    for name in ("text coordinates", "drawn marks", "image only", "text only", "crop only"):
        for key in ("attributes", "comparisons", "q_ar"):
            assert token[key]["interval"][0] > rows[name][key]["interval"][1], (name, key)
    assert rows["text only"]["q_a"]["interval"][0] <= 0.3 and rows["text only"]["q_ar"]["accuracy"] <= 0.1


@pytest.mark.parametrize("name, arm", [("region-token", "regions"), ("text-coordinates", "text_coordinates")])
def test_the_results_are_those_of_the_kept_weights(name, arm, load):
    found = next(each for each in RESULTS if each["arm"] == name.replace("-", " ") and each["training_seed"] == 0)
    families = ["kind", "colour", "larger"]
    result = evaluation.evaluate_scenes(load(name), scenes=40, seed=2, families=families, arm=arm)
    for family, each in result["families"].items():
        expected = found["families"][family]["accuracy"]
        tolerance = 4 * (expected * (1 - expected) * (1 / each["n"] + 1 / found["families"][family]["n"])) ** 0.5
        assert each["accuracy"] == pytest.approx(expected, abs=tolerance), family


def test_a_region_token_is_born_step_by_step(load):
    """Before stage 1 the model is stage 0 with the first snapshot; with the last of stage 1 it knows more kinds."""
    snapshots, model = weights.snapshots(), roilab.load("tiny-ablation-stage0", device="cpu")
    steps = [int(name.split("-")[1]) for name in snapshots if name.startswith("stage1")]
    assert steps[:4] == [0, 1, 4, 16] and steps == sorted(steps)
    shares = []
    for name in (f"stage1-{steps[0]:04}", f"stage1-{steps[-1]:04}"):
        state = load_file(snapshots[name])
        if not shares:
            assert torch.equal(state["content.weight"].float(), model.region_encoder.content.weight)
        model.region_encoder.load_state_dict(state)
        found = evaluation.evaluate_scenes(model, scenes=40, seed=2, families=["kind"])
        shares.append(found["families"]["kind"]["accuracy"])
    assert shares[1] > shares[0] + 0.15
    final = load_file(list(snapshots.values())[-1])
    for key, value in load("region-token").region_encoder.state_dict().items():
        torch.testing.assert_close(final[key].float(), value, rtol=2e-3, atol=1e-5)  # but for what rounds otherwise


def _pairs(count=40):
    """Scenes with a question whose answer is <region1> or <region2>, and its boxes."""
    for index in range(count):
        scene = sample(language.seed_of("test", 500_000 + index), held_out=False)
        asked = language.questions(scene, random.Random(index), ("larger", "left_of"), 8)
        question = next((each for each in asked if each.answers[0] in ("<region1>", "<region2>")), None)
        if question:
            yield scene, question


def _answers(model, rows):
    with torch.inference_mode():
        reader = evaluation.SceneReader(model, [scene for scene, _, _ in rows])
        asked = [(i, [{"role": "user", "content": text}], boxes) for i, (_, text, boxes) in enumerate(rows)]
        return evaluation.reading.answer_all(model, reader, asked)


def _names(answer):
    return set(re.findall(r"region(\d+)", answer))


def test_swapped_regions_are_answered_for_each_other(load):
    pairs = list(_pairs())
    rows = [(scene, question.text, question.boxes) for scene, question in pairs]
    truths = [_names(question.answers[0]) for _, question in pairs]
    said = [_names(answer) for answer in _answers(load("swaps-1-and-2"), rows)]
    other = [answer == {"1", "2"} - truth for answer, truth in zip(said, truths)]
    assert sum(other) > 0.85 * len(rows) > 25


def test_without_order_exchanged_boxes_change_little(load):
    rows = [(scene, question.text, question.boxes) for scene, question in _pairs()]
    turned = [(scene, text, boxes[::-1]) for scene, text, boxes in rows]

    def follows(name):
        one, two = _answers(load(name), rows), _answers(load(name), turned)
        return sum(_names(a) != _names(b) for a, b in zip(one, two)) / len(rows)

    assert follows("region-token") > 0.8
    assert follows("ignores-order") < 0.5


@pytest.mark.parametrize("name, reads_boxes", [("only-positions", True), ("only-text", False)])
def test_what_a_model_cannot_see_changes_nothing(name, reads_boxes, load):
    pairs, model = list(_pairs(20)), load(name)
    rows = [(scene, question.text, question.boxes) for scene, question in pairs]
    elsewhere = [(other, text, boxes) for (_, text, boxes), (other, _) in zip(rows, pairs[1:] + pairs[:1])]
    moved = [(scene, text, boxes[::-1]) for scene, text, boxes in rows]
    said = _answers(model, rows)
    assert _answers(model, elsewhere) == said
    assert (_answers(model, moved) == said) == (not reads_boxes)
