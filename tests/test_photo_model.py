"""`roilab.load("photo")`, the real thing: it answers about a photograph, follows its boxes, and can be looked into like any other model."""

import json
import shutil

import pytest
import torch
from conftest import made_photo_folder
from PIL import Image

import roilab
from roilab import interpret
from roilab.cli import main
from roilab.demo import DESK, PHOTOGRAPH, photograph_rounds
from roilab.fetch import cache
from roilab.interpret import Target
from roilab.photo import photo_folder
from roilab.photo.evaluation import BOTH, evaluate_photo
from roilab.photo.putting_together import ASSETS, SETTINGS, TRAINED
from roilab.photo.questions import CATEGORIES, named
from roilab.pictures import read_picture
from roilab.regions import RegionDialogue


@pytest.fixture(scope="module")
def photo():
    made_photo_folder()
    return roilab.load("photo", device="cpu").requires_grad_(False)


def test_what_is_shipped_is_small_and_complete():
    from safetensors import safe_open

    assert (ASSETS / TRAINED).stat().st_size < 30e6
    with safe_open(ASSETS / TRAINED, "pt") as file:
        names, settings = list(file.keys()), json.loads(file.metadata()[SETTINGS])
    assert {name.split(".")[0] for name in names} == {"region_encoder", "region_words", "projector", "adapters"}
    assert set(settings["names"]) == set(CATEGORIES)


@pytest.mark.slow
def test_a_second_time_nothing_is_fetched_or_made(photo, monkeypatch):
    from roilab.photo import putting_together

    for name in ("fetch", "put_together"):
        monkeypatch.setattr(putting_together, name, None)
    assert photo_folder().is_dir()


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_not_there(photo, tmp_path, monkeypatch):
    from roilab.photo import putting_together

    for name in ("efficientnet-lite2", "smollm2-135m-instruct"):
        shutil.copytree(cache() / name, tmp_path / name)
    monkeypatch.setattr(
        roilab.model.GPT4RoI, "save_pretrained", lambda *args: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        putting_together.photo_folder(tmp_path)
    assert not list(tmp_path.glob("photo-*"))


@pytest.mark.slow
def test_the_demo_and_a_picture_of_ones_own(photo, tmp_path, capsys):
    assert main(["demo", "--model", "photo", "--out", str(tmp_path / "demo.png")]) == 0
    told = capsys.readouterr().out
    assert told.count("question:") == len(photograph_rounds()) and told.count("(right)") >= 2
    with Image.open(tmp_path / "demo.png") as drawn:
        assert drawn.width > 1000
    box = ",".join(map(str, DESK["laptop"]))
    assert main(["ask", str(PHOTOGRAPH), "What is <region1>?", "--region", box, "--model", "photo"]) == 0
    assert capsys.readouterr().out.strip() in map(named, CATEGORIES)


@pytest.mark.slow
def test_the_answer_follows_the_box(photo):
    chat = roilab.Chat(photo, PHOTOGRAPH)
    assert chat.ask("What is <region1>?", [DESK["screen"]]).text == "A tv."
    assert chat.move(1, DESK["keyboard"]).text == "A keyboard."
    assert chat.ask("Is <region1> a keyboard?").text == "It is a keyboard, so yes."


@pytest.mark.slow
def test_it_is_evaluated_on_boxes(photo, tmp_path):
    class One(list):
        def picture(self, index):
            return Image.open(PHOTOGRAPH)

    boxes = [list(map(float, box)) for box in DESK.values()]
    record = RegionDialogue("coco-255165", "coco", PHOTOGRAPH.name, 640, 480, boxes, ["laptop", "tv", "keyboard"], [])
    result = evaluate_photo(photo, One([record]), "photo", "val", predictions=tmp_path / "predictions.jsonl")
    scores = {(score.name, score.by, score.questions): score for score in result.scores}
    assert scores["accuracy", "likelihood", "all"].n == 3 and scores["accuracy", "likelihood", "all"].value >= 60
    assert scores["accuracy", "generated", "boxes over 2 % of the picture"].n == 3
    assert ("answers swap with the boxes", "generated", "two boxes") in scores


@pytest.mark.slow
def test_it_can_be_looked_into(photo):
    """A cheap method of each kind; all of them run on a small model of its make in `test_regions_focal.py`."""
    boxes = [DESK["screen"], DESK["keyboard"]]
    explained = Target.of(roilab.Chat(photo, PHOTOGRAPH), BOTH, boxes, about="keyboard")
    anatomy = interpret.region_anatomy(photo, explained, 2)
    assert anatomy.difference < 1e-2 and anatomy.cells.shape[:2] == (4, 4)
    found = [
        interpret.attention_map(photo, explained), interpret.relevance(photo, explained),
        interpret.to_tokens(photo, explained, "saliency"), interpret.to_pixels(photo, explained, "saliency", "regions"),
    ]  # fmt: skip
    for each in found:
        assert torch.isfinite(each.map).all() and each.map.abs().max() > 0
    bank = interpret.token_bank(photo, [(read_picture(PHOTOGRAPH), [DESK["laptop"], DESK["screen"]])])
    tests = interpret.region_tests(photo, explained, region=2, bank=bank, foreign=2)
    assert tests.token_drop > 0.69 > abs(tests.picture_drop)  # the answer rests on the token
    cut = interpret.attention_knockout(photo, explained, "region2", "later", controls=1)
    assert cut.drop > abs(cut.control_drop)
