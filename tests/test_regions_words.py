"""What stands in the sentence for a region may be a blend of words: the same whoever asks, and everything else works as without."""

import pytest
import torch
from conftest import REGION
from test_backbones import TIMM, built, check_the_whole_way

import roilab
from roilab import interpret
from roilab.config import RegionConfig
from roilab.interpret import Target
from roilab.regions import RegionWords

BOXES = [[4, 4, 30, 40], [20, 8, 60, 44]]


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(REGION, "words", 5)
    return built(TIMM, image_size=64)


def test_the_whole_way(model, picture, tmp_path):
    loaded = check_the_whole_way(model, picture, tmp_path / "model")
    assert loaded.config.region_config.words == 5
    for name, each in model.region_words.state_dict().items():
        assert torch.equal(loaded.region_words.state_dict()[name], each)


def test_the_nearest_word_is_what_stands_there():
    words = RegionWords(4, 6)
    with torch.no_grad():
        words.keys.copy_(torch.eye(4, 6))
        words.values.copy_(torch.randn(4, 6))
        words.sharpness.fill_(100)
        near = torch.eye(4, 6)[[2, 0]] + 0.1
        torch.testing.assert_close(words(near), words.values[[2, 0]])
        between = words.weights(torch.tensor([[0.5, 0.5, 0, 0, 9, 9]]))[0]
        torch.testing.assert_close(
            between, torch.tensor([0.5, 0.5, 0, 0])
        )  # what lies across the words changes nothing
        words.rest.weight[0, 4] = 1
        torch.testing.assert_close(words(near)[:, 0], words.values[[2, 0], 0] + 0.1)
        assert words.half()(near).dtype == torch.float16 and words(near[:0]).shape == (0, 6)


def test_the_sentence_holds_the_blend_and_the_embedding_stays_a_sum(model, picture):
    explained = Target.of(roilab.Chat(model, picture), "Is <region1> larger than <region2>?", BOXES, answer="Yes.")
    anatomy = interpret.region_anatomy(model, explained, 2)
    assert anatomy.difference < 1e-4
    inputs = interpret.passes.prepare(model, explained)
    with torch.no_grad():
        sentence = interpret.passes.splice(model, inputs)
    there = sentence[0, explained.positions("region2")]
    torch.testing.assert_close(
        there, model.region_words(anatomy.token[None]).detach().expand_as(there), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(there, anatomy.token, atol=1e-3)


def test_a_number_of_words_that_is_none():
    for wrong in (-1, 2.5, True):
        with pytest.raises(ValueError, match="words is .*, expected a whole number, 0 or more"):
            RegionConfig(words=wrong)
