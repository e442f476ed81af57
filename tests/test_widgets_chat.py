"""`RegionChat` without a browser: rounds that depend on regions, answers in a thread, hostile words, the question field."""

import dataclasses
import io
import json
import threading
import time

import ipywidgets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page, walk
from PIL import Image

import roilab.widgets.chat
from roilab import Chat
from roilab.chat import Answer
from roilab.widgets import Region, RegionChat, RegionSet
from roilab.widgets.conversation import Conversation, as_markdown, marked, mentioned
from roilab.widgets.question import QuestionBox
from roilab.widgets.rounds import RoundView, plain_attribute

A, B, C = (1, 2, 30, 40), (10, 5, 60, 20), (5, 5, 20, 30)
TRIANGLE = ((10, 10), (30, 20), (12, 40))
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script> & &amp; &lt;",
    "**x** _y_ `z` [a](javascript:alert(1)) ![b](c) # d | e | ~~f~~ $x^2$ https://example.com a@b.cc",
    '"\' onclick=alert(1) x="</button><b>',
]


class StandIn:
    """In the place of `Chat`: says what it is told, one word at a time, and notes what it was given."""

    def __init__(self, model, image, **kwargs):
        self.words, self.errors, self.answer = {}, {}, None
        self.revisions, self.log = [], []
        self.slow, self.gate = False, threading.Semaphore(0)
        self.active = self.most_active = 0
        self._stop = threading.Event()

    def revise(self, boxes, answers=()):
        self.revisions.append((list(boxes), [each.question for each in answers]))

    def stream(self, question):
        if question in self.errors:
            raise self.errors[question]
        return self._run(question, self.words.get(question, "It is fine."))

    def _run(self, question, text):
        self._stop = stop = threading.Event()
        self.active += 1
        self.most_active = max(self.active, self.most_active)
        said = ""
        try:
            for word in text.split(" "):
                while self.slow and not stop.is_set() and not self.gate.acquire(timeout=0.01):
                    pass
                if stop.is_set():
                    break
                piece = word if not said else f" {word}"
                said += piece
                self.log.append(question)
                yield piece
        finally:
            self.active -= 1
            self.answer = Answer(said, question=question, finished=said == text, ids=[7])

    def stop(self):
        self._stop.set()


@pytest.fixture
def told(picture, monkeypatch):
    """A `RegionChat` with two regions and a stand-in that answers."""
    monkeypatch.setattr(roilab.widgets.chat, "Chat", StandIn)
    chat = RegionChat(None, picture, [A, B])
    yield chat
    chat.chat.slow = False
    chat.close()
    chat.wait(5)


@pytest.fixture
def chat(model, picture):
    made = RegionChat(model, picture, [A, B], max_new_tokens=3, min_new_tokens=3)
    yield made
    made.close()
    made.wait(5)


def until(condition):
    """Wait for something that another thread does."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def view(chat, place=-1):
    chat.wait(5)
    return chat._views[chat.conversation.rounds[place]]


def shown(widget):
    """The text that stands on the page there."""
    if isinstance(widget, ipywidgets.Button):
        return widget.description
    if isinstance(widget, ipywidgets.HTML):
        return Page(widget.value).text
    return "".join(shown(each) for each in getattr(widget, "children", ()))


def remarks(chat, place=-1):
    return shown(view(chat, place)._remarks)


def stale(chat):
    chat.wait(5)
    marks = ["roilab-stale" in chat._views[each]._dom_classes for each in chat.conversation.rounds]
    assert marks == ["Out of date" in remarks(chat, place) for place in range(len(marks))]
    return [number for number, mark in enumerate(marks, 1) if mark]


def find_button(widget, text):
    (found,) = [each for each in walk(widget) if isinstance(each, ipywidgets.Button) and each.description == text]
    return found


def options(chat):
    return {"max_new_tokens": 3, "min_new_tokens": 3}


# Asking


def test_an_answer_is_returned_and_stands_in_the_history(chat, model, picture):
    answer = chat.ask("What is region1 doing?")
    fresh = Chat(model, picture, **options(chat)).ask("What is <region1> doing?", regions=[A, B])
    assert isinstance(answer, Answer) and (answer.text, answer.ids) == (fresh.text, fresh.ids)
    assert answer.question == "What is <region1> doing?"
    assert chat.history[:2] == [
        {"role": "user", "content": "What is <region1> doing?"},
        {"role": "assistant", "content": answer.text},
    ]
    assert shown(view(chat)._question) == "What is region1 doing?"
    assert shown(view(chat)._answer) == answer.text


def test_only_regions_that_there_are_are_marked():
    assert marked("Is region1 like region12, <region2> or xregion1 and region1s?", {1, 2}) == (
        "Is <region1> like region12, <region2> or xregion1 and region1s?"
    )
    assert marked(r"\<region1> region01 region0 Region1", {0, 1}) == r"\<region1> region01 region0 Region1"
    assert mentioned("<region3> region1 <region3> region20") == (3, 1, 20)
    assert mentioned("Why?") == ()


def test_a_region_that_is_not_there_is_said_in_the_conversation_and_raised(chat):
    with pytest.raises(ValueError, match="there is no region 7 on the picture; the regions: 1, 2"):
        chat.ask("What is <region7>?")
    assert "No answer: there is no region 7" in remarks(chat) and "roilab-failed" in view(chat)._dom_classes
    assert chat.conversation.rounds[0].state == "failed" and chat.conversation.rounds[0].answer is None
    assert chat.history[0]["content"] == "What is <region7>?" and chat.history[1]["role"] == "note"
    assert chat.ask("What is <region1>?").text, "the conversation goes on"
    assert [turn["content"] for turn in chat.chat.history[::2]] == ["What is <region1>?"]


@pytest.mark.parametrize("question", ["", "  \n", None, 3])
def test_a_question_without_words_is_refused(told, question):
    with pytest.raises(ValueError, match="expected words"):
        told.ask(question)
    assert told.conversation.rounds == []
    with pytest.raises(ValueError, match="nothing was asked yet"):
        told.ask_again()


def test_a_question_that_is_too_long_is_said_and_raised(chat):
    with pytest.raises(ValueError, match="tokens"):
        chat.ask("Hello " * 500)
    assert "the model reads at most 512" in remarks(chat)


def test_any_error_of_the_model_appears_where_the_answer_would_be(told):
    told.chat.errors["Hello"] = KeyError("<b>gone</b>")
    with pytest.raises(ValueError, match="KeyError: '<b>gone</b>'"):
        told.ask("Hello")
    assert "KeyError: '<b>gone</b>'" in remarks(told) and "<b>" not in view(told)._remarks.value
    assert told.ask("And now?").text == "It is fine."


def test_waiting_inside_a_callback_is_refused_instead_of_hanging(told):
    seen = []

    def ask(change):
        with pytest.raises(RuntimeError, match="wait=False"):
            told.ask("What is <region1>?")
        told.ask("What is <region2>?", wait=False)
        seen.append(change)

    told.canvas.observe(ask, "regions")
    told.region_set.move(1, 1, 1)
    told.wait(5)
    assert len(seen) == 1 and [each.question for each in told.conversation.rounds] == ["What is <region2>?"]


# What depends on what


def test_a_question_without_regions_is_about_those_of_the_one_before(told):
    for question in ("Hello", "Why?", "<region2> or <region1>?", "Why?", "Really?", "And <region1>?", "So?"):
        told.ask(question)
    assert [each.about for each in told.conversation.rounds] == [(), (), (2, 1), (2, 1), (2, 1), (1,), (1,)]


def test_moving_marks_exactly_what_depends_on_it_and_undo_unmarks(told):
    for question in ("Hello", "What is <region1>?", "Why?", "And <region2>?", "Why?", "Is <region1> like <region2>?"):
        told.ask(question)
    assert stale(told) == []
    told.region_set.move(1, 1, 0)
    assert stale(told) == [2, 3, 6] and "region1 changed" in remarks(told, 1)
    told.region_set.move(2, 0, 1)
    assert stale(told) == [2, 3, 4, 5, 6] and "region1 and region2 changed" in "".join(remarks(told).split("\n"))
    told.region_set.undo()
    assert stale(told) == [2, 3, 6]
    told.region_set.undo()
    assert stale(told) == []
    told.region_set.relabel(1, "x")
    told.region_set.reorder(1, 1)
    told.region_set.add(C)
    assert stale(told) == [], "nothing that the model sees"
    told.region_set.remove(2)
    assert stale(told) == [4, 5, 6]
    told.region_set.undo()
    assert stale(told) == []


def test_what_is_out_of_date_is_kept_from_the_model(chat, model, picture):
    chat.ask("Hello")
    chat.ask("What is <region1>?")
    chat.ask("And <region2>?")
    chat.region_set.resize(1, C)
    answer = chat.ask("Is <region1> larger than <region2>?")
    assert [turn["content"] for turn in chat.chat.history[::2]] == [
        "Hello",
        "And <region2>?",
        "Is <region1> larger than <region2>?",
    ]
    fresh = Chat(model, picture, **options(chat))
    fresh.revise([C, B], [chat.conversation.rounds[0].answer, chat.conversation.rounds[2].answer])
    expected = fresh.ask("Is <region1> larger than <region2>?")
    assert answer.text == expected.text and answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    chat.region_set.undo()
    chat.ask("And?")
    assert [turn["content"] for turn in chat.chat.history[::2]] == [
        "Hello",
        "What is <region1>?",
        "And <region2>?",
        "And?",
    ]


def test_asking_again_replaces_in_place(told):
    told.ask("What is <region1>?")
    told.ask("And <region2>?")
    told.chat.words = {"What is <region1>?": "Another thing."}
    told.region_set.resize(1, C)
    assert stale(told) == [1]
    first = told.conversation.rounds[0]
    assert told.ask_again(first).text == "Another thing."
    assert told.conversation.rounds[0] is first and len(told.conversation.rounds) == 2 and stale(told) == []
    assert shown(view(told, 0)._answer) == "Another thing."
    assert told.chat.revisions[-1] == ([list(C), list(B)], []), "only what was before it"
    told.ask_again()
    assert told.chat.revisions[-1] == ([list(C), list(B)], ["What is <region1>?"])


def test_an_outline_reaches_the_model_and_makes_answers_out_of_date_when_it_changes(chat, model, picture):
    chat.regions = [TRIANGLE, {"place": (50, 20)}]
    shapes = [each.shape for each in chat.regions]
    answer = chat.ask("What is <region1>?")
    assert chat.chat.regions == shapes and len(shapes[0]) == 3
    direct = Chat(model, picture, **options(chat)).ask("What is <region1>?", [TRIANGLE])
    assert (answer.text, answer.tokens) == (direct.text, direct.tokens)
    assert answer.logprobs == pytest.approx(direct.logprobs, abs=1e-4)
    chat.ask("And <region2>?")
    assert stale(chat) == []
    chat.region_set.resize(1, (10, 10, 40, 40))
    assert stale(chat) == [1]
    chat.region_set.undo()
    chat.regions = [{"id": 1, "box": (10, 10, 30, 40)}, chat.regions[1]]  # the box around it is no outline
    assert stale(chat) == [1] and chat.region_set.boxes[0] == [10, 10, 30, 40]
    chat.region_set.move(2, 1, 0)
    assert stale(chat) == [1, 2]
    chat.region_set.undo()
    chat.region_set.undo()
    assert stale(chat) == []
    text = chat.to_json()
    again = RegionChat.from_json(model, picture, text, max_new_tokens=3, min_new_tokens=3)
    assert again.to_json() == text and stale(again) == [] and again.regions == chat.regions
    again.region_set.move(1, 1, 1)
    assert stale(again) == [1]
    again.close()
    assert chat.figure()._repr_png_()
    told = chat.to_markdown()
    assert "region1 is an outline of 3 points, region2 is a point at 50, 20; the table" in told.replace("\\", "")


def test_buttons_ask_again_one_or_all_that_is_out_of_date(told):
    for question in ("What is <region1>?", "And <region2>?", "Is <region1> like <region2>?"):
        told.ask(question)
    told.wait(5)
    assert "roilab-hidden" in told._all_again._dom_classes
    told.region_set.move(1, 1, 0)
    assert "roilab-hidden" not in told._all_again._dom_classes
    before = len(told.chat.revisions)
    find_button(told, "Ask all again").click()
    told.wait(5)
    assert len(told.chat.revisions) == before + 2 and stale(told) == []
    assert told.chat.revisions[-1][1] == ["What is <region1>?", "And <region2>?"], (
        "the ones before it were answered first"
    )
    told.region_set.move(2, 0, 1)
    find_button(view(told, 1), "Ask again").click()
    told.wait(5)
    assert stale(told) == [3]


def test_asking_again_of_a_removed_region_fails_and_keeps_the_old_answer(told):
    answer = told.ask("What is <region2>?")
    told.region_set.remove(2)
    with pytest.raises(ValueError, match="no region 2 on the picture; the regions: 1"):
        told.ask_again()
    assert told.conversation.rounds[0].answer is answer and "No answer" in remarks(told)
    told.region_set.undo()
    assert told.ask_again().text == answer.text and remarks(told) == ""


def test_asking_again_marks_regions_that_have_come_back(told):
    told.region_set.remove(2)
    with pytest.raises(ValueError, match="no region 2"):
        told.ask("Describe region2")
    told.region_set.undo()
    assert told.ask_again().question == "Describe <region2>", "otherwise the model is not shown the region"


def test_numbers_that_rounds_name_are_not_given_to_new_regions(told):
    told.ask("What is <region2>?")
    told.region_set.remove(2)
    assert told.region_set.add(C) == 3
    told.clear()
    assert told.region_set.add(C) == 2


def test_a_question_that_failed_takes_no_number(told):
    told.regions = []
    with pytest.raises(ValueError, match="the regions: none"):
        told.ask("What is <region1>?")
    assert told.region_set.add(A) == 1


def test_two_conversations_about_one_set_keep_each_others_numbers(told, picture):
    other = RegionChat(None, picture, told.region_set)
    told.ask("What is <region2>?")
    other.ask("What is <region1>?")
    told.wait(5)
    other.wait(5)
    told.region_set.replace([])
    assert told.region_set.add(C) == 3
    other.close()
    told.region_set.add(B)
    assert len(told.regions) == 2


def test_regions_of_the_chat_are_those_of_the_canvas(told):
    told.regions = [{"id": 5, "box": A, "label": "dog"}]
    assert told.regions == (Region(5, A, "dog"),) == told.canvas.regions == told.region_set.regions
    assert told.ask("What is region5?").question == "What is <region5>?"
    assert told.chat.revisions[-1][0] == [None] * 4 + [list(A)]


# Several questions, stopping


def test_a_second_question_waits_for_the_first(told):
    told.chat.slow = True
    told.ask("One?", wait=False)
    until(lambda: told.conversation.rounds[0].state == "answering")
    told.ask("Two?", wait=False)
    one, two = told.conversation.rounds
    assert (one.state, two.state) == ("answering", "waiting")
    assert shown(told._views[two]._answer) == "waiting …" and "roilab-waiting" in told._views[two]._dom_classes
    assert not told._stop.disabled
    told.chat.gate.release(100)
    told.wait(5)
    assert told.chat.log == ["One?"] * 3 + ["Two?"] * 3 and told.chat.revisions[-1][1] == ["One?"]
    assert (one.state, two.state) == ("done", "done") and told._stop.disabled


def test_questions_of_several_threads_never_interleave(told):
    told.chat.slow = True
    told.chat.gate.release(1000)
    questions = [f"Question {i}?" for i in range(6)]
    answers = {}
    threads = [threading.Thread(target=lambda q=q: answers.update({q: told.ask(q).question})) for q in questions]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert answers == {q: q for q in questions} and told.chat.most_active == 1
    runs = [q for i, q in enumerate(told.chat.log) if i == 0 or told.chat.log[i - 1] != q]
    assert sorted(runs) == questions and len(told.chat.log) == 3 * len(questions)
    assert runs == [each.question for each in told.conversation.rounds]


def test_regions_can_move_while_an_answer_is_made(told):
    told.chat.slow = True
    told.ask("What is <region1>?", wait=False)
    until(lambda: told.conversation.rounds[0].state == "answering")
    told.region_set.move(1, 1, 0)
    told.chat.gate.release(100)
    assert stale(told) == [1] and told.conversation.rounds[0].answered_with == {1: list(A)}


def test_stopping_keeps_the_words_and_drops_what_waits(told):
    told.chat.slow = True
    told.ask("One?", wait=False)
    told.ask("Two?", wait=False)
    told.chat.gate.release(2)
    until(lambda: told.conversation.rounds[0].said == "It is")
    find_button(told, "Stop").click()
    told.wait(5)
    one, two = told.conversation.rounds
    assert (one.state, one.answer.text, one.answer.finished) == ("done", "It is", False)
    assert shown(view(told, 0)._answer) == "It is" and "cut short" in remarks(told, 0)
    assert (two.state, two.answer) == ("dropped", None) and "Stopped before it was answered." in remarks(told, 1)
    assert told.chat.log == ["One?"] * 2 and told._stop.disabled
    told.chat.slow = False
    assert told.ask_again(two).text == "It is fine."
    assert told.chat.revisions[-1][1] == ["One?"]


def test_stopping_a_real_answer(model, picture):
    chat = RegionChat(model, picture, [A], max_new_tokens=400, min_new_tokens=400)
    chat.ask("What is <region1>?", wait=False)
    until(lambda: chat.conversation.rounds[0].said)
    chat.stop()
    chat.wait(10)
    (only,) = chat.conversation.rounds
    assert only.state == "done" and not only.answer.finished and 0 < len(only.answer.tokens) < 400
    assert chat.ask("Why?", wait=False) is None
    chat.stop()
    chat.wait(10)
    assert all(not each.is_open for each in chat.conversation.rounds)
    chat.close()


def test_clearing_forgets_the_rounds_and_keeps_the_regions(told):
    told.ask("What is <region1>?")
    told.chat.slow = True
    told.ask("One?", wait=False)
    told.ask("Two?", wait=False)
    until(lambda: told.chat.active)
    told.clear()
    assert told.conversation.rounds == [] == told.history and told._rounds.children == () and len(told.regions) == 2
    told.chat.slow = False
    assert told.ask("Three?").text == "It is fine."
    assert told.chat.revisions[-1][1] == [] and len(view(told).children) and len(told.conversation.rounds) == 1
    assert "Two?" not in told.chat.log and told.chat.most_active == 1


def test_closing_ends_the_answer_and_leaves_a_shared_set_alive(picture, monkeypatch):
    monkeypatch.setattr(roilab.widgets.chat, "Chat", StandIn)
    shared = RegionSet.of_picture(picture, [A])
    chat = RegionChat(None, picture, shared)
    chat.chat.slow = True
    chat.ask("One?", wait=False)
    until(lambda: chat.chat.active)
    chat.close()
    chat.close()
    chat.wait(5)
    assert chat.chat.active == 0 and not chat.conversation.rounds[0].is_open
    shared.add(B)
    assert len(shared) == 2 and shared._observers == []


# Keeping


def test_json_round_trip(chat, model, picture):
    chat.region_set.relabel(1, "é <b>")
    chat.ask("What is <region1>? 🙂")
    chat.ask("And <region2>?")
    with pytest.raises(ValueError):
        chat.ask("<region9>?")
    chat.region_set.move(2, 0, 1)
    text = chat.to_json()
    again = RegionChat.from_json(model, picture, text, max_new_tokens=3, min_new_tokens=3)
    assert again.to_json() == text and again.history == chat.history and again.regions == chat.regions
    assert [each.answered_with for each in again.conversation.rounds] == [{1: list(A)}, {2: list(B)}, {}]
    assert stale(again) == [2]
    again.region_set.move(2, 0, -1)
    assert stale(again) == []
    again.ask("Why?")
    assert [turn["content"] for turn in again.chat.history[::2]] == ["What is <region1>? 🙂", "And <region2>?", "Why?"]
    assert again.region_set.add(C) == 3
    again.close()


def test_what_waits_is_kept_as_not_answered(told, picture):
    told.chat.slow = True
    told.ask("One?", wait=False)
    told.ask("Two?", wait=False)
    until(lambda: told.chat.active)
    again = RegionChat.from_json(None, picture, told.to_json())
    assert [each.state for each in again.conversation.rounds] == ["dropped", "dropped"]
    assert again.ask_again().text == "It is fine."
    again.close()


def test_json_of_another_picture_or_nonsense_is_refused(told, picture):
    told.ask("What is <region1>?")
    text = told.to_json()
    with pytest.raises(ValueError, match="64 x 48 pixels, this one has 10 x 10"):
        RegionChat.from_json(None, picture.resize((10, 10)), text)
    with pytest.raises(ValueError, match="another picture of this size"):
        RegionChat.from_json(None, Image.new("RGB", (64, 48)), text)
    record = json.loads(text)
    round_ = record["rounds"][0]
    for wrong in (
        "", "[]", "3", "{}", "null", text[:-9], told.region_set.to_json(),
        *(json.dumps({**record, **change}) for change in (
            {"format": "roilab.chat.1"}, {"regions": {}}, {"regions": None}, {"rounds": None}, {"rounds": [3]}, {"rounds": [{}]},
            {"rounds": [{**round_, "state": "waiting"}]}, {"rounds": [{**round_, "answer": None}]},
            {"rounds": [{**round_, "answer": {"words": "x"}}]}, {"rounds": [{**round_, "about": ["x"]}]},
            {"rounds": [{**round_, "boxes": 3}]},
        )),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            RegionChat.from_json(None, picture, wrong)
    with pytest.raises(ValueError, match=r"'other'.*'roilab\.conversation\.1'"):
        RegionChat.from_json(None, picture, json.dumps({**record, "format": "other"}))


def test_saving_and_exporting(told, picture, tmp_path):
    told.ask("What is <region1>?")
    told.save(tmp_path / "talk.json")
    text = (tmp_path / "talk.json").read_text(encoding="utf-8")
    assert RegionChat.from_json(None, picture, text).history == told.history
    told.save(tmp_path / "talk.md")
    assert (tmp_path / "talk.md").read_text(encoding="utf-8") == told.to_markdown()
    told.save(tmp_path / "talk.png")
    assert Image.open(tmp_path / "talk.png").width > 64
    find_button(told, "Export").click()
    links = Page(told._links.value)
    assert [attributes["download"].rsplit(".")[-1] for tag, attributes in links.tags if tag == "a"] == ["json", "md"]
    bundle = told._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "image/png" in bundle


# Markdown


def renderers():
    found = []
    try:
        import mistune

        found.append(mistune.create_markdown(escape=False, plugins=["table", "url", "strikethrough", "task_lists"]))
    except ImportError:
        pass
    try:
        from markdown_it import MarkdownIt

        found.append(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render)
    except ImportError:
        pass
    return found or [pytest.skip("no Markdown renderer is installed")]


def squeezed(text):
    return " ".join(text.split())


words = st.text(
    st.one_of(
        st.sampled_from("<>&*_`[]()!#|~$\\:/.@+-=\"'{}^ 1ax\n"),
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]),
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(words)
def test_markdown_shows_exactly_the_words(text):
    for render in renderers():
        for before in ("", "x "):
            page = Page(render(before + as_markdown(text)))
            assert squeezed(page.text) == squeezed(before + text)
            assert {tag for tag, _ in page.tags} <= {"p"}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_stay_words_in_the_exported_markdown(told, text):
    told.chat.words = {f"Is <region1> {text}?": text}
    told.chat.errors = {text: ValueError(text)}
    told.region_set.relabel(1, text)
    told.ask(f"Is <region1> {text}?")
    with pytest.raises(ValueError):
        told.ask(text)
    for render in renderers():
        page = Page(render(told.to_markdown()))
        assert {tag for tag, _ in page.tags} <= {
            "h1", "p", "strong", "em", "code", "table", "thead", "tbody", "tr", "th", "td",
        }  # fmt: skip
        assert all(set(attributes) <= {"style", "align"} for _, attributes in page.tags)
        assert squeezed(page.text).count(squeezed(text)) == 5


def test_the_exported_markdown_is_readable(told):
    told.ask("What is <region1>?")
    told.region_set.move(1, 1, 0)
    text = told.to_markdown()
    assert text.startswith("# A conversation about regions\n\nPicture: 64 x 48 pixels, sha256 `")
    assert "| 1 | 2 | 2 | 31 | 40 |  |\n" in text and "**Question 1.** What is " in text
    assert "**Answer.** It is fine\\.\n\n*Out of date" in text and text.endswith("\\.*\n")


# Hostile words on the page


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_on_the_page_are_only_text(told, text):
    told.chat.words = {text: f"{text} <region1> {text}"}
    told.chat.errors = {f"{text}!": ValueError(text)}
    told.region_set.relabel(1, text)
    told.ask(text)
    with pytest.raises(ValueError):
        told.ask(f"{text}!")
    told.question._text.value = f"{text} <"
    told.say(text)
    assert shown(view(told, 0)._question) == text
    assert shown(view(told, 0)._answer) == f"{text} region1 {text}"
    assert text in remarks(told, 1)
    for each in walk(told):
        if isinstance(each, ipywidgets.HTML):
            page = Page(each.value)
            assert "<" not in text or text not in each.value
            assert {tag for tag, _ in page.tags} <= {"span", "div", "style", "br", "button"}
            for tag, attributes in page.tags:
                handlers = [name for name in attributes if name.startswith("on")]
                assert handlers == (["onclick"] if tag == "button" else [])
                if tag == "button":
                    assert set(attributes) == {"class", "title", "data-text", "onclick"}
                    assert attributes["onclick"].startswith("const done=") and text not in attributes["onclick"]
    assert f"region1 {text}" in [each.description for each in told.question._offers.children]


@settings(max_examples=80, deadline=None)
@given(
    st.text(st.one_of(st.sampled_from("<>&\"'\n= x;"), st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
)
def test_an_attribute_gives_back_any_text(text):
    page = Page(f'<b data-text="{plain_attribute(text)}">')
    assert page.tags == [("b", {"data-text": text})] and page.text == ""


@pytest.mark.parametrize("text", [*HOSTILE, "two\nlines & more", "x"])
def test_the_copy_button_holds_the_answer(told, text):
    told.chat.words = {"Hello": text}
    told.ask("Hello")
    ((tag, attributes),) = Page(view(told)._copy.value).tags
    assert tag == "button" and attributes["data-text"] == text and attributes["onclick"]


# One round on the page


def test_names_of_regions_are_buttons_that_select(told):
    told.chat.words = {"What is <region1>?": "It stands on region2 and <region9>."}
    told.ask("What is <region1>?")
    answer, question = view(told)._answer, view(told)._question
    find_button(question, "region1").click()
    assert told.canvas.selected == 1
    find_button(answer, "region2").click()
    assert told.canvas.selected == 2
    gone = find_button(answer, "region9")
    assert "roilab-gone" in gone._dom_classes and "not there" in gone.tooltip
    gone.click()
    assert told.canvas.selected == 2 and "region 9 is not on the picture" in Page(told._said.value).text
    told.region_set.remove(2)
    assert "roilab-gone" in find_button(view(told)._answer, "region2")._dom_classes
    told.region_set.undo()
    assert "roilab-gone" not in find_button(view(told)._answer, "region2")._dom_classes


def test_only_what_changed_is_made_anew(told):
    told.ask("What is <region1>?")
    before = view(told)._question.children
    told.region_set.move(2, 1, 0)
    told.ask("And <region2>?")
    assert view(told, 0)._question.children is before
    calls = []
    round_view = RoundView(told.conversation.rounds[0], calls.append, calls.append)
    find_button(round_view, "Ask again").click()
    assert calls == [told.conversation.rounds[0]]


def test_an_empty_answer_says_so(told):
    told.chat.words = {"Hello": ""}
    assert told.ask("Hello").text == ""
    assert shown(view(told)._answer) == "(nothing)"


def test_a_note_of_the_answer_is_shown_beside_it(told, monkeypatch):
    finish = Conversation.finish
    monkeypatch.setattr(
        Conversation,
        "finish",
        lambda self, round_, answer: finish(self, round_, dataclasses.replace(answer, note="unlike <b>scenes")),
    )
    told.ask("Hello")
    assert remarks(told) == "unlike <b>scenes" and told.history[-1] == {"role": "note", "content": "unlike <b>scenes"}


# The question field


class Field:
    """A `QuestionBox` and what it asked; `refuse` is raised by asking."""

    def __init__(self, *regions):
        self.asked, self.refuse = [], None
        self.box = QuestionBox(RegionSet((64, 48), regions), self._ask)

    def _ask(self, question):
        if self.refuse:
            raise self.refuse
        self.asked.append(question)

    def type(self, text):
        """What the browser reports."""
        self.box._text.value = text
        return self.offers()

    def offers(self):
        return [each.description for each in self.box._offers.children if isinstance(each, ipywidgets.Button)]

    def said(self):
        return [each.value for each in self.box._offers.children if isinstance(each, ipywidgets.Label)]

    def take(self, text):
        (found,) = [each for each in self.box._offers.children if each.description == text]
        found.click()


@pytest.fixture
def field():
    return Field({"id": 21, "box": A, "label": "<b>dog"}, {"id": 2, "box": B}, {"id": 1, "box": C})


def test_an_angle_offers_the_regions_and_more_narrows(field):
    assert field.type("What is ") == []
    assert field.type("What is <") == ["region1", "region2", "region21 <b>dog"]
    for begun in ("<r", "<reg", "<region"):
        assert len(field.type(f"What is {begun}")) == 3
    assert field.type("What is <region2") == ["region2", "region21 <b>dog"]
    assert field.type("What is <region21") == ["region21 <b>dog"]
    field.type("What is ")
    assert field.type("What is <2") == ["region2", "region21 <b>dog"]
    assert field.type("What is <21") == ["region21 <b>dog"]
    field.type("What is ")
    for other in ("<x", "<re2", "<3", "<region2>", "<b"):
        assert field.type(f"What is {other}") == []


@pytest.mark.parametrize("begun", ["<", "<2", "<reg", "<region", "<region2"])
def test_taking_an_offer_completes_the_mention(field, begun):
    field.type("What is ")
    field.type(f"What is {begun}")
    field.take("region21 <b>dog")
    assert field.box.text == "What is <region21>" and field.offers() == [] and field.asked == []


def test_taking_an_offer_in_the_middle(field):
    field.type("Is  red?")
    field.type("Is < red?")
    field.take("region2")
    assert field.box.text == "Is <region2> red?"
    field.type("Is <region2> like  then?")
    field.type("Is <region2> like <1 then?")
    assert field.offers() == ["region1"]
    field.take("region1")
    assert field.box.text == "Is <region2> like <region1> then?"


def test_taking_an_offer_replaces_the_rest_of_an_old_mention(field):
    field.type("Is <region2> red?")
    field.type("Is <region21> red?")
    field.type("Is <region1> red?")  # the 2 was deleted, the 1 stands behind the caret
    assert len(field.offers()) == 3
    field.take("region2")
    assert field.box.text == "Is <region2> red?"


def test_offers_follow_the_regions(field):
    field.type("<")
    field.box.regions.remove(2)
    field.box.show()
    assert field.offers() == ["region1", "region21 <b>dog"]


def test_enter_asks_once_and_empties_the_field(field):
    field.type("What is <region1>?")
    field.type("What is <region1>?\n")
    assert field.asked == ["What is <region1>?"] and field.box.text == ""
    field.type("Why")
    field.type("Why?\n")  # the last letters and the key in one message
    assert field.asked[1:] == ["Why?"]


def test_enter_in_the_middle_asks_the_whole(field):
    field.type("What isit?")
    field.type("What is\nit?")
    assert field.asked == ["What isit?"]


@pytest.mark.parametrize("pasted", ["one\ntwo", "one\ntwo\n", "one\ntwo\nthree", "one\n\ntwo"])
def test_pasted_lines_do_not_ask(field, pasted):
    field.type(pasted)
    assert field.asked == [] and "\n" not in field.box.text and field.box.text.split() == pasted.split()
    field.type(field.box.text + "\n")
    assert [each.split() for each in field.asked] == [pasted.split()]


def test_what_was_typed_is_kept_when_asking_fails(field):
    field.refuse = ValueError("no <b>such</b> region")
    field.type("What is")
    field.type("What is <region9>?\n")
    assert field.asked == [] and field.box.text == "What is <region9>?" and field.said() == ["no <b>such</b> region"]
    field.refuse = None
    field.type("What is <region9>?\n")
    assert field.asked == ["What is <region9>?"] and field.said() == []


def test_nothing_written_is_said(field):
    field.type("\n")
    assert field.asked == [] and field.said() == ["write a question first"] and field.box.text == ""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab <region12>?\n"), max_size=8), max_size=6))
def test_the_field_takes_anything(texts):
    field = Field(A, B)
    for text in texts:
        field.type(text)
        assert "\n" not in field.box.text
        for offer in field.offers()[:1]:
            field.take(offer)
            assert "<region1>" in field.box.text or "<region2>" in field.box.text
    assert all(each.strip() for each in field.asked)


def test_asking_from_the_field_the_button_and_the_canvas(told):
    told.question._text.value = "What is region1?\n"
    told.wait(5)
    told.question._text.value = "Why?"
    find_button(told, "Ask").click()
    told.wait(5)
    told.question._text.value = "Really?"
    told.canvas.canvas[2]._handle_frontend_event(
        None, {"event": "key_down", "key": "Enter", "shift_key": False, "ctrl_key": False, "meta_key": False}, []
    )
    told.wait(5)
    assert [each.question for each in told.conversation.rounds] == ["What is <region1>?", "Why?", "Really?"]
    assert all(each.state == "done" for each in told.conversation.rounds) and told.question.text == ""


def test_the_figure_of_a_conversation(told):
    blank = told.figure()._repr_png_()
    told.ask("What is <region1>?")
    assert Image.open(io.BytesIO(told.figure()._repr_png_())).size and told.figure()._repr_png_() != blank


def test_what_a_question_names_is_what_the_prompt_would_show(told):
    assert mentioned(r"<region02> and region1, not \<region3> nor region10x") == (2, 1)
    assert mentioned("\\\\<region4>") == (4,)  # a quoted backslash, then a mention
    with pytest.raises(ValueError, match="no region 0"):
        told.ask("What is <region0>?")


def test_text_that_cannot_be_saved_is_replaced(told, tmp_path):
    told.regions = [{"id": 1, "box": A, "label": "cut \ud83d off"}]
    told.ask("What \ud83d is <region1>?")
    for ending in ("json", "md"):
        told.save(tmp_path / f"talk.{ending}")
        assert "What ? is" in (tmp_path / f"talk.{ending}").read_text(encoding="utf-8").replace("\\", "")
    assert told.regions[0].label == "cut ? off"
