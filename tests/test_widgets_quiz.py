"""`QuizView` without a browser: what is seen at which question, when an answer stays, hostile words, the end."""

import io
import json

import ipywidgets
import pytest
from evaluating import Held, choice
from ipywidgets.widgets.widget import _instances
from pages import Page, walk
from PIL import Image

from roilab.evaluation import Quiz
from roilab.widgets import QuizView

HOSTILE = "<img src=x onerror=alert(1)><script>alert(1)</script> & &amp; \"' </button><b>"
RIGHT = {("r0", "answer"): "A", ("r0", "rationale"): "D", ("r1", "answer"): "C", ("r1", "rationale"): "B"}


def two():
    return Held([choice("r0", 0, 3, "a.png"), choice("r1", 2, 1, "b.png")])


@pytest.fixture
def quiz():
    return Quiz(two(), questions=4)


@pytest.fixture
def view(quiz):
    made = QuizView(quiz, name="Ann")
    yield made
    made.close()


def find_button(view, text):
    (found,) = [each for each in walk(view) if isinstance(each, ipywidgets.Button) and each.description == text]
    return found


def is_seen(view, widget):
    """Whether neither it nor anything around it is hidden."""
    around = [each for each in walk(view) if widget in walk(each)]
    return bool(around) and not any("roilab-hidden" in each._dom_classes for each in around)


def seen(view):
    """The texts and buttons that a person sees."""
    texts = []
    for each in walk(view):
        if is_seen(view, each) and not (each.layout is not None and each.layout.display == "none"):
            if isinstance(each, ipywidgets.Button):
                texts.append(each.description)
            elif isinstance(each, ipywidgets.HTML):
                texts.append(Page(each.value).text)
    return "\n".join(texts)


def choose(view, letter, then="Next"):
    (made,) = [each for each in view._choices if each.description.startswith(f"({letter})")]
    made.click()
    if then:
        find_button(view, then).click()


def right_letters(quiz):
    return [RIGHT[quiz.records[item.record].id, item.stage] for item in quiz.items]


def test_a_name_comes_first_and_nothing_is_kept_without_one(quiz, tmp_path):
    view = QuizView(quiz, tmp_path / "answers")
    assert view.answers is None and "region1" not in seen(view) and is_seen(view, view._name)
    find_button(view, "Start").click()
    assert "write a name first" in seen(view) and view.answers is None
    view._choose(0)
    view._take()
    assert view.answers is None and list(tmp_path.iterdir()) == []
    view._name.value = " Ann "
    find_button(view, "Start").click()
    assert view.answers.name == "Ann" and not is_seen(view, view._name) and "write a name" not in seen(view)
    assert "Question 1 of 4" in seen(view) and list(tmp_path.iterdir()) == []
    choose(view, "B")
    assert json.loads((tmp_path / "answers" / "Ann.json").read_text())["answers"] == ["B"]


def test_enter_in_the_name_field_starts(quiz):
    view = QuizView(quiz)
    view._name.value = "Ann"
    view._name._handle_custom_msg({"event": "other"}, [])
    assert view.answers is None
    view._name._handle_custom_msg({"event": "submit"}, [])
    assert view.answers.name == "Ann" and "Question 1 of 4" in seen(view)


def test_without_a_folder_no_name_is_needed(quiz):
    view = QuizView(quiz)
    find_button(view, "Start").click()
    choose(view, "A")
    assert view.answers.letters == ("A",) and view.answers.path is None


def test_a_question_as_it_is_seen(view, quiz):
    first = quiz.records[0]
    assert seen(view).split("\n")[:2] == ["Question 1 of 4", "Why is region1 left of region2?"]
    assert [each.description for each in view._choices] == [
        "(A) She runs.", "(B) He sits with region2.", "(C) region1 kicks a ball.", "(D) It is blue."
    ]  # fmt: skip
    assert is_seen(view, view._picture) and "Right answer" not in seen(view)
    picture = Image.open(io.BytesIO(view._picture.value)).convert("RGB")
    assert picture.width / picture.height == pytest.approx(first.width / first.height, rel=0.01)
    scale = picture.width / first.width
    edge = picture.getpixel(
        (round(2 * scale), round(30 * scale))
    )  # on the left side of region 1, whose box begins at x = 2
    assert edge == (0x00, 0x72, 0xB2)
    assert view._picture.tooltip is None, "with one, the page shows an error in the place of the picture"


def test_a_choice_can_be_changed_until_next(view):
    view._next.click()
    assert view.answers.letters == () and "Choose one of the four, then Next." in seen(view)
    choose(view, "B", then=None)
    assert ["roilab-chosen" in each._dom_classes for each in view._choices] == [False, True, False, False]
    assert [each.icon for each in view._choices] == ["", "check", "", ""] and "then Next" not in seen(view)
    choose(view, "D", then=None)
    assert ["roilab-chosen" in each._dom_classes for each in view._choices] == [False, False, False, True]
    assert view.answers.letters == ()
    view._next.click()
    assert view.answers.letters == ("D",)
    assert not any("roilab-chosen" in each._dom_classes for each in view._choices)


def test_a_double_click_answers_one_question(view):
    choose(view, "B")
    view._next.click()
    assert view.answers.letters == ("B",) and "Question 2 of 4" in seen(view)
    assert Page(view._said.value).text == "Choose one of the four, then Next."


@pytest.mark.parametrize("is_right", [True, False])
def test_the_rationale_question_tells_the_right_answer_and_nothing_more(view, quiz, is_right):
    letter = right_letters(quiz)[0]
    choose(view, letter if is_right else "B")
    told = {"A": "She runs.", "C": "region1 kicks a ball."}[letter]
    assert seen(view) == "\n".join(
        ["Question 2 of 4", "Why is region1 left of region2?", f"Right answer: ({letter}) {told}", "Why?",
         "(A) Because of the kite.", "(B) The ball is next to it.", "(C) She points at region2.", "(D) No.", "Next", ""]
    )  # fmt: skip


@pytest.mark.parametrize("is_right", [True, False])
def test_the_end(quiz, is_right):
    view = QuizView(quiz, name="Ann")
    for number, letter in enumerate(right_letters(quiz), 1):
        assert f"Question {number} of 4" in seen(view) and "%" not in seen(view)
        choose(view, letter if is_right else "ABCD"[("ABCD".index(letter) + 1) % 4])
    assert not is_seen(view, view._next) and not is_seen(view, view._picture)
    words = seen(view)
    assert words.startswith("Thank you, Ann: all 4 questions are answered.")
    share = "100.0 %2 of 2100.0 - 100.0" if is_right else "0.0 %0 of 20.0 - 0.0"
    for name in ("Q->A", "QA->R", "Q->AR"):
        assert name in words
    assert words.count(share) == 3


def test_the_three_numbers_of_who_is_partly_right(quiz):
    """Wrong in the second record's answer alone."""
    view = QuizView(quiz, name="Ann")
    letters = right_letters(quiz)
    letters[2] = "B"
    for letter in letters:
        choose(view, letter)
    rows = view._numbers.value.split("<tr>")[2:]
    assert [Page(row).text[:4] for row in rows] == ["Q->A", "QA->", "Q->A"]
    assert ["50.0 %" in rows[0], "100.0 %" in rows[1], "50.0 %" in rows[2]] == [True] * 3
    assert ["1 of 2" in rows[0], "2 of 2" in rows[1], "1 of 2" in rows[2]] == [True] * 3


def test_two_people_and_going_on(quiz, tmp_path):
    for name in ("Ann", "Bob"):
        view = QuizView(quiz, tmp_path, name)
        for letter in right_letters(quiz)[: 3 if name == "Ann" else 4]:
            choose(view, letter)
        view.close()
    ann, bob = QuizView(quiz, tmp_path), QuizView(quiz, tmp_path, "Bob")
    ann._name.value = "Ann"
    find_button(ann, "Start").click()
    assert "Question 4 of 4" in seen(ann) and "Ann: 3 of 4 questions are answered already." in seen(ann)
    assert "Thank you, Bob" in seen(bob)
    choose(ann, right_letters(quiz)[3])
    assert "Thank you, Ann" in seen(ann)
    result = quiz.human_row(tmp_path)
    assert [(s.name, s.value, s.n) for s in result.scores] == [("Q->A", 100, 4), ("QA->R", 100, 4), ("Q->AR", 100, 4)]


def test_hostile_words_stay_words():
    record = choice("r0", 1, 1, question=f"{HOSTILE} <region1>?")
    record.choices["answers"] = [HOSTILE, f"It is {HOSTILE}", "$x^2$ **bold**", ""]
    view = QuizView(Quiz(Held([record]), 2), name="Ann")
    assert Page(view._question.value).text == f"{HOSTILE} region1?"
    assert [each.description for each in view._choices[:2]] == [f"(A) {HOSTILE}", f"(B) It is {HOSTILE}"]
    choose(view, "A")
    assert Page(view._question.value).text == f"{HOSTILE} region1?\nRight answer: (B) It is {HOSTILE}\nWhy?"
    for each in walk(view):
        if isinstance(each, ipywidgets.HTML) and "<style>" not in each.value:
            assert {tag for tag, _ in Page(each.value).tags} <= {"br", "span"}


def test_hostile_names_are_refused_where_they_are_written(quiz, tmp_path):
    view = QuizView(quiz, tmp_path)
    for name in (HOSTILE, "../Ann", "a/b"):
        view._name.value = name
        find_button(view, "Start").click()
        assert view.answers is None and is_seen(view, view._name)
        assert "it cannot stand" in seen(view)
        assert [tag for tag, _ in Page(view._said.value).tags] == ["span"]
        with pytest.raises(ValueError, match="it cannot stand"):
            QuizView(quiz, tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_errors_are_shown_and_the_quiz_goes_on(quiz, tmp_path):
    (tmp_path / "Ann.json").write_text("{")
    view = QuizView(quiz, tmp_path)
    view._name.value = "Ann"
    find_button(view, "Start").click()
    assert "Ann.json cannot be read as JSON" in seen(view) and view.answers is None
    (tmp_path / "Ann.json").unlink()
    find_button(view, "Start").click()
    QuizView(quiz, tmp_path, "Ann").answers.add("C")
    choose(view, "A")
    assert "the quiz is open elsewhere too" in seen(view) and "Question 2 of 4" in seen(view)
    choose(view, "B")
    assert json.loads((tmp_path / "Ann.json").read_text())["answers"] == ["C", "B"] and "elsewhere" not in seen(view)


def test_a_question_whose_picture_cannot_be_read_is_not_asked(quiz, monkeypatch):
    view = QuizView(quiz, name="Ann")

    def broken(index):
        raise ValueError("b.png is missing")

    choose(view, "A")
    monkeypatch.setattr(quiz, "picture", broken)
    choose(view, "A")
    assert "b.png is missing" in seen(view) and not is_seen(view, view._next)
    assert view.answers.letters == ("A", "A")


def test_the_static_twin_is_what_is_asked_now(view, quiz):
    def numbers():
        words = " ".join(text.get_text() for axes in view.figure().axes for text in axes.texts)
        return [n for n in range(1, 5) if f"Question {n} of 4" in words]

    assert numbers() == [1, 2]
    choose(view, "A")
    assert numbers() == [2, 3]
    assert "image/png" in view._repr_mimebundle_()


def test_closing_leaves_nothing_in_the_kernel(quiz):
    before = set(_instances)
    view = QuizView(quiz, name="Ann")
    choose(view, "A")
    view.close()
    assert view.comm is None and all(each.comm is None for each in walk(view))
    assert set(_instances) <= before
    assert view.answers.letters == ("A",)
