import dataclasses
import io
import json
import threading
import time

import numpy as np
import pytest
import torch
from conftest import small_model
from transformers.generation.logits_process import LogitsProcessor

import roilab.chat
from roilab import Chat
from roilab.chat import Answer
from roilab.regions import normalise_boxes

A, B, C = [1, 2, 30, 40], [10, 5, 60, 20], [5, 5, 20, 30]
LENGTH = {"max_new_tokens": 7, "min_new_tokens": 7}


class Record(LogitsProcessor):
    """Keeps the logits of every step, as the language model gave them, and the lengths that went through it."""

    def __init__(self):
        self.logits = []

    def __call__(self, input_ids, scores):
        self.logits.append(scores.clone())
        return scores


def same_logits(seen, expected):
    """Equal where generation forbids nothing (the places of pictures, and EOS where a minimal length is asked)."""
    allowed = torch.isfinite(seen)
    assert 1 <= (~allowed).sum() <= 3
    torch.testing.assert_close(seen[allowed], expected[allowed], atol=1e-4, rtol=0)


def conversation(chat):
    """Every kind of step; returns the logits of all answers."""
    record = Record()
    options = {"logits_processor": [record], **LENGTH}
    texts = [
        chat.ask("What is <region1> doing?", regions=[A], **options).text,
        chat.ask("Why?", **options).text,
        chat.ask("Is <region2> larger than <region1>?", regions=[B], **options).text,
        chat.move(2, C, **options).text,
        chat.ask("And now?", **options).text,
        chat.move(1, B, **options).text,
    ]
    return torch.stack(record.logits), texts


@pytest.mark.parametrize("template", ["tiny", "vicuna_v0", "chatml"])
def test_caches_change_nothing(picture, template):
    model = small_model(template, max_position_embeddings=1024)
    cached, texts = conversation(Chat(model, picture))
    plain, expected = conversation(Chat(model, picture, caches=False))
    assert cached.shape[0] == 6 * 7
    torch.testing.assert_close(cached, plain, atol=1e-4, rtol=0)
    assert texts == expected


def test_logits_equal_forward_on_the_kept_ids(model, picture):
    """Against the plainest path: pixels and the whole prompt through `forward`."""
    chat = Chat(model, picture)
    chat.ask("What is <region1> doing?", regions=[A], **LENGTH)
    record = Record()
    inputs = chat.inputs("Is <region2> larger?", regions=[B])
    assert len(inputs["boxes"][0]) == 2 and not record.logits
    chat.ask("Is <region2> larger?", regions=[B], logits_processor=[record], **LENGTH)
    same_logits(record.logits[0], model(**inputs).logits[:, -1])


class Work:
    """Counts what the parts of a model do: calls of vision, fusion and pooled boxes, positions through the language model."""

    def __init__(self, model):
        self.counts = {"vision": 0, "fusion": 0, "boxes": 0, "positions": []}
        count = self.counts
        self.handles = [
            model.vision.register_forward_hook(lambda *_: count.update(vision=count["vision"] + 1)),
            model.region_encoder.fusion.register_forward_hook(lambda *_: count.update(fusion=count["fusion"] + 1)),
            model.region_encoder.output.register_forward_hook(
                lambda _, args, out: count.update(boxes=count["boxes"] + len(out))
            ),
            model.language_model.model.register_forward_pre_hook(self.positions, with_kwargs=True),
        ]

    def positions(self, module, args, kwargs):
        tokens = kwargs.get("inputs_embeds")
        tokens = kwargs["input_ids"] if tokens is None else tokens
        self.counts["positions"].append(tokens.shape[1])

    def take(self):
        taken = {**self.counts, "positions": list(self.counts["positions"])}
        self.counts.update(vision=0, fusion=0, boxes=0, positions=[])
        return taken

    def remove(self):
        for handle in self.handles:
            handle.remove()


def test_only_what_changed_is_computed(picture):
    model = small_model()
    work = Work(model)
    chat = Chat(model, picture, **LENGTH)
    chat.ask("What is <region1> doing?", regions=[A])
    first = work.take()
    prompt = first["positions"][0]
    assert (first["vision"], first["fusion"], first["boxes"]) == (1, 1, 1) and first["positions"][1:] == [1] * 6
    # The last generated id has not been through the model yet; then the stop marker, the new words and the opening of the answer.
    chat.ask("Why?")
    second = work.take()
    new = len(chat.processor.encode_question(chat.history[:3], 1, {0}).input_ids)
    assert (second["vision"], second["fusion"], second["boxes"]) == (0, 0, 0)
    assert second["positions"][0] == new + 2 < prompt / 2
    chat.ask("<region2>?", regions=[B])
    assert (work.take()["boxes"], chat.regions) == (1, [A, B])
    chat.move(2, C)
    third = work.take()
    assert (third["vision"], third["fusion"], third["boxes"]) == (0, 0, 1)
    ids = chat._ids[4].input_ids
    assert third["positions"][0] == len(ids) - ids.index(model.config.region_token_id)
    chat.move(2, B)  # a box seen before is not pooled again
    assert work.take()["boxes"] == 0


def test_changed_weights_and_hooks_are_noticed(picture):
    model = small_model()
    chat = Chat(model, picture, **LENGTH)
    work = Work(model)
    chat.ask("What is <region1> doing?", regions=[A])
    work.take()
    with torch.no_grad():
        model.projector.weight.mul_(1.5)
    chat.ask("Why?")
    assert work.take()["vision"] == 1
    inputs = chat.inputs("And?")
    record = Record()
    chat.ask("And?", logits_processor=[record])
    same_logits(record.logits[0], model(**inputs).logits[:, -1])
    work.take()
    handle = model.language_model.model.layers[0].register_forward_hook(lambda *_: None)
    chat.ask("Why?")
    assert work.take()["vision"] == 1
    handle.remove()
    chat.ask("Why?")
    assert work.take()["vision"] == 1
    chat.ask("Why?")
    assert work.take()["vision"] == 0
    chat.clear_caches()
    chat.ask("Why?")
    assert work.take()["vision"] == 1


def test_no_caches_in_training_mode_and_gradients_through_inputs(picture):
    model = small_model()
    chat = Chat(model, picture, **LENGTH)
    work = Work(model)
    model.train()
    for _ in range(2):
        chat.ask("<region1>?", regions=[A])
        assert work.take()["vision"] == 1
    inputs = chat.inputs("Is <region1> red?")
    inputs["pixel_values"].requires_grad_()
    model(**inputs).logits[0, -1].sum().backward()
    assert inputs["pixel_values"].grad.abs().sum() > 0


def test_live_history_is_not_tokenised_again(picture):
    """Random models write ids that a tokenizer would never write: they must come back as they were."""
    model = small_model(seed=3)
    chat = Chat(model, picture, **LENGTH)
    chat.ask("What is <region1> doing?", regions=[A])
    kept = chat._ids[1].input_ids
    again = model.processor.encode_answer(chat.history, 1, {0}).input_ids
    assert kept != again, "this seed writes canonical ids; take another"
    sent = chat.inputs("Why?")["input_ids"][0].tolist()
    question = chat._ids[0].input_ids
    assert sent[: len(question) + len(kept)] == question + kept
    assert kept[-1] == model.processor.tokenizer.eos_token_id


# Answers


@pytest.mark.parametrize("template", ["tiny", "vicuna_v0", "chatml"])
def test_answer_tokens_and_logprobs(picture, template):
    model = small_model(template)
    chat = Chat(model, picture)
    answer = chat.ask("What is <region1> doing?", regions=[A], **LENGTH)
    assert "".join(answer.tokens).strip() == answer.text == str(answer) and answer.text
    assert len(answer.tokens) == len(answer.logprobs) and all(each <= 0 for each in answer.logprobs)
    assert answer.question == "What is <region1> doing?" and not answer.finished and answer.note is None
    # The log-probability of the first token, by hand; sampling does not change what is reported.
    fresh = Chat(model, picture)
    logits = model(**fresh.inputs("What is <region1> doing?", regions=[A])).logits[0, -1]
    assert answer.logprobs[0] == pytest.approx(
        torch.log_softmax(logits, -1)[chat._ids[1].input_ids[0]].item(), abs=1e-4
    )
    torch.manual_seed(0)
    sampled = fresh.ask("What is <region1> doing?", regions=[A], do_sample=True, temperature=5.0, max_new_tokens=1)
    assert sampled.logprobs[0] == pytest.approx(
        torch.log_softmax(logits, -1)[fresh._ids[1].input_ids[0]].item(), abs=1e-4
    )


def scripted(model, text):
    """Make a model say exactly this (and the stop marker), whatever is asked."""
    processor = model.processor
    frame = [{"role": "user", "content": "x"}, {"role": "assistant", "content": text}]
    wanted = processor.encode_answer(frame, 0, set()).input_ids
    state = {"step": 0}

    def rule(module, args, output):
        output.logits[:] = 0
        output.logits[..., wanted[state["step"] % len(wanted)]] = 9
        state["step"] += 1

    model.language_model.register_forward_hook(rule)
    return wanted


@pytest.mark.parametrize("template", ["tiny", "vicuna_v0", "vicuna_v0 legacy", "chatml"])
@pytest.mark.parametrize("text", ["She is running.", "naïve 🙂 日本語\nsecond  line #1 ## end", "é"])
def test_streamed_pieces_make_the_answer(picture, template, text):
    model = small_model(template)
    wanted = scripted(model, text)
    chat = Chat(model, picture)
    pieces = list(chat.stream("What is this?"))
    assert "".join(pieces) == text == chat.answer.text
    assert chat.answer.finished and chat._ids[1].input_ids == wanted
    assert "".join(chat.answer.tokens).strip() == text
    if text.startswith("She"):
        assert len(pieces) > 1 and not any("\ufffd" in piece for piece in pieces)


def test_what_the_model_writes_is_plain_text_in_the_next_round(picture):
    model = small_model()
    scripted(model, r"\<region7> </s>")
    chat = Chat(model, picture)
    assert chat.ask("Hello").text == "<region7> </s>"
    chat.ask("Why?")
    assert [turn["content"] for turn in chat.history] == ["Hello", r"\<region7> </s>", "Why?", r"\<region7> </s>"]
    again = Chat.from_json(model, picture, chat.to_json())
    assert again.inputs("And?")["input_ids"].tolist() == chat.inputs("And?")["input_ids"].tolist()


def test_places_of_pictures_are_never_written(picture):
    model = small_model()
    places = [model.config.image_token_id, model.config.region_token_id]
    with torch.no_grad():
        model.get_input_embeddings().weight[places] *= 50
    chat = Chat(model, picture, **LENGTH)
    chat.ask("Hello")
    assert not set(places) & set(chat._ids[1].input_ids)
    chat.ask("Hello", suppress_tokens=None)  # even if someone allows them
    chat.ask("Why?")


def slow(model, seconds=0.05):
    model.language_model.register_forward_pre_hook(lambda *_: time.sleep(seconds))


def test_stop_from_another_thread_keeps_what_was_said(picture):
    model = small_model()
    slow(model)
    chat = Chat(model, picture, max_new_tokens=300, min_new_tokens=300)
    timer = threading.Timer(0.4, chat.stop)
    timer.start()
    start = time.perf_counter()
    answer = chat.ask("Describe.")
    assert time.perf_counter() - start < 8 and not answer.finished
    assert 0 < len(chat._ids[1].input_ids) < 250
    assert chat.history[1] == {"role": "assistant", "content": answer.text}
    assert chat._ids[1].input_ids[-1] == model.processor.tokenizer.eos_token_id, "the turn is closed for the next round"
    inputs, record = chat.inputs("Why?"), Record()
    chat.ask("Why?", max_new_tokens=2, min_new_tokens=2, logits_processor=[record])
    same_logits(record.logits[0], model(**inputs).logits[:, -1])


def test_stop_inside_the_loop_and_breaking_off(picture):
    model = small_model()
    slow(model, 0.02)
    chat = Chat(model, picture, max_new_tokens=300, min_new_tokens=300)
    for _ in chat.stream("Describe."):
        chat.stop()
    assert len(chat.history) == 2 and len(chat._ids[1].input_ids) < 100
    stream = chat.stream("Describe.")
    next(stream)
    with pytest.raises(RuntimeError, match="still answering"):
        chat.ask("Why?")
    stream.close()
    assert len(chat.history) == 4 and len(chat._ids[3].input_ids) < 100
    chat.ask("Why?", max_new_tokens=2, min_new_tokens=2)


def test_asking_right_after_stopping_waits_for_the_old_answer(picture):
    model = small_model()
    slow(model)
    chat = Chat(model, picture, max_new_tokens=300, min_new_tokens=300)
    other = threading.Thread(target=chat.ask, args=("Describe.",))
    other.start()
    time.sleep(0.3)
    chat.stop()
    chat.ask("Why?", max_new_tokens=2, min_new_tokens=2)
    other.join()
    assert [turn["content"] for turn in chat.history[::2]] == ["Describe.", "Why?"]


def test_a_stopped_answer_ends_though_nobody_reads_it(picture):
    model = small_model()
    slow(model)
    chat = Chat(model, picture, max_new_tokens=300, min_new_tokens=300)
    abandoned = chat.stream("Describe.")
    next(abandoned)
    chat.stop()
    number = chat.add_region(A)  # waits for the answer, does not change anything under it
    assert len(chat.history) == 2 and chat.regions == [A]
    stream = chat.stream(f"What is <region{number}> doing?", max_new_tokens=12, min_new_tokens=12)
    next(stream)
    abandoned.close()  # ends nothing but its own answer
    list(stream)
    assert len(chat.answer.tokens) == 12 and len(chat.history) == 4


def test_an_error_while_answering_reaches_the_caller_and_changes_nothing(picture):
    model = small_model()
    chat = Chat(model, picture, **LENGTH)
    chat.ask("What is <region1> doing?", regions=[A])
    before = chat.to_json()
    handle = model.language_model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        chat.ask("And <region2>?", regions=[B])
    handle.remove()
    assert chat.to_json() == before and chat.regions == [A]
    assert chat.ask("And <region2>?", regions=[B]).text


def test_what_a_failed_answer_computed_is_not_trusted_after_a_change(picture):
    model = small_model()
    chat = Chat(model, picture, **LENGTH)
    with pytest.raises((TypeError, ValueError)):
        chat.ask("What is <region1> doing?", regions=[A], bogus=1)  # after the picture and the region were encoded
    with torch.no_grad():
        model.projector.weight.mul_(3)
        model.region_encoder.output.weight.mul_(3)
    answer = chat.ask("What is <region1> doing?", regions=[A])
    fresh = Chat(model, picture, **LENGTH).ask("What is <region1> doing?", regions=[A])
    assert (answer.text, answer.logprobs) == (fresh.text, fresh.logprobs)


def test_nothing_can_be_changed_under_an_answer(picture):
    model = small_model()
    slow(model)
    chat = Chat(model, picture, max_new_tokens=20, min_new_tokens=20)
    number = chat.add_region(A)
    stream = chat.stream("What is <region1> doing?")
    next(stream)
    for action in (lambda: chat.add_region(B), lambda: chat.remove(number), lambda: chat.move(number, B), chat.clear):
        with pytest.raises(RuntimeError, match="still answering"):
            action()
    assert list(stream) and chat.add_region(B) == 2 and chat.regions == [A, B]


# Regions


def test_numbers_never_shift(model, picture):
    chat = Chat(model, picture, **LENGTH)
    assert [chat.add_region(A), chat.add_region(B), chat.add_region(torch.tensor(C))] == [1, 2, 3]
    chat.remove(2)
    assert chat.regions == [A, None, C] and chat.add_region(B) == 4
    chat.ask("<region3> or <region4>?")
    sent = chat.inputs("<region1>?")["boxes"][0]
    torch.testing.assert_close(sent, normalise_boxes([C, B, A], picture.size))
    for action in (lambda: chat.ask("<region2>?"), lambda: chat.move(2, A), lambda: chat.remove(2)):
        with pytest.raises(
            ValueError, match="(?s)region 2|<region2> is mentioned, but it was removed.*<region1>, <region3>, <region4>"
        ):
            action()


def test_a_removed_region_stays_in_earlier_turns(model, picture):
    chat = Chat(model, picture, **LENGTH)
    chat.ask("<region1>?", regions=[A])
    chat.remove(1)
    assert len(chat.inputs("Why?")["boxes"][0]) == 1
    chat.ask("Why?")
    with pytest.raises(ValueError, match="<region1> is mentioned, but it was removed; the regions left: none"):
        chat.ask("And <region1>?")


def test_moving(model, picture):
    chat = Chat(model, picture, **LENGTH)
    chat.add_region(A)
    assert chat.move(1, B) is None and chat.regions == [B] and chat.history == []
    one = chat.ask("What is <region1>?")
    two = chat.move(1, C)
    assert chat.regions == [C] and len(chat.history) == 2 and two.question == one.question
    fresh = Chat(model, picture, **LENGTH).ask("What is <region1>?", regions=[C])
    assert two.text == fresh.text and two.logprobs == pytest.approx(fresh.logprobs, abs=1e-4)
    assert two.logprobs != pytest.approx(one.logprobs, abs=1e-4)
    with pytest.raises(ValueError, match="region 1.*64 x 48"):
        chat.move(1, [30, 2, 1, 40])
    assert chat.regions == [C] and chat.history[-1]["content"] == roilab.chat.escape_regions(two.text)


def test_clear_keeps_the_picture(picture):
    model = small_model()
    work = Work(model)
    chat = Chat(model, picture, **LENGTH)
    chat.ask("<region1>?", regions=[A])
    chat.clear()
    assert (chat.history, chat.regions, chat.answer) == ([], [], None)
    work.take()
    chat.ask("<region1>?", regions=[B])
    assert (work.counts["vision"], work.counts["fusion"], work.counts["boxes"]) == (0, 0, 1)


# Mistakes


@pytest.mark.parametrize(
    "question, regions, words",
    [
        ("Is <region1> like <region2>?", [A], ["<region2>", "2 <region> mentions", "1 boxes"]),
        ("<region0>?", [A], ["<region0>", "1 boxes"]),
        ("", [], ["empty", "0 characters"]),
        (" \n\t", [], ["empty", "3 characters"]),
        (None, [], ["NoneType", "str"]),
        ("Hello " * 400, [], ["tokens", "at most 512"]),
        ("<region1>?", [[30, 2, 1, 40]], ["region 1", "64 x 48"]),
        ("<region1>?", [[3, 2, 3, 40]], ["region 1", "64 x 48"]),
        ("<region1>?", [[3, 2, float("nan"), 40]], ["region 1", "64 x 48"]),
        ("<region1>?", [A, [100, 100, 120, 120]], ["region 2", "64 x 48"]),
    ],
)
@pytest.mark.parametrize("method", ["ask", "stream", "inputs"])
def test_mistakes_name_both_sides_and_change_nothing(model, picture, question, regions, words, method):
    chat = Chat(model, picture)
    with pytest.raises(ValueError) as error:
        getattr(chat, method)(question, regions=regions)
    assert all(word in str(error.value) for word in words), error.value
    assert chat.history == [] and chat.regions == []


@pytest.mark.filterwarnings("ignore:Unfeasible length")
def test_a_conversation_that_outgrows_the_context(picture):
    model = small_model(max_position_embeddings=100)
    chat = Chat(model, picture, max_new_tokens=1000, min_new_tokens=1000)
    chat.ask("Hello")
    assert sum(len(ids.input_ids) for ids in chat._ids) <= 101  # the answer takes what is left
    with pytest.raises(
        ValueError,
        match=r"the prompt has \d+ tokens \(\d+ of them new\) and an answer needs 16, but the model reads at most 100",
    ):
        chat.ask("Why?")
    chat.clear()
    chat.ask("Why?")


@pytest.mark.filterwarnings("error::FutureWarning", "error::DeprecationWarning")
def test_asking_twice_uses_nothing_that_will_go_away(picture):
    chat = Chat(small_model(), picture)
    chat.ask("What is <region1>?", regions=[(2, 2, 30, 30)])
    chat.ask("And what colour is it?")


def test_a_model_without_processor_is_refused(picture):
    model = small_model()
    model.processor = None
    with pytest.raises(ValueError, match="no processor"):
        Chat(model, picture)


LASSO = [[4, 4], [40, 6], [20, 44]]


@torch.no_grad()
def test_an_outline_is_its_box_with_the_cells_outside_masked(model, picture):
    from roilab.regions import cell_mask, normalise_boxes

    chat, question = Chat(model, picture, max_new_tokens=4), "Is <region1> left of <region2>?"
    inputs = chat.inputs(question, [LASSO, (2, 2, 30, 30)])
    boxes = normalise_boxes([(4, 4, 40, 44), (2, 2, 30, 30)], picture.size)
    torch.testing.assert_close(inputs["boxes"][0], boxes)
    mask = cell_mask(LASSO, (4, 4, 40, 44), 4)
    torch.testing.assert_close(inputs["masks"][0], torch.stack([mask, torch.ones(4, 4)]))
    assert 0 < mask.sum() < 16 and "masks" not in chat.inputs(question, [(4, 4, 40, 44), (2, 2, 30, 30)])
    logits = model(**inputs).logits[0, -1]
    boxed = model(**chat.inputs(question, [(4, 4, 40, 44), (2, 2, 30, 30)])).logits[0, -1]
    assert (logits - boxed).abs().max() > 1e-4
    answer = chat.ask(question, [LASSO, (2, 2, 30, 30)])
    assert answer.logprobs[0] == pytest.approx(logits.log_softmax(-1).max().item(), abs=1e-4)
    assert chat.regions == [LASSO, [2, 2, 30, 30]]


def test_outlines_move_are_cached_and_kept_like_boxes(model, picture):
    def play(chat):
        first = chat.ask("What is <region1>?", [LASSO])
        moved = chat.move(1, [[x + 10, y] for x, y in LASSO])
        box = chat.move(1, (4, 4, 40, 44))
        return [*first.logprobs, *moved.logprobs, *box.logprobs]

    chat = Chat(model, picture, max_new_tokens=3)
    assert play(chat) == pytest.approx(play(Chat(model, picture, caches=False, max_new_tokens=3)), abs=1e-4)
    chat.move(1, LASSO)
    chat.revise(chat.regions, [dataclasses.replace(chat.answer, ids=[])])  # its words alone, as JSON keeps them
    again = Chat.from_json(model, picture, chat.to_json(), max_new_tokens=3)
    assert again.regions == chat.regions == [LASSO]
    assert again.ask("Why?").logprobs == pytest.approx(chat.ask("Why?").logprobs, abs=1e-4)
    with pytest.raises(ValueError, match="region 2: an outline is three or more points"):
        chat.add_region([[1, 1], [2, 2]])
    with pytest.raises(ValueError, match="region 2: a box is four numbers"):
        chat.add_region([1, [2, 2], 3, 4])


# Keeping


def test_json_round_trip(model, picture):
    chat = Chat(model, picture, **LENGTH)
    chat.ask("What is <region1> doing? é 🙂", regions=[A, B])
    chat.ask("Why?")
    chat.remove(2)
    text = chat.to_json()
    again = Chat.from_json(model, picture, text, **LENGTH)
    assert again.history == chat.history and again.regions == chat.regions and again.to_json() == text
    assert [turn["role"] for turn in json.loads(text)["turns"]] == ["user", "assistant"] * 2
    assert again._ids[0] == chat._ids[0] and again._ids[2] == chat._ids[2]
    assert again.ask("And?").text
    assert Chat.from_json(model, picture, Chat(model, picture).to_json()).history == []


def test_json_of_another_picture_or_nonsense(model, picture):
    chat = Chat(model, picture, **LENGTH)
    chat.ask("<region1>?", regions=[A])
    text = chat.to_json()
    with pytest.raises(ValueError, match="64 x 48 pixels, this one has 10 x 10"):
        Chat.from_json(model, picture.resize((10, 10)), text)
    record = json.loads(text)
    for wrong in ("", "[]", "3", "{}", json.dumps({**record, "format": "other"}), json.dumps({**record, "turns": record["turns"][:1]}),
                  json.dumps({**record, "boxes": []}), json.dumps({**record, "removed": [4]}), json.dumps({**record, "turns": [3]}),
                  json.dumps({**record, "image_size": 64}), json.dumps({**record, "image_size": [64]}), json.dumps({**record, "boxes": None})):  # fmt: skip
        with pytest.raises(ValueError):
            Chat.from_json(model, picture, wrong)


def test_pictures_of_all_kinds(model, picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    inputs = [picture, buffer.getvalue(), np.array(picture), torch.tensor(np.array(picture)).permute(2, 0, 1)]
    pixels = [Chat(model, each).inputs("Hello")["pixel_values"] for each in inputs]
    assert all(torch.equal(each, pixels[0]) for each in pixels)


def test_note_comes_with_the_answer(picture, monkeypatch):
    model = small_model()
    calls = []
    monkeypatch.setattr(
        roilab.memory, "picture_note", lambda model, features: calls.append(features) or "unlike a scene"
    )
    chat = Chat(model, picture, **LENGTH)
    assert chat.ask("Hello").note == chat.note == chat.ask("Hello").note == "unlike a scene"
    assert len(calls) == 1 and calls[0].patches.shape == (1, 16, 32)


# Other boxes and rounds in one step


def rounds_of(chat):
    """Three rounds about A and B."""
    questions = (("What is <region1> doing?", [A, B]), ("Why?", []), ("And <region2>?", []))
    return [chat.ask(question, regions=regions) for question, regions in questions]


def test_revised_rounds_are_as_if_they_had_been_asked_so(model, picture):
    chat = Chat(model, picture, **LENGTH)
    one, two, three = rounds_of(chat)
    for boxes, kept, questions in (
        ([A, C], [one, two], ["What is <region1> doing?", "Why?"]),
        ([A, B], [one, two, three], ["What is <region1> doing?", "Why?", "And <region2>?"]),
        ([C, B], [], []),
    ):
        chat.revise(boxes, kept)
        fresh, record, expected = Chat(model, picture, **LENGTH), Record(), Record()
        for box in boxes:
            fresh.add_region(box)
        for question in questions:
            fresh.ask(question)
        assert (chat.regions, chat.history) == (boxes, fresh.history)
        assert chat.answer is (kept[-1] if kept else None)
        answer = chat.ask("Is <region2> larger than <region1>?", logits_processor=[record])
        again = fresh.ask("Is <region2> larger than <region1>?", logits_processor=[expected])
        torch.testing.assert_close(torch.stack(record.logits), torch.stack(expected.logits), atol=1e-4, rtol=0)
        assert (answer.text, answer.ids) == (again.text, again.ids)


def test_revising_keeps_the_ids_of_answers(picture):
    """Random models write ids that a tokenizer would never write: they must stay as they were."""
    model = small_model(seed=3)
    chat = Chat(model, picture, **LENGTH)
    rounds = rounds_of(chat)
    canonical = model.processor.encode_answer(chat.history[:2], 2, {0}).input_ids
    assert rounds[0].ids != canonical, "this seed writes canonical ids; take another"
    before = [list(ids.input_ids) for ids in chat._ids]
    chat.revise([A, B], rounds)
    assert [ids.input_ids for ids in chat._ids] == before and [before[i] for i in (1, 3, 5)] == [
        each.ids for each in rounds
    ]
    chat.revise([A, B], [Answer(rounds[0].text, question=rounds[0].question)])  # as kept in a file: words alone
    assert chat._ids[1].input_ids == canonical


def test_revising_keeps_what_is_known_about_the_picture(picture):
    model = small_model()
    chat, work = Chat(model, picture, **LENGTH), Work(model)
    rounds = rounds_of(chat)
    work.take()
    chat.revise([A, C], rounds[:2])
    chat.ask("And <region2>?")
    done = work.take()
    assert (done["vision"], done["fusion"], done["boxes"]) == (0, 0, 1)


def test_revising_with_gaps_keeps_the_numbers(model, picture):
    chat = Chat(model, picture, **LENGTH)
    chat.revise([None, B, None])
    assert chat.regions == [None, B, None] and chat.history == [] and chat.answer is None
    sent = chat.inputs("<region2>?")["boxes"][0]
    torch.testing.assert_close(sent, normalise_boxes([B], picture.size))
    for number in (1, 3):
        with pytest.raises(
            ValueError, match=f"<region{number}> is mentioned, but it was removed; the regions left: <region2>"
        ):
            chat.ask(f"<region{number}>?")
    assert chat.add_region(A) == 4
    chat.revise([])
    assert chat.regions == []


def test_a_refused_revision_changes_nothing(model, picture):
    chat = Chat(model, picture, **LENGTH)
    rounds = rounds_of(chat)
    before, ids = chat.to_json(), list(chat._ids)
    for boxes, answers, words in (
        ([A, [30, 2, 1, 40]], [], "region 2"),
        ([None, [100, 100, 120, 120]], rounds[1:2], "region 2"),
        ([None, B], rounds[:1], "<region1> is mentioned, but it was removed"),
        ([A], rounds, "<region2>"),
        ([A, None], [rounds[0], rounds[2]], "<region2> is mentioned, but it was removed"),
    ):
        with pytest.raises(ValueError, match=words):
            chat.revise(boxes, answers)
        assert (chat.to_json(), chat._ids, chat.answer, chat.regions) == (before, ids, rounds[-1], [A, B])


def test_nothing_is_revised_under_an_answer(picture):
    model = small_model()
    slow(model)
    chat = Chat(model, picture, max_new_tokens=20, min_new_tokens=20)
    stream = chat.stream("Describe.")
    next(stream)
    with pytest.raises(RuntimeError, match="still answering"):
        chat.revise([A])
    stream.close()
    chat.revise([A])
    assert chat.regions == [A] and chat.history == []
