"""Studies of many targets: rows are the single measurements, and a study that was cut off goes on."""

import dataclasses
import functools
import json

import pytest
import torch

import roilab
from roilab import Chat, interpret
from roilab.interpret import measuring
from roilab.interpret import scenes as scene_studies
from roilab.interpret.attention import attention_map, relevance, rollout
from roilab.interpret.attribution import to_pixels
from roilab.interpret.faithfulness import deletion_insertion, energy_in_region, pointing_game
from roilab.interpret.knockout import attention_knockout
from roilab.interpret.passes import prepare, score, splice
from roilab.interpret.perturbation import cover
from roilab.interpret.regions import region_tests
from roilab.interpret.sanity import rank_correlation
from roilab.interpret.sensitivity import box_sensitivity
from roilab.interpret.studies import study
from roilab.interpret.target import Target

BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]
METHODS = {"attention": attention_map, "rollout": rollout}


@pytest.fixture(scope="module")
def targets(_session_model, picture):
    chat = Chat(_session_model, picture)
    return [
        Target.of(chat, "What is <region1>?", [box], answer=answer) for box in BOXES for answer in ("yes", "a ball")
    ]


def test_rows_are_the_single_measurements(model, targets):
    table = study(
        model,
        targets,
        METHODS,
        steps=4,
        measures={"index": lambda i, scores: 10 * i + len(scores.method)},
        progress=False,
    )
    assert list(zip(table["target"], table["method"], strict=True)) == [(i, name) for i in range(4) for name in METHODS]
    scores = rollout(model, targets[2])
    row = table.iloc[5]
    areas = deletion_insertion(model, scores, steps=4).areas
    assert (row["deletion"], row["insertion"]) == pytest.approx(areas["method"])
    assert (row["deletion_random"], row["insertion_random"]) == pytest.approx(areas["random"])
    assert (row["deletion_centre"], row["insertion_centre"]) == pytest.approx(areas["centre"])
    assert row["pointing"] == pointing_game(scores, BOXES[1]) and row["energy"] == pytest.approx(
        energy_in_region(scores, BOXES[1])
    )
    assert row["index"] == 20 + len("rollout") and row["question"] == "What is <region1>?" and row["answer"] == "yes"


def test_a_study_that_was_cut_off_goes_on(model, targets, tmp_path):
    path, calls = tmp_path / "study.jsonl", []

    def counted(model, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return attention_map(model, target)

    with pytest.raises(KeyboardInterrupt):
        study(model, targets, {"attention": counted}, path, steps=2, progress=False)
    with open(path, "a") as file:
        file.write('{"target": 2, "meth')  # the machine went down within a line
    table = study(model, targets, {"attention": counted}, path, steps=2, progress=False)
    assert len(calls) == 5 and calls[3] is targets[2]  # two were there, the third is made again
    assert table["target"].tolist() == [0, 1, 2, 3]
    again = study(model, targets, {"attention": counted}, path, steps=2, progress=False)
    assert len(calls) == 5 and again.equals(table)
    assert [json.loads(line)["target"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="holds a row of target 0, 'What is <region1>\\?'; this study's target 0"):
        study(model, targets[2:], {"attention": counted}, path, progress=False)


def test_a_target_without_region_is_refused(model, picture):
    with pytest.raises(ValueError, match=r"target 0 \('What is it\?'\) shows no region"):
        study(model, [Target.of(Chat(model, picture), "What is it?", answer="yes")], METHODS)


@pytest.mark.parametrize(
    "method",
    [
        attention_map,
        relevance,
        functools.partial(to_pixels, steps=50, batch=4),
        functools.partial(cover, method="shapley", samples=2),
        functools.partial(attention_knockout, keys="region1"),
        box_sensitivity,
        region_tests,
    ],
)
def test_any_method_can_be_watched_and_cancelled(model, targets, method):
    """The callback hears of every pass; what it raises ends the method, and the model is as it was."""
    heard, before = [], model.language_model.config._attn_implementation
    hooks = [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules()]
    with interpret.listening(heard.append):
        method(model, targets[0])
    passes = len(heard)
    assert passes and sum(heard) >= passes

    class Cancelled(Exception):
        pass

    def cancel(sequences):
        heard.append(sequences)
        if len(heard) == passes:
            raise Cancelled

    heard.clear()
    with pytest.raises(Cancelled), interpret.listening(cancel):
        method(model, targets[0])
    assert model.language_model.config._attn_implementation == before
    assert hooks == [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules()]
    method(model, targets[0])  # outside nobody listens
    assert len(heard) == passes


@pytest.fixture(scope="module")
def tiny():
    return roilab.load("tiny"), scene_studies.world(4)


def test_changing_the_object_that_is_asked_about_changes_the_answer_most(tiny):
    model, world = tiny
    targets = scene_studies.colour_targets(model, world)
    for scene, target in zip(world, targets, strict=True):
        effects = scene_studies.edit_effects(model, scene, target)
        asked = next(i for i, item in enumerate(scene.objects) if list(item.box) == list(target.boxes[0]))
        assert max(range(len(effects)), key=effects.__getitem__) == asked and effects[asked] > 1
    scene, target = world[0], targets[0]
    item = scene.objects[0]
    others = {
        colour: dataclasses.replace(target, image=scene.edit(item, colour=colour).image)
        for colour in roilab.scenes.COLOURS
    }
    with torch.no_grad():
        plain = score(model, splice(model, prepare(model, target)), target).item()
        true = [
            abs(plain - score(model, splice(model, prepare(model, each)), target).item()) for each in others.values()
        ]
    assert any(scene_studies.edit_effects(model, scene, target)[0] == pytest.approx(each, abs=1e-3) for each in true)


@pytest.mark.slow
def test_a_map_is_ranked_against_the_true_effects(tiny):
    model, world = tiny
    table = scene_studies.scene_study(model, world[:2], {"attention": attention_map}, steps=2, progress=False)
    target = scene_studies.colour_targets(model, world[:1])[0]
    found = [energy_in_region(attention_map(model, target), item.box) for item in world[0].objects]
    effects = scene_studies.edit_effects(model, world[0], target)
    assert table["edit"][0] == pytest.approx(rank_correlation(torch.tensor(found), torch.tensor(effects)))


def test_where_is_in_the_position_and_what_in_the_content(tiny):
    """On a few scenes; `roilab study` counts it on many."""
    model, world = tiny
    found = scene_studies.exchanged_positions(model, world)
    assert (
        found["left of flips"][0] >= found["left of flips"][1] - 1
        and found["colour stays"][0] >= found["colour stays"][1] - 1
    )
    assert found["left of flips"][1] == found["colour stays"][1] == len(scene_studies.pairs(world))


@pytest.mark.slow
def test_verdicts_and_findings_are_counted(tiny):
    model, world = tiny
    assert scene_studies.verdicts(model, world) == {"uses the region token": 4}
    assert scene_studies.findings(model, world, each=2) == {"uses its region tokens": 2}
    assert "uses the region token" not in scene_studies.verdicts(roilab.load("tiny-only-text"), world[:2])


RESULTS = {
    "findings": {"tiny": {"uses its region tokens": 24, "uses only positions": 1}, "tiny-only-text": {"reads only the text": 25}},
    "verdicts": {"tiny": {"uses the region token": 198, "guesses from the text": 2}, "tiny, random weights": {"guesses from the text": 200}},
    "positions": {"left of flips": [190, 200], "colour stays": [200, 200]},
    "methods": [
        {
            "method": method, "pointing": method == "a" or i % 2 == 0, "energy": 0.25 if i else float("nan"), "deletion": 0.1 * i, "insertion": 0.5, "edit": 1.0,
            "deletion_random": 0.2, "insertion_random": 0.3, "deletion_centre": 0.4, "insertion_centre": 0.6,
        }
        for i in range(4)
        for method in ("a", "b")
    ],
}  # fmt: skip


def test_the_tables_tell_shares_means_and_intervals():
    lines = measuring.table(RESULTS).splitlines()
    assert lines[0] == (
        "| model | uses its region tokens | ignores the order of regions | uses only positions | reads only the text | swaps regions 1 and 2 | right, % |"
    )
    assert lines[2] == "| tiny | 24 | 0 | 1 | 0 | 0 | 96.0 (80.5 - 99.3), 25 |"  # Wilson's interval, by hand
    assert lines[3] == "| tiny-only-text | 0 | 0 | 0 | 25 | 0 | 100.0 (86.7 - 100.0), 25 |"
    assert "| tiny | 99.0 (96.4 - 99.7), 200 |" in lines and "| tiny, random weights | 0.0 (0.0 - 1.9), 200 |" in lines
    assert "| left of flips | 95.0 (91.0 - 97.3), 200 |" in lines
    a, b, random, centre = (
        next(line for line in lines if line.startswith(f"| {name} |"))
        for name in ("a", "b", "random order", "centre order")
    )
    assert a.startswith("| a | 100.0 ± 0.0 | 25.0 ± 0.0 | 0.150 ± 0.1") and a.endswith(
        "| 0.500 ± 0.000 | 1.000 ± 0.000 |"
    )
    assert b.startswith("| b | 50.0 ± 50.0 |")
    assert random == "| random order |  |  | 0.200 ± 0.000 | 0.300 ± 0.000 |  |" and "0.400" in centre
    odd = RESULTS | {"findings": {"tiny": {"dreams": 1}}}
    assert "| dreams |" in measuring.table(odd).splitlines()[0]


@pytest.mark.slow
def test_what_is_measured_is_kept_and_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(
        measuring, "PLANTED", {"tiny": "uses its region tokens", "tiny-only-text": "reads only the text"}
    )
    monkeypatch.setattr("roilab.interpret.scenes.study", functools.partial(study, steps=2))
    monkeypatch.setattr("roilab.interpret.studies.METHODS", METHODS)
    results = measuring.measure(9, out=tmp_path / "study")
    assert results["findings"] == {"tiny": {"uses its region tokens": 1}, "tiny-only-text": {"reads only the text": 1}}
    assert sum(results["verdicts"]["tiny"].values()) == 9 and results["verdicts"]["tiny"]["uses the region token"] >= 8
    assert results["verdicts"]["tiny, random weights"] != results["verdicts"]["tiny"]
    assert [row["method"] for row in results["methods"]] == [*METHODS] * 9
    assert json.loads(json.dumps(results)) == results

    def broken(*given):
        raise AssertionError("measured again")

    for name in ("findings", "verdicts", "exchanged_positions"):
        monkeypatch.setattr(measuring, name, broken)
    assert measuring.measure(9, out=tmp_path / "study") == results
    assert "uses its region tokens" in measuring.table(results)
