"""The shipped `tiny` model: it loads, answers as the README says, and knows a scene from a photograph."""

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

import roilab
from roilab import evaluation
from roilab.scenes import language, sample

ASSETS = Path(roilab.__file__).parent / "assets" / "tiny"
PHOTOGRAPHS = sorted((Path(__file__).parent / "data" / "photographs").glob("*.jpg"))


@pytest.fixture(scope="module")
def tiny():
    return roilab.load("tiny", device="cpu")


def test_size_on_disk_and_the_logs_of_its_training():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*")) <= 25e6
    for stage in ("vision", "text_reading", "stage1", "stage2"):
        entries = [json.loads(line) for line in (ASSETS / f"log_{stage}.jsonl").read_text().splitlines()]
        assert sum("loss" in e for e in entries) >= 5, stage


def test_a_person_and_a_thing(tiny):
    right = asked = 0
    for index in range(40):
        scene = sample(language.seed_of("test", 10**8 + index), held_out=False)
        for question in language.questions(scene, random.Random(index), ["kind", "colour", "action", "size"], 4):
            answer = roilab.Chat(tiny, scene.image).ask(question.text, regions=list(question.boxes))
            right += answer.text in map(language.plain, question.answers)
            asked += 1
    assert asked >= 150 and right / asked >= 0.9


def test_moving_the_box_changes_the_answer(tiny):
    scene = sample(language.seed_of("test", 3))
    one, two = scene.objects[:2]
    chat = roilab.Chat(tiny, scene.image)
    kinds = [chat.ask("What is <region1>?", regions=[one.box]).text, chat.move(1, two.box).text]
    for item, answer in zip((one, two), kinds):
        assert item.kind in answer


def test_photographs_are_told_from_scenes(tiny):
    """Every photograph is farther from the training pictures than every scene, and only photographs get a remark."""

    def distances(images):
        with torch.inference_mode():
            return tiny.familiarity(tiny.encode_image(tiny.processor.preprocess(images)).patches)

    scenes = distances([sample(language.seed_of("test", i)).image for i in range(60)])
    photographs = distances([Image.open(path) for path in PHOTOGRAPHS])
    assert len(PHOTOGRAPHS) == 6 and photographs.min() > scenes.max()
    assert scenes.max() <= tiny.familiarity.threshold < photographs.min()
    box = (10, 10, 200, 200)
    assert "does not look like" in roilab.Chat(tiny, PHOTOGRAPHS[0]).ask("What is <region1>?", regions=[box]).note
    assert roilab.Chat(tiny, sample(1).image).ask("What is <region1>?", regions=[box]).note is None


def test_swapped_boxes_swap_the_answers(tiny):
    """region1 and region2 exchange boxes: "larger" and "left of" follow in most scenes."""
    asked = followed = 0
    for index in range(60):
        scene = sample(language.seed_of("test", 2 * 10**8 + index), held_out=False)
        for question in language.questions(scene, random.Random(index), ["larger", "left_of"], 2):
            rows = [
                (0, [{"role": "user", "content": question.text}], boxes)
                for boxes in (question.boxes, question.boxes[::-1])
            ]
            with torch.inference_mode():
                answers = evaluation.answer_all(tiny, evaluation.SceneReader(tiny, [scene]), rows)
            asked += 1
            followed += answers[0] != answers[1]
    assert asked >= 80 and followed / asked >= 0.8
