"""What is explained: a forced answer, split into named parts."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from conftest import TOKENIZERS, small_model

import roilab
from roilab import Chat, interpret
from roilab.interpret.passes import logits_at, prepare, score, splice
from roilab.interpret.target import Target

QUESTION = "Is <region2> left of <region1>?"
BOXES = [(2, 2, 30, 30), (20, 8, 60, 40)]


@pytest.mark.parametrize("template", TOKENIZERS)
def test_every_position_belongs_to_a_part(picture, template):
    model = small_model(template)
    explained = Target.of(Chat(model, picture), QUESTION, BOXES, answer="no, it is not")
    tokenizer = model.processor.tokenizer
    assert len(explained.ids) == len(explained.parts) == len(explained.tokens)
    assert len(explained.positions("image")) == model.processor.num_image_tokens
    assert explained.regions == [2, 1]  # in the order in which they are shown
    assert [explained.index(2), explained.index(1)] == [0, 1] and explained.boxes == [list(BOXES[1]), list(BOXES[0])]
    for region in (1, 2):
        assert explained.ids[explained.position(region)] == model.config.region_token_id
    question = tokenizer.decode([explained.ids[i] for i in explained.positions("question", "regions")])
    assert (
        question.replace("<bbox>", "").split() == "Is region2 left of region1 ?".split()
        or "".join(question.replace("<bbox>", "").split()) == "Isregion2leftofregion1?"
    )
    answer = explained.positions("answer")
    assert tokenizer.decode([explained.ids[i] for i in answer]).strip() == "no, it is not"
    assert "".join(explained.tokens[i] for i in answer).strip() == "no, it is not"
    assert explained.chosen == answer.tolist() and explained.predicting == [i - 1 for i in explained.chosen]
    assert len(explained.positions("system")) > 0


def target_of_one_round(model, picture):
    return Target.of(Chat(model, picture), QUESTION, BOXES, answer="yes")


def test_the_last_answer_has_the_probability_that_it_was_given(model, picture):
    chat = Chat(model, picture, max_new_tokens=6)
    chat.ask("What is <region1>?", BOXES[:1])
    answer = chat.ask("And <region2>?", BOXES[1:])
    explained = Target.of(chat)
    sent = chat.prompt().input_ids
    assert explained.ids == sent + answer.ids[: len(answer.tokens)]
    assert explained.regions == [1, 2]  # earlier rounds are part of the prompt
    tokenizer = model.processor.tokenizer
    assert "And region2" in tokenizer.decode([explained.ids[i] for i in explained.positions("question")])
    history = tokenizer.decode([explained.ids[i] for i in explained.positions("history")])
    assert "What is region1" in history and "And" not in history
    assert "history" not in target_of_one_round(model, picture).parts
    with torch.no_grad():
        found = score(model, splice(model, prepare(model, explained)), explained).item()
    kept = [p for p, i in zip(answer.logprobs, answer.ids, strict=False)][: len(explained.chosen)]
    assert found == pytest.approx(sum(kept), abs=1e-3)


def test_without_an_answer_the_greedy_one_is_forced_and_nothing_is_remembered(model, picture):
    chat = Chat(model, picture, max_new_tokens=6)
    explained = Target.of(chat, QUESTION, BOXES)
    assert chat.history == [] and chat.regions == []
    assert explained.answer == chat.ask(QUESTION, BOXES).text
    with torch.no_grad():
        logits = logits_at(model, splice(model, prepare(model, explained)), explained.predicting)[0]
    assert logits.argmax(-1).tolist() == [explained.ids[i] for i in explained.chosen]


def test_tokens_about_a_word(picture):
    model = small_model()
    explained = Target.of(Chat(model, picture), QUESTION, BOXES, answer="a red ball", about="red")
    assert "".join(explained.tokens[i] for i in explained.chosen).strip() == "red"
    with pytest.raises(ValueError, match="'blue' is not in the answer 'a red ball'"):
        Target.of(Chat(model, picture), QUESTION, BOXES, answer="a red ball", about="blue")


def test_sums_by_part(model, picture):
    explained = Target.of(Chat(model, picture), QUESTION, BOXES, answer="yes")
    sums = explained.sum_by_part(torch.ones(len(explained.ids)))
    assert sums == {part: explained.parts.count(part) for part in explained.parts}
    with pytest.raises(ValueError, match=f"3 scores for {len(explained.ids)} positions"):
        explained.sum_by_part(torch.ones(3))


def test_mistakes_name_both_sides(model, picture):
    chat = Chat(model, picture)
    with pytest.raises(ValueError, match="0 answered so far"):
        Target.of(chat)
    with pytest.raises(ValueError, match="has no tokens"):
        Target.of(chat, QUESTION, BOXES, answer="")
    explained = Target.of(chat, QUESTION, BOXES, answer="yes")
    with pytest.raises(ValueError, match="region3 is not shown to the model; the regions are region2, region1"):
        explained.index(3)
    with pytest.raises(ValueError, match="no part region3; the parts are"):
        explained.position(3)
    assert explained.to_dict()["regions"] == {"2": list(BOXES[1]), "1": list(BOXES[0])}


def test_the_public_names_are_no_modules_even_when_all_modules_are_there():
    for module in pkgutil.iter_modules(interpret.__path__):
        importlib.import_module(f"roilab.interpret.{module.name}")
    for name in interpret.__all__:
        assert not inspect.ismodule(getattr(interpret, name)), name
        assert name == "METHODS" or callable(getattr(interpret, name))


def test_the_readme_names_what_there_is():
    section = (Path(roilab.__file__).parents[1] / "README.md").read_text().split("## Look inside")[1].split("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+)`", section.split("| --- |")[1])) - {"study"}
    assert named <= set(interpret.__all__) and len(named) > 15, named - set(interpret.__all__)
