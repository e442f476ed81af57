"""The shipped `tiny` model: it loads, answers as the README says, and knows a scene from a photograph."""

import json
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
    for stage in ("vision", "text_reading", "alignment", "stage1", "stage2"):
        entries = [json.loads(line) for line in (ASSETS / f"log_{stage}.jsonl").read_text().splitlines()]
        assert sum("loss" in e for e in entries) >= (0 if stage == "stage1" else 5), (
            stage
        )  # stage 1 was shorter than a log entry
        assert "train_loss" in entries[-1], stage


def test_the_published_numbers_are_those_of_these_weights(tiny):
    """A small sample of other scenes falls into a wide interval around the shares that stand in the README."""
    published = json.loads((ASSETS / "evaluation.json").read_text())
    result = evaluation.evaluate_scenes(
        tiny, scenes=60, seed=published["seed"] + 1, families=["kind", "colour", "size", "mood"]
    )
    for family, each in result["families"].items():
        expected = published["families"][family]["accuracy"]
        tolerance = 4 * (expected * (1 - expected) / each["n"]) ** 0.5 + 0.03
        assert each["accuracy"] == pytest.approx(expected, abs=tolerance), family


def test_moving_the_box_is_asking_about_the_other_box(tiny):
    changed = 0
    for index in range(10):
        scene = sample(language.seed_of("test", index))
        one, two = scene.objects[0].box, scene.objects[-1].box
        chat = roilab.Chat(tiny, scene.image)
        first, moved = chat.ask("What is <region1>?", regions=[one]).text, chat.move(1, two).text
        assert moved == roilab.Chat(tiny, scene.image).ask("What is <region1>?", regions=[two]).text
        changed += moved != first
    assert changed >= 4  # the region token decides: nothing else has changed


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
