"""`roilab.evaluation.evaluate_scenes`: the numbers it reports are those of the model, and right and wrong are told apart."""

import random

import pytest
import torch

from roilab import evaluation
from roilab.demo import rounds_about
from roilab.scenes import language, sample


def test_wilson_interval_by_hand():
    # p = 0.8, n = 100, z = 1.96: centre (0.8 + 1.9208/100)/(1.038416), half 1.96 sqrt(0.0016 + 3.8416/40000)/1.038416
    low, high = evaluation.interval(80, 100)
    assert low == pytest.approx(0.7112, abs=1e-3) and high == pytest.approx(0.8666, abs=1e-3)
    assert evaluation.interval(0, 0) == (0.0, 1.0)
    assert evaluation.interval(50, 50)[1] == pytest.approx(1.0)


@pytest.fixture
def rows():
    worlds = [sample(seed, held_out=False) for seed in (3, 4)]
    found = [
        (i, q)
        for i, scene in enumerate(worlds)
        for q in language.questions(scene, random.Random(i), ["kind", "left_of", "caption"], 4)
    ]
    assert len({len(q.boxes) for _, q in found}) > 1  # different numbers of regions, none included
    return worlds, [(i, [{"role": "user", "content": q.text}], q.boxes) for i, q in found]


def test_batched_answers_are_those_of_a_chat(model, rows):
    from roilab import Chat

    worlds, rows = rows
    with torch.inference_mode():
        answers = evaluation.answer_all(model, evaluation.SceneReader(model, worlds), rows, max_new_tokens=6)
    for (i, turns, boxes), answer in zip(rows, answers):
        alone = Chat(model, worlds[i].image, max_new_tokens=6).ask(turns[0]["content"], regions=list(boxes) or None)
        assert alone.text == answer


def test_letters_are_scored_by_their_log_probability(model, rows):
    worlds, rows = rows
    with torch.inference_mode():
        chosen = evaluation.choose_letters(model, evaluation.SceneReader(model, worlds), rows)
        for (i, turns, boxes), best in zip(rows, chosen):
            scores = []
            for letter in "ABCD":
                whole = [*turns, {"role": "assistant", "content": f"({letter})"}]
                batch = model.processor.collate([dict(image=worlds[i].image, turns=whole, boxes=list(boxes))])
                logits = model(
                    batch["input_ids"], batch["attention_mask"], batch["pixel_values"], batch["boxes"]
                ).logits
                steps = logits[0, :-1].log_softmax(-1)
                ids = batch["input_ids"][0, 1:]
                letters = model.processor.tokenizer(f"({letter})", add_special_tokens=False)["input_ids"]
                start = len(ids) - len(letters) - 1  # the stop marker comes last
                scores.append(sum(steps[start + k, ids[start + k]].item() for k in range(len(letters) - 1)))
            assert scores[best] == pytest.approx(max(scores), abs=1e-4)


def test_evaluation_counts_right_and_wrong(model, monkeypatch):
    """With a stand-in that always gives the first accepted answer every family is at 1; with another at 0."""
    truth = {}
    questions = language.questions

    def remember(scene, rng, families=None, count=1):
        found = questions(scene, rng, families, count)
        for q in found:
            truth[q.text, q.boxes] = language.plain(q.answers[0])
        return found

    monkeypatch.setattr(language, "questions", remember)
    monkeypatch.setattr("roilab.scenes.dialogue.questions", remember)  # `question_about` asks there
    monkeypatch.setattr(
        evaluation.scenes,
        "answer_all",
        lambda model, reader, rows, **k: [truth[t[0]["content"], b] for _, t, b in rows],
    )
    wanted = ["kind", "colour", "left_of"]
    errors = []
    result = evaluation.evaluate_scenes(model, scenes=3, seed=1, families=wanted, errors=errors)
    assert {f: r["accuracy"] for f, r in result["families"].items()} == dict.fromkeys(wanted, 1.0)
    assert result["families"]["kind"]["n"] == 3 and result["held_out_combinations"]["accuracy"] == 1 and errors == []
    monkeypatch.setattr(evaluation.scenes, "answer_all", lambda model, reader, rows, **k: ["no idea"] * len(rows))
    result = evaluation.evaluate_scenes(model, scenes=3, seed=1, families=wanted, errors=errors)
    assert {f: r["accuracy"] for f, r in result["families"].items()} == dict.fromkeys(wanted, 0.0)
    assert result["held_out_combinations"] == {"accuracy": 0.0, "n": 6, "interval": evaluation.interval(0, 6)}
    assert len(errors) == sum(r["n"] for r in result["families"].values())


@pytest.mark.parametrize("seed", [0, 4999, 12345, -1, 10**12])
def test_any_seed_will_do(model, seed):
    assert evaluation.evaluate_scenes(model, 2, seed, ["kind"])["families"]["kind"]["n"] == 2


def test_vcr_numbers(model, monkeypatch):
    """Always "(A)": the shares are those of the label A, and Q->AR needs both."""
    monkeypatch.setattr(evaluation.scenes, "choose_letters", lambda model, reader, rows: [0] * len(rows))
    result = evaluation.evaluate_scenes(model, scenes=6, seed=2, families=["vcr"])
    labels = []
    for i in range(6):
        scene = sample(language.seed_of("test", 2 * evaluation.SEEDS_PER_RUN + i), held_out=False)
        (question,) = language.questions(scene, random.Random(f"2 {scene.seed} vcr"), ["vcr"])
        labels.append((question.choices["answer_label"] == 0, question.choices["rationale_label"] == 0))
    assert result["vcr"]["n"] == 6
    assert result["vcr"]["q_a"] == pytest.approx(sum(a for a, _ in labels) / 6)
    assert result["vcr"]["q_ar"] == pytest.approx(sum(a and r for a, r in labels) / 6)


@pytest.mark.parametrize("wrong_round", [None, 1, 3])
def test_a_conversation_is_right_if_all_three_rounds_are(model, monkeypatch, wrong_round):
    """And every round is asked after the model's own answers, about the regions shown so far."""
    world = [sample(language.seed_of("test", i), held_out=False) for i in range(4)]
    rounds = {scene.seed: rounds_about(scene) for scene in world}
    seen = []

    def answers(model, reader, rows):
        number = len(rows[0][1]) // 2 + 1
        seen.append((number, [len(boxes) for _, _, boxes in rows]))
        for i, turns, _ in rows:
            assert [t["content"] for t in turns[::2]] == [r.question for r in rounds[world[i].seed][:number]]
            assert [t["role"] for t in turns] == ["user", "assistant"] * (number - 1) + ["user"]
        if number == wrong_round:
            return ["said nonsense"] + [rounds[world[i].seed][number - 1].answers[0] for i, _, _ in rows[1:]]
        return [rounds[world[i].seed][number - 1].answers[0] for i, _, _ in rows]

    monkeypatch.setattr(evaluation.scenes, "answer_all", answers)
    talks = [0, 0]
    evaluation.scenes._count_conversations(model, None, world, talks)
    assert talks == [4 if wrong_round is None else 3, 4]
    assert seen == [(1, [1] * 4), (2, [2] * 4), (3, [2] * 4)]


@pytest.mark.parametrize("wrong", [False, True])
def test_a_region_is_asked_by_its_number_after_another_was_shown(model, monkeypatch, wrong):
    world = [sample(language.seed_of("test", i), held_out=False) for i in range(12)]
    asked = []

    def answers(model, reader, rows):
        said = []
        for i, turns, boxes in rows:
            *before, question = turns
            assert [t["role"] for t in before] == ["user", "assistant"] * 2 and len(boxes) == 2
            shown = [next(o for o in world[i].objects if o.box == box) for box in boxes]
            for number, (turn, item) in enumerate(zip(before[1::2], shown), 1):
                assert item.colour in turn["content"] and f"<region{number}>" in before[2 * number - 2]["content"]
            (number,) = {n for n in (1, 2) if f"<region{n}>" in question["content"]}
            asked.append(number)
            item = shown[(2 - number) if wrong else (number - 1)]
            kinds = language.questions(world[i], random.Random(0), ["kind"], 30)
            said.append(next(q.answers[0] for q in kinds if q.boxes == (item.box,)))
        return said

    monkeypatch.setattr(evaluation.scenes, "answer_all", answers)
    numbers = [0, 0]
    evaluation.scenes._count_by_number(model, None, world, numbers)
    assert set(asked) == {1, 2} and numbers == [0 if wrong else len(asked), len(asked)] and len(asked) > 6


def test_table_shows_every_number():
    bounds = (0.5, 0.75)
    result = {
        "families": {"left_of": {"accuracy": 0.625, "n": 8, "interval": bounds}},
        "vcr": {
            "q_a": 0.5,
            "qa_r": 0.25,
            "q_ar": 0.125,
            "n": 8,
            "intervals": dict.fromkeys(("q_a", "qa_r", "q_ar"), bounds),
        },
        "held_out_combinations": {"accuracy": 1.0, "n": 4, "interval": bounds},
    }
    result["conversation"] = {"accuracy": 0.75, "n": 4, "interval": bounds}
    result["by_number"] = {"accuracy": 0.875, "n": 8, "interval": bounds}
    text = evaluation.table(result)
    assert "| a region of an earlier round by its number, kind | 87.5 |" in text
    assert "| three rounds as in the demo, all right | 75.0 |" in text
    assert "| left of | 62.5 | 50.0 - 75.0 | 8 |" in text and "| VCR form, Q->AR | 12.5 |" in text and "100.0" in text


def test_an_arm_shows_the_questions_its_own_way(model, monkeypatch):
    """What reaches the language model: no region and other words without boxes, no picture without one."""
    from roilab.evaluation import evaluate_scenes

    seen = []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **inputs: seen.append(inputs) or generate(**inputs | {"max_new_tokens": 1})
    )
    families = ["kind", "colour", "vcr"]
    for arm, regions, pictures in (("regions", True, True), ("image_only", False, True), ("text_only", False, False)):
        seen.clear()
        result = evaluate_scenes(model, scenes=3, families=families, arm=arm)
        asked = [inputs for inputs in seen if inputs["input_ids"].shape[0] <= 3]
        assert all(
            ("region_embeddings" in each) is regions and ("image_embeddings" in each) is pictures for each in asked
        )
        assert set(result["families"]) == {"kind", "colour"} and result["vcr"]["n"] > 0
        assert ("held_out_combinations" in result) is (arm == "regions")
    with pytest.raises(ValueError, match="arm 'none', expected regions, "):
        evaluate_scenes(model, scenes=1, families=["kind"], arm="none")


def test_the_mean_of_the_attributes_is_the_mean_of_their_shares(model, monkeypatch):
    from roilab.evaluation import evaluate_scenes, scenes, table

    monkeypatch.setattr(scenes, "answer_all", lambda model, reader, rows: ["a car"] * len(rows))
    result = evaluate_scenes(model, scenes=12, families=list(scenes.ATTRIBUTES))
    shares = [result["families"][name]["accuracy"] for name in scenes.ATTRIBUTES]
    assert result["attributes"]["accuracy"] == sum(shares) / 8
    assert f"| mean of the 8 attributes | {100 * sum(shares) / 8:.1f} |" in table(result)
    assert "attributes" not in evaluate_scenes(model, scenes=2, families=["kind"])


def test_a_value_is_named_in_any_words_but_alone():
    from roilab.evaluation.naming import VALUES, named_value

    for attribute, answer, value in (
        ("kind", "a person in a green shirt", "person"), ("kind", "A kite, or a ball.", None), ("kind", "a boathouse", None),
        ("colour", "The chair is YELLOW.", "yellow"), ("colour", "It has a round shape.", None), ("size", "small and large", None),
        ("headgear", "has a top hat on the head.", "top hat"), ("headgear", "without headgear", "none"), ("headgear", "nothing", "none"),
        ("headgear", "There is a cap.", "cap"), ("action", "person pointing at something", "pointing"), ("shape", "", None),
    ):  # fmt: skip
        assert named_value(attribute, answer) == value, answer
    # Every accepted answer to every question names the true value.
    for seed in range(40):
        scene = sample(seed, held_out=False)
        for attribute in VALUES:
            for question in language.questions(scene, random.Random(seed), [attribute], 3):
                true = scene.object(question.slots[0].objects[0]).attributes[attribute]
                assert {named_value(attribute, answer) for answer in question.answers} == {true}


def test_other_words_for_the_true_value_are_named_but_not_exact(model, monkeypatch):
    def answers(model, reader, rows):
        return ["The thing there is red, as I see." for _ in rows]

    monkeypatch.setattr(evaluation.scenes, "answer_all", answers)
    found = evaluation.evaluate_scenes(model, scenes=40, families=["colour"])["families"]["colour"]
    worlds = [sample(language.seed_of("test", i), held_out=False) for i in range(40)]
    red = [q for s in worlds for q in language.questions(s, random.Random(f"0 {s.seed} colour"), ["colour"])]
    wanted = sum(question.answers[0].split()[-1].strip(".") == "red" for question in red) / len(red)
    assert found["accuracy"] == 0 and found["named"] == wanted > 0


@pytest.mark.parametrize(
    "answers, share", [(("region1", "region2"), 1.0), (("region1", "region1"), 0.0), (("yes", "region2"), 0.0)]
)
def test_an_answer_follows_the_boxes_if_it_names_the_other_region(model, monkeypatch, answers, share):
    """Both questions of a pair have the same words; their boxes are exchanged."""
    asked = []

    def answer_all(model, reader, rows):
        asked.extend(rows)
        return [f"{answers[i % 2]} is larger." for i in range(len(rows))]

    monkeypatch.setattr(evaluation.scenes, "answer_all", answer_all)
    world = [sample(language.seed_of("test", i), held_out=False) for i in range(8)]
    counts = [0, 0]
    evaluation.scenes._count_swaps(model, None, world, counts)
    assert counts[1] > 4 and counts[0] == share * counts[1]
    for (i, turns, boxes), (j, again, exchanged) in zip(asked[::2], asked[1::2]):
        assert i == j and turns == again and len(boxes) == 2 and boxes == exchanged[::-1]
        assert all(box in [item.box for item in world[i].objects] for box in boxes)


@pytest.mark.slow
def test_the_probe_reads_attributes_off_the_frozen_tower(monkeypatch):
    """On the shipped tower it is right far above chance; on a tower that has learned nothing it is not."""
    import roilab

    tiny = roilab.load("tiny", device="cpu")
    settings = dict(scenes=40, training=300, steps=300)
    found = evaluation.probe_boxes(tiny, **settings)
    assert set(found) == set(evaluation.scenes.ATTRIBUTES)
    assert found["kind"]["n"] == sum(
        len(sample(language.seed_of("test", i), held_out=False).objects) for i in range(40)
    )
    assert found["kind"]["accuracy"] > 0.8 and found["colour"]["accuracy"] > 0.9
    blind = roilab.load("tiny", device="cpu")
    blind.encode_image = lambda pixels, see=blind.encode_image: see(torch.zeros_like(pixels))
    blank = evaluation.probe_boxes(blind, **settings)
    assert blank["colour"]["accuracy"] < 0.4  # eight colours; places and sizes say something about the kind
    table = evaluation.table({"families": {"kind": {"accuracy": 0.5, "interval": (0.4, 0.6), "n": 9}}, "probe": found})
    assert f"| {100 * found['kind']['accuracy']:.1f} |" in table.splitlines()[2]
