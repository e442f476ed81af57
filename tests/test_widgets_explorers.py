"""The explorers without a browser: what they show is what `interpret` gives; the newest state wins; errors and texts stay in the widget."""

import json
import threading
import time

import pytest
import torch

from roilab import Chat, interpret
from roilab.widgets import AttentionExplorer, AttributionExplorer, RegionChat, RegionLens, WhatIf
from roilab.widgets.explorers import ALL
from roilab.widgets.working import Cancelled, Newest, one_thread

BOXES = [(4, 4, 30, 30), (20, 10, 60, 44)]
QUESTION, ANSWER = "What is <region1> doing?", "She is running."
HOSTILE = '<img src=x onerror="alert(1)"> **b** &lt;'
EXPLORERS = (AttentionExplorer, AttributionExplorer, RegionLens, WhatIf)


def explorer(kind, model, picture, question=QUESTION, answer=ANSWER, **kwargs):
    made = kind(model, picture, BOXES, question, answer, **kwargs)
    assert made.wait(60)
    return made


def target(model, picture, question=QUESTION, answer=ANSWER, boxes=BOXES):
    return interpret.Target.of(Chat(model, picture), question, boxes, answer=answer)


# The thread


def told():
    """(done results, failures) and a worker that tells them."""
    done, failed, read = [], [], []
    return done, failed, read, Newest(threading.RLock(), read.append, failed.append)


def test_of_the_jobs_that_wait_only_the_newest_runs():
    done, failed, _, work = told()
    started, go = threading.Event(), threading.Event()

    def first():
        started.set()
        go.wait(10)
        return 0

    work.submit(first, done.append)
    started.wait(10)
    for i in range(1, 50):
        work.submit(lambda i=i: i, done.append, end_running=False)
    go.set()
    assert work.wait(10)
    assert done == [0, 49] and not failed and work.count == 2


def test_a_running_job_is_ended_by_a_newer_one_at_its_next_pass(model, picture):
    done, failed, read, work = told()
    explained, started = target(model, picture), threading.Event()

    def endless():
        while True:
            interpret.attention_map(model, explained)
            started.set()

    work.submit(endless, done.append)
    assert started.wait(30)
    work.submit(lambda: "newer", done.append)
    assert work.wait(30)
    assert done == ["newer"] and not failed and read[0] == 1 and read[1] == 2


def test_errors_and_cancelling():
    done, failed, _, work = told()

    def fails():
        raise ValueError("3 boxes, 2 mentions")

    work.submit(fails, done.append)
    work.wait(10)
    assert failed == ["3 boxes, 2 mentions"] and not done
    started = threading.Event()

    def slow():
        started.set()
        time.sleep(0.2)
        raise Cancelled

    work.submit(slow, done.append)
    started.wait(10)
    work.cancel()
    assert work.wait(10)
    assert failed == ["3 boxes, 2 mentions"] and not done


# Scores


def test_attention_is_that_of_interpret(model, picture):
    made = explorer(AttentionExplorer, model, picture)
    assert made.scores.parts == interpret.attention_map(model, target(model, picture)).parts
    made._layer.value, made._head.value = 1, 3
    made.choose(2)
    assert made.wait(60)
    explained = target(model, picture)
    explained.chosen[:] = [explained.positions("answer")[2].item()]
    wanted = interpret.attention_map(model, explained, [1], [3])
    assert torch.equal(made.scores.positions, wanted.positions)
    for part, value in wanted.parts.items():
        assert f'<th scope="row">{part}</th>' in made._found.value and f">{value:.3g}</td>" in made._found.value
    for method in ("rollout", "relevance"):
        made._method.value = method
        assert made.wait(60)
        explained = target(model, picture)
        explained.chosen[:] = [explained.positions("answer")[2].item()]
        assert torch.equal(made.scores.positions, getattr(interpret, method)(model, explained).positions)
        assert made._layer.disabled


def test_sinks_and_a_generic_question_are_taken_off(model, picture):
    made = explorer(AttentionExplorer, model, picture)
    made._sinks.value = False
    made._generic.value = "What is in the picture?"
    assert made.wait(60)
    wanted = interpret.attention_map(model, target(model, picture), sinks=False, generic="What is in the picture?")
    assert torch.equal(made.scores.positions, wanted.positions) and "Without the sinks" in made._found.value


def test_attributions_are_those_of_interpret(model, picture):
    made = explorer(AttributionExplorer, model, picture)
    wanted = interpret.to_tokens(model, target(model, picture))
    assert torch.allclose(made.scores.positions, wanted.positions)
    assert f"a gap of {100 * wanted.settings['gap_share']:.1f} %" in made._found.value
    total = wanted.positions.sum().item()
    assert f"add up to {total:.3f} of the {wanted.settings['difference']:.3f}" in made._found.value
    made._method.value, made._path.value = ("pixels", "saliency"), "regions"
    assert made.wait(60)
    wanted = interpret.to_pixels(model, target(model, picture), "saliency", "regions")
    assert torch.allclose(made.scores.map, wanted.map)
    inside = 100 * interpret.energy_in_region(wanted, BOXES[0])
    assert "inside region1" in made._found.value and f">{inside:.3g}</td>" in made._found.value
    made._method.value, made._path.value, made._baseline.value = ("cover", "occlusion"), "both", "mean"
    assert made.wait(60)
    assert torch.allclose(made.scores.map, interpret.cover(model, target(model, picture), "occlusion", fill="mean").map)


def test_what_was_found_is_remembered_and_a_selection_changes_nothing(model, picture):
    made = explorer(AttentionExplorer, model, picture)
    first, count = made.scores, made._work.count
    made._layer.value = 0
    assert made.wait(60) and made._work.count == count + 1
    made._layer.value = ALL
    made.region_set.select(2)
    assert made.wait(60) and made._work.count == count + 1
    assert made.scores is first and "roilab-outdated" not in made._found._dom_classes


def test_moved_regions_and_other_questions_are_explained_anew(model, picture):
    made = explorer(AttentionExplorer, model, picture)
    moved = [BOXES[1], BOXES[0]]
    made.regions = moved
    assert made.wait(60)
    assert torch.equal(
        made.scores.positions, interpret.attention_map(model, target(model, picture, boxes=moved)).positions
    )
    made.question.value = "Is <region1> larger than <region2>?"
    assert made.wait(60) and made.target.regions == [1, 2]
    made.answer.value = ""
    assert made.wait(60) and made.answer.placeholder == f"the model says: {made.target.answer}"


@pytest.mark.parametrize("kind", EXPLORERS)
def test_errors_appear_in_the_widget_and_go_when_mended(model, picture, kind):
    made = explorer(kind, model, picture)
    made.question.value = "What is <region7>?"
    assert made.wait(60)
    assert 'role="alert"' in made._said.value and "7" in made._said.value
    made.question.value = QUESTION
    assert made.wait(60) and "alert" not in made._said.value


@pytest.mark.parametrize("kind", EXPLORERS)
def test_no_text_becomes_html(model, picture, kind):
    made = explorer(kind, model, picture, f"{HOSTILE} <region1>", HOSTILE)
    assert made.result is not None
    made.region_set.relabel(1, HOSTILE)
    made.question.value = f"<script>{HOSTILE}</script> <region9>"
    assert made.wait(60)
    for shown in (made._found.value, made._said.value, made._count.value):
        assert "<img" not in shown and "<script" not in shown


@pytest.mark.parametrize("kind", EXPLORERS)
def test_it_has_a_static_twin_and_numbers(model, picture, kind, tmp_path):
    made = explorer(kind, model, picture)
    bundle = made._repr_mimebundle_()
    assert "image/png" in bundle and "application/vnd.jupyter.widget-view+json" in bundle
    made.save(tmp_path / "found.json")
    made.save(tmp_path / "found.png")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["target"]["answer"] == ANSWER and (tmp_path / "found.png").stat().st_size > 1000
    made.close()
    made.close()


@pytest.mark.parametrize("kind", EXPLORERS)
def test_it_looks_into_the_last_answer_of_a_chat_and_shares_its_regions(model, picture, kind):
    chat = RegionChat(model, picture, BOXES, max_new_tokens=4)
    with pytest.raises(ValueError, match="0 questions were answered"):
        kind.of(chat)
    chat.ask("What is <region2>?")
    chat.ask(QUESTION)
    made = kind.of(chat)
    assert made.wait(60) and made.result is not None, made._said.value
    assert made.region_set is chat.region_set and "history" in made.target.parts
    assert made.target.question == QUESTION and made.target.regions == [2, 1]


def test_slow_methods_tell_how_far_they_are_and_can_be_cancelled(model, picture):
    made = explorer(AttributionExplorer, model, picture)
    before, started, go = made.result, threading.Event(), threading.Event()
    seen = []

    def slow(explained, **settings):
        for i in range(1000):
            interpret.attention_map(model, explained)
            seen.append((made._bar.value, made._count.value))
            if i == 20:
                started.set()
                go.wait(20)

    made.compute = slow
    made._method.value = ("cover", "shapley")
    assert started.wait(60) and "roilab-outdated" in made._found._dom_classes
    made._cancel.click()
    go.set()
    assert made.wait(60) and len(seen) < 30
    assert made.result is before and "Cancelled" in made._said.value
    assert any(0 < value < 1 and f"of about {5 * 16} sequences" in text for value, text in seen)
    assert "roilab-hidden" in made._busy._dom_classes


def test_the_picture_shows_the_map_and_the_slider_takes_it_away(model, picture):
    made = explorer(AttentionExplorer, model, picture)
    shown = made.canvas._painter.picture
    assert shown.size == picture.size and shown.tobytes() != picture.tobytes()
    made._opacity.value = 0
    assert made.canvas._painter.picture.tobytes() == picture.convert("RGB").tobytes()
    with pytest.raises(ValueError, match="10 x 10 pixels in the place of one of 64 x 48"):
        made.canvas.show_picture(picture.resize((10, 10)))


# WhatIf


def test_what_if_says_what_chat_says(model, picture):
    made = explorer(WhatIf, model, picture, answer="")
    for boxes in ([(1, 1, 20, 20), BOXES[1]], [(30, 20, 64, 48), BOXES[1]]):
        made.regions = boxes
        assert made.wait(60)
        assert made.result.answer == Chat(model, picture).ask(QUESTION, boxes, max_new_tokens=64).text
        assert made.result.shapes == [list(map(float, box)) for box in boxes]
        assert f">{made.result.probabilities[0]:.3f}</td>" in made._found.value


def test_what_if_follows_a_drag_before_it_ends(model, picture):
    made = explorer(WhatIf, model, picture)
    editor, view = made.canvas.editor, made.canvas.editor.view
    x, y = view.to_canvas(10, 10)
    made.canvas._event(editor.down, x, y)
    for step in range(1, 40):
        made.canvas._event(editor.move, x + step, y + step, soon=True)
    assert made.wait(60)
    dragged = made.canvas.shapes
    assert dragged[0] != list(BOXES[0]) and made.regions[0].box == BOXES[0]
    assert made.result.shapes == dragged
    made.canvas._event(editor.cancel)
    assert made.wait(60) and made.result.shapes == [list(map(float, box)) for box in BOXES]


def test_what_if_leaves_places_out_rather_than_fall_behind(model, picture):
    made = explorer(WhatIf, model, picture)
    before, live = made.updates, made._live[1]
    seen = []

    def slow(shapes):
        time.sleep(0.05)
        seen.append(shapes)
        return live(shapes)

    made._live = made._live[0], slow
    slow.target = live.target
    for step in range(60):
        made.regions = [(step / 4, 2, 30 + step / 4, 40), BOXES[1]]
    assert made.wait(60)
    assert 2 <= made.updates - before < 40 and made.result.shapes == seen[-1] == made.canvas.shapes


def test_a_small_model_is_computed_on_one_thread_and_what_was_set_comes_back(model):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), one_thread(model):
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_if_takes_the_token_that_is_clicked(model, picture):
    made = explorer(WhatIf, model, picture)
    made.choose(1)
    assert made.wait(60)
    first = made.target.positions("answer")[0].item()
    assert made.target.chosen == [first + 1] and made.result.before == made.target.tokens[first]


# RegionLens


def test_the_lens_is_that_of_interpret_and_follows_the_selection(model, picture):
    made = explorer(RegionLens, model, picture, "Is <region2> larger than <region1>?")
    made._words.value = "ball, she"
    assert made.wait(60)
    explained = target(model, picture, "Is <region2> larger than <region1>?")
    wanted = interpret.logit_lens(model, explained, words=["ball", "she"], top=4)
    assert torch.equal(made.result.probabilities, wanted.probabilities)
    assert f">{wanted.words['she'][1, 0].item():.3f}</td>" in made._found.value and ">region2</th>" in made._found.value
    made.region_set.select(1)
    assert ">region1</th>" in made._found.value
    assert f">{wanted.words['she'][1, 1].item():.3f}</td>" in made._found.value
