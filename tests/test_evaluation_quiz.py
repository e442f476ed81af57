"""The quiz: which questions, what a person sees, how answers are kept and refused, and the human row by hand."""

import json

import numpy as np
import pytest
from evaluating import Held, choice, dialogue

from roilab.evaluation import Quiz, Result, Score, evaluate_choices, multiple_choice
from roilab.evaluation.multiple_choice import score

ANSWERS, RATIONALES = [0, 1, 2, 3], [3, 3, 1, 0]
RIGHT = {(f"r{i}", stage): labels[i] for stage, labels in (("answer", ANSWERS), ("rationale", RATIONALES)) for i in range(4)}  # fmt: skip


def four():
    return Held(choice(f"r{i}", a, r, f"{'abba'[i]}.png") for i, (a, r) in enumerate(zip(ANSWERS, RATIONALES)))


@pytest.fixture
def quiz():
    return Quiz(four(), questions=8)


def asked(quiz):
    """(id, stage) of each question."""
    return [(quiz.records[item.record].id, item.stage) for item in quiz.items]


def answered(quiz, name="Ann", folder=None, wrong=(), count=8):
    """A person who is right but about `wrong`, and answers `count` questions."""
    made = quiz.answers(name, folder)
    for about in asked(quiz)[:count]:
        made.add("ABCD"[(RIGHT[about] + (about in wrong)) % 4])
    return made


def values(result):
    return {s.name: (s.value, s.n) for s in result.scores}


def file_of(quiz, tmp_path, changes):
    """A file of answers, written by hand."""
    content = {"roilab quiz": 1, "quiz": quiz.fingerprint, "answers": ["A", "B"]} | changes
    path = tmp_path / "Ann.json"
    path.write_text(json.dumps(content))
    return path


# Which questions


def test_questions_come_in_pairs_of_labelled_records():
    labelled = [choice(f"r{i}", i % 4, 1, f"{i}.png") for i in range(7)]
    others = [choice("no label", None, None), choice("no rationales", 1, 1, rationales=False),
              choice("no rationale label", 1, None), dialogue("no choices", ["What?", "It."])]  # fmt: skip
    records = Held(others[:2] + labelled + others[2:])
    quiz = Quiz(records, questions=14)
    assert len(quiz) == 14 and len(quiz.records) == 7
    assert sorted(record.id for record in quiz.records) == [f"r{i}" for i in range(7)]
    pairs = asked(quiz)
    assert [stage for _, stage in pairs] == ["answer", "rationale"] * 7
    assert [id for id, _ in pairs[::2]] == [id for id, _ in pairs[1::2]]
    quiz.picture(2)
    assert records.read == [quiz.records[1].image]
    message = "16 questions need 8 records with labelled answers and rationales; there are 7 among 11 records"
    with pytest.raises(ValueError, match=message):
        Quiz(records, questions=16)


def test_the_seed_decides_what_is_drawn_and_in_which_order():
    records = Held(choice(f"r{i}", image=f"{i}.png") for i in range(50))
    drawn = [tuple(asked(Quiz(records, 20, seed))) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3
    assert all(len(set(each)) == 20 for each in drawn)
    ids = [int(id[1:]) for id, _ in drawn[0][::2]]
    assert ids != sorted(ids)
    prints = [Quiz(records, 20, seed).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    records[ids[0]].choices["answers"][3] = "It is red."
    assert Quiz(records, 20).fingerprint != prints[0]


@pytest.mark.parametrize("questions", [0, -2, 7])
def test_an_odd_number_of_questions_is_refused(questions):
    with pytest.raises(ValueError, match=f"questions is {questions}, expected an even number"):
        Quiz(four(), questions)


def test_records_that_cannot_be_asked_about_are_refused():
    for key, label in (("rationale", 4), ("answer", -1), ("answer", "C")):
        broken = choice("x")
        broken.choices[f"{key}_label"] = label
        with pytest.raises(ValueError, match=f"record x: its {key} label is {label!r}, expected 0 to 3"):
            Quiz(Held([broken]), 2)
    with pytest.raises(ValueError, match="mentions <region3>, but has 2 boxes"):
        Quiz(Held([choice("x", question="Why <region3>?")]), 2)
    three = choice("x")
    del three.choices["answers"][3]
    with pytest.raises(ValueError, match="record x: 3 choices, expected 4"):
        Quiz(Held([three]), 2)
    outside = choice("x")
    outside.boxes[1] = [70.0, 5.0, 90.0, 44.0]
    with pytest.raises(ValueError, match="record x: region 2: .* lies outside"):
        Quiz(Held([outside]), 2)
    with pytest.raises(ValueError, match="2 records, 1 ids"):
        Quiz(Held([choice("x"), choice("x")]), 4)


# What is seen


def test_a_person_sees_the_words_the_choices_and_the_boxes():
    record = choice("x", answer=2, rationale=1, question="Why does <region1> say \\<region2>?")
    record.boxes.append([0.0, 0.0, 5.0, 5.0])  # nobody mentions it
    record.choices["answers"][1] = "He sits."
    first, second = Quiz(Held([record]), 2).items
    assert (first.record, first.stage, first.right) == (0, "answer", 2)
    assert first.text == "Why does region1 say <region2>?"
    assert first.choices == ("She runs.", "He sits.", "region1 kicks a ball.", "It is blue.")
    assert first.lettered[2] == "(C) region1 kicks a ball."
    assert first.boxes == ([2, 3, 30, 40], None, None)
    assert (second.record, second.stage, second.right) == (0, "rationale", 1)
    assert second.text == "Why does region1 say <region2>?\nRight answer: (C) region1 kicks a ball.\nWhy?"
    assert second.choices[2] == "She points at region2."
    assert second.boxes == ([2, 3, 30, 40], [20, 5, 60, 44], None)


def words(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_the_sheet_shows_pictures_boxes_and_choices(quiz, tmp_path):
    figure = quiz.sheet(2, 3, path=tmp_path / "sheet.png")
    right = "ABCD"[RIGHT[asked(quiz)[2]]]  # told once more before the rationales of question 4
    said = words(figure)
    assert [said.count(f"({letter})") for letter in "ABCD"] == [3 + (right == letter) for letter in "ABCD"]
    assert [f"Question {n} of 8" in said for n in range(1, 9)] == [n in (3, 4, 5) for n in range(1, 9)]
    assert "Because of the kite." in said and "She runs." in said
    pictures = [axes for axes in figure.axes if axes.get_label() == "picture"]
    assert len(pictures) == 3
    for axes in pictures:
        assert {patch.get_gid() for patch in axes.patches} >= {"box 1", "box 2"}
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    low = min(text.get_window_extent().y0 for text in figure.axes[0].texts)
    assert low > 0, "the last choice is on the sheet"
    assert len(quiz.sheet(6, 10).axes) == 1 + 2, "what is left"
    for first, count in ((8, 1), (-1, 1), (0, 0)):
        with pytest.raises(ValueError, match=f"{count} questions from {first} on, expected at least 1 of 0 to 7"):
            quiz.sheet(first, count)


def test_the_sheet_takes_any_words():
    record = choice("x", question="$\\frac{1$ <b>_x_</b> <region1>?")
    record.choices["answers"] = ["$x$ $", "{\\bf", "", "long " * 60]
    figure = Quiz(Held([record]), 2).sheet(0, 2)
    figure.draw_without_rendering()
    assert "<b>_x_</b>" in words(figure) and "$x$" in words(figure)


# People


def test_who_is_always_right_and_who_is_not(quiz):
    right, wrong = answered(quiz), answered(quiz, wrong=set(RIGHT))
    result = quiz.human_row([right])
    assert isinstance(result, Result)
    assert result.scores == [Score(name, "people", "all", 100, 100, 100, 4) for name in ("Q->A", "QA->R", "Q->AR")]
    assert result.notes == ["1 person: 8 of 8 answers."]
    assert values(quiz.human_row([wrong])) == {"Q->A": (0, 4), "QA->R": (0, 4), "Q->AR": (0, 4)}
    both = quiz.human_row([right, wrong])
    assert values(both) == {"Q->A": (50, 8), "QA->R": (50, 8), "Q->AR": (50, 8)}
    assert [(s.low, s.high) for s in both.scores] == [(50, 50)] * 3, "on every record one of them is right"
    assert both.notes == ["2 people: 16 of 16 answers."]


def test_two_people_by_hand(quiz):
    """r0: Ann's answer is wrong. r1: Bob's rationale is. r2: both of Bob's."""
    ann = answered(quiz, "Ann", wrong={("r0", "answer")})
    bob = answered(quiz, "Bob", wrong={("r1", "rationale"), ("r2", "answer"), ("r2", "rationale")})
    result = quiz.human_row([ann, bob])
    assert values(result) == {"Q->A": (75, 8), "QA->R": (75, 8), "Q->AR": (62.5, 8)}
    table = quiz.per_person([ann, bob])
    assert table.values.tolist() == [["Ann", 8, 75, 100, 75], ["Bob", 8, 75, 50, 50]]
    assert list(table.columns) == ["name", "answers", "Q->A", "QA->R", "Q->AR"]
    of_bob = {(p["id"], p["stage"]): p for p in result.predictions if p["person"] == "Bob"}
    assert of_bob["r2", "answer"] == {
        "id": "r2", "stage": "answer", "by": "people", "person": "Bob", "type": "why", "chosen": 3, "right": 2
    }  # fmt: skip
    assert {p["chosen"] == p["right"] for about, p in of_bob.items() if about[0] in ("r0", "r3")} == {True}


def test_intervals_are_of_records_and_not_of_answers(quiz):
    """Ten people who answer alike tell no more about other records than one does."""
    wrong = {("r0", "answer"), ("r1", "rationale")}
    one = quiz.human_row([answered(quiz, wrong=wrong)])
    ten = quiz.human_row([answered(quiz, f"{i}", wrong=wrong) for i in range(10)])
    assert [s.n for s in ten.scores] == [40] * 3
    assert [(s.value, s.low, s.high) for s in ten.scores] == [(s.value, s.low, s.high) for s in one.scores]
    assert one["Q->A"].low < 50 and one["Q->A"].high == 100


def test_one_person_is_scored_as_a_model_is(quiz):
    result = quiz.human_row([answered(quiz, wrong={("r0", "answer"), ("r1", "rationale"), ("r1", "answer")})])
    assert result.scores == score(result.predictions, "people")


def test_who_stops_early_counts_with_what_there_is(quiz):
    """Three answers: two records, of which one has both stages."""
    early = answered(quiz, wrong={asked(quiz)[2]}, count=3)
    result = quiz.human_row([early])
    assert values(result) == {"Q->A": (50, 2), "QA->R": (100, 1), "Q->AR": (100, 1)}
    assert result.notes == ["1 person: 3 of 8 answers."]
    both = quiz.human_row([early, answered(quiz, "Bob", wrong={asked(quiz)[0]})])
    assert values(both) == {"Q->A": (pytest.approx(100 * 4 / 6), 6), "QA->R": (100, 5), "Q->AR": (80, 5)}
    first = quiz.human_row([answered(quiz, count=1)])
    assert values(first) == {"Q->A": (100, 1)}
    (row,) = quiz.per_person([answered(quiz, count=1)]).values.tolist()
    assert row[:3] == ["Ann", 1, 100] and np.isnan(row[3]) and np.isnan(row[4])


def test_nobody_has_answered(quiz, tmp_path):
    for people, note in (([], "0 people: 0 of 0 answers."), (tmp_path, f"0 people in {tmp_path}: 0 of 0 answers.")):
        result = quiz.human_row(people)
        assert result.scores == [] and result.notes == [note] and note in result.table()
    assert len(quiz.per_person([])) == 0


# Files


def test_answers_are_kept_and_go_on(quiz, tmp_path):
    folder = tmp_path / "class" / "answers"
    ann = quiz.answers("Ann", folder)
    assert not folder.exists() and ann.next == 0
    letters = ["ABCD"[RIGHT[about]] for about in asked(quiz)]
    for done, letter in enumerate(letters[:3], 1):
        ann.add(letter)
        kept = json.loads((folder / "Ann.json").read_text())
        assert kept == {"roilab quiz": 1, "quiz": quiz.fingerprint, "answers": letters[:done]}
    again = Quiz(four(), questions=8).answers(" Ann ", str(folder))
    assert again.letters == tuple(letters[:3]) and again.next == 3
    for letter in letters[3:]:
        again.add(letter)
    assert again.next is None
    with pytest.raises(ValueError, match="8 of 8 questions are answered"):
        again.add("A")
    assert [path.name for path in folder.iterdir()] == ["Ann.json"]
    answered(quiz, "Bob", folder, wrong={("r3", "rationale")}, count=8)
    result = quiz.human_row(folder)
    assert values(result) == {"Q->A": (100, 8), "QA->R": (87.5, 8), "Q->AR": (87.5, 8)}
    assert result.notes == [f"2 people in {folder}: 16 of 16 answers."]
    assert quiz.per_person(folder)["name"].tolist() == ["Ann", "Bob"]


@pytest.mark.parametrize("letter", ["E", "", "AB", "a", None, 0, ["A"]])
def test_only_letters_are_answers(quiz, tmp_path, letter):
    ann = quiz.answers("Ann", tmp_path)
    with pytest.raises(ValueError, match="expected one of A, B, C, D"):
        ann.add(letter)
    assert ann.letters == () and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"quiz": "0" * 16}, "Ann.json answers another quiz .'0000000000000000' there"),
        ({"quiz": None}, "Ann.json answers another quiz"),
        ({"roilab quiz": 2}, "Ann.json is no file of answers"),
        ({"answers": ["A", "E"]}, "Ann.json, answer 2 is 'E', expected one of A, B, C, D"),
        ({"answers": [2]}, "Ann.json, answer 1 is 2"),
        ({"answers": [["A"]]}, "Ann.json, answer 1 is"),
        ({"answers": ["AB"]}, "Ann.json, answer 1 is 'AB'"),
        ({"answers": ["A"] * 9}, "Ann.json has 9 answers, the quiz 8 questions"),
        ({"answers": "ABC"}, "Ann.json: 'answers' is 'ABC', expected a list"),
    ],
)
def test_a_file_that_is_not_of_this_quiz_is_refused(quiz, tmp_path, changes, message):
    path = file_of(quiz, tmp_path, {})
    assert quiz.answers("Ann", tmp_path).letters == ("A", "B")
    file_of(quiz, tmp_path, changes)
    for read in (lambda: quiz.answers("Ann", tmp_path), lambda: quiz.human_row(tmp_path)):
        with pytest.raises(ValueError, match=message) as caught:
            read()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b'{"roilab quiz": 1, ', b"\xff\xfe", b"[" * 100_000, b"[1]", b"null"])
def test_a_broken_file_is_refused(quiz, tmp_path, content):
    (tmp_path / "Ann.json").write_bytes(content)
    with pytest.raises(ValueError, match="Ann.json (cannot be read as JSON|is no file of answers)"):
        quiz.answers("Ann", tmp_path)


def test_answers_to_another_quiz_are_not_counted(quiz):
    other = Quiz(four(), questions=8, seed=1)
    assert other.fingerprint != quiz.fingerprint
    with pytest.raises(ValueError, match=f"'Ann' to quiz {other.fingerprint}, expected {quiz.fingerprint}"):
        quiz.human_row([answered(other)])


def test_an_answer_stays_although_the_quiz_is_open_twice(quiz, tmp_path):
    one, other = quiz.answers("Ann", tmp_path), quiz.answers("Ann", tmp_path)
    one.add("A")
    with pytest.raises(ValueError, match="Ann.json has 1 answers now, 0 expected: the quiz is open elsewhere"):
        other.add("B")
    assert other.letters == ("A",)
    other.add("C")
    assert quiz.answers("Ann", tmp_path).letters == ("A", "C")


def test_what_cannot_be_written_is_not_answered(quiz, tmp_path):
    (tmp_path / "file").write_text("")
    ann = quiz.answers("Ann", tmp_path / "file")
    with pytest.raises(ValueError, match="Ann.json cannot be written"):
        ann.add("A")
    assert ann.letters == ()


def test_files_of_the_system_are_nobodys(quiz, tmp_path):
    answered(quiz, "Ann", tmp_path)
    (tmp_path / "._Ann.json").write_bytes(b"\x00\x05")
    (tmp_path / ".Ann.json.7.part").write_bytes(b"{")
    assert [person.name for person in quiz.people(tmp_path)] == ["Ann"]


@pytest.mark.parametrize(
    "name", ["Ann", "Jörg Müller", "李雷", "O'Brien", "A.-M. van der Berg", "7", "Ann_2", "आरती", "Console"]
)
def test_names_of_people(quiz, tmp_path, name):
    quiz.answers(f"  {name}\n", tmp_path).add("B")
    (path,) = tmp_path.iterdir()
    assert quiz.answers(name, tmp_path).letters == ("B",)
    assert [person.name for person in quiz.people(tmp_path)] == [path.stem] == [name]


@pytest.mark.parametrize(
    "name",
    ["", " \t", None, 3, "../Ann", "..", ".Ann", "a/b", "/tmp/Ann", "a\\b", "C:Ann", "a\0b", "a\x1bb", "-rf", "~", "a*", "<b>Ann</b>",
     'a"b', "a|b", "a\u202eb", "x" * 121, "ü" * 61, "CON", "nul.txt", "com1", "\udc80"],
)  # fmt: skip
def test_names_that_are_refused(quiz, tmp_path, name):
    folder = tmp_path / "in" / "here"
    for where in (folder, None):
        with pytest.raises(ValueError, match="name"):
            quiz.answers(name, where)
    assert list(tmp_path.rglob("*")) == []


def test_one_name_in_two_ways_of_writing_is_one(quiz, tmp_path):
    quiz.answers("Jo\u0308rg   M", tmp_path).add("D")
    assert quiz.answers("J\u00f6rg M", tmp_path).letters == ("D",)


# Beside a model


def test_the_model_answers_the_same_questions(model, quiz, monkeypatch):
    """The stand-in always says (A): one of four answers and one of four rationales is right, never on one record."""
    monkeypatch.setitem(multiple_choice.PREDICT, "letter", lambda reader, rows, queries: [{"chosen": 0}] * len(rows))
    result = evaluate_choices(model, quiz.records)
    assert {(p["id"], p["stage"]) for p in result.predictions} == set(asked(quiz)) and len(result.predictions) == 8
    assert {(p["id"], p["stage"]): p["right"] for p in result.predictions} == RIGHT
    table = quiz.compare([answered(quiz), answered(quiz, "Bob", wrong=set(RIGHT))], {"tiny": result})
    assert list(table.index) == ["people (2)", "tiny, by letter"] and list(table.columns) == ["Q->A", "QA->R", "Q->AR"]
    assert table.loc["people (2)"].tolist() == ["50.0 (50.0 - 50.0)"] * 3
    assert [cell.split()[0] for cell in table.loc["tiny, by letter"]] == ["25.0", "25.0", "0.0"]
    assert quiz.compare([answered(quiz, count=1)], {}).values.tolist() == [["100.0 (100.0 - 100.0)", "", ""]]


def test_a_model_on_other_records_is_not_compared(model, quiz, monkeypatch):
    monkeypatch.setitem(multiple_choice.PREDICT, "letter", lambda reader, rows, queries: [{"chosen": 0}] * len(rows))
    fewer = evaluate_choices(model, quiz.records, limit=3)
    more = evaluate_choices(model, Held([*four(), choice("r9")]))
    for result, message in ((fewer, "3 records, 3 of them among the 4"), (more, "5 records, 4 of them among the 4")):
        with pytest.raises(ValueError, match=f"tiny: a result on {message}"):
            quiz.compare([], {"tiny": result})


# Files in VCR's form


def test_forty_questions_about_scenes_in_vcrs_form(tmp_path):
    import roilab.data
    from roilab.scenes import export

    export(tmp_path / "vcr", 60, names=["vcr"])
    records = roilab.data.read("vcr_full", tmp_path / "vcr", cache=tmp_path / "cache")
    lines = [json.loads(line) for line in (tmp_path / "vcr" / "train.jsonl").read_text().splitlines()]
    labels = {line["annot_id"]: (line["answer_label"], line["rationale_label"]) for line in lines}
    quiz = Quiz(records)
    assert len(quiz) == 40 and len({id for id, _ in asked(quiz)}) == 20
    person = quiz.answers("Ann", tmp_path / "answers")
    for (id, stage), item in zip(asked(quiz), quiz.items):
        assert item.right == labels[id][stage == "rationale"]
        assert "region1" in item.text and "<" not in item.text + "".join(item.choices)
        person.add("ABCD"[labels[id][stage == "rationale"]])
    record = quiz.records[quiz.items[5].record]
    assert quiz.picture(5).size == (record.width, record.height) and len(quiz.items[5].boxes) == len(record.boxes)
    result = quiz.human_row(tmp_path / "answers")
    assert values(result) == {"Q->A": (100, 20), "QA->R": (100, 20), "Q->AR": (100, 20)} and result.data == "vcr_full"
