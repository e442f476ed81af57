"""The command line, mostly in process with a stand-in for the model: what is printed, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import small_model
from PIL import Image

import roilab
from roilab.cli import main
from roilab.demo import sample_rounds
from roilab.dialogues import EscapedMarker

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "roilab" / "assets" / "tiny" / "config.json"
needs_tiny = pytest.mark.skipif(not SHIPPED.exists(), reason="roilab/assets/tiny is not in this checkout")


class KnowingChat:
    """Answers the demo's questions rightly, others with the number of regions; remembers what it was asked."""

    note = None
    asked = []

    def __init__(self, model, image):
        self.model, self.image, self.boxes = model, image, []
        KnowingChat.asked = []

    def ask(self, question, regions=None):
        self.boxes += regions or []
        self.asked.append((question, regions))
        if not question:
            raise ValueError("the question is empty")
        known = {r.question: r.answers[0] for r in sample_rounds(self.model["seed"])[1]}
        text = known.get(question, f"{len(self.boxes)} regions é")
        return SimpleNamespace(text=text, tokens=[text], logprobs=[-0.5], question=question, note=self.note)


@pytest.fixture
def fake(monkeypatch):
    """The model's classes replaced; the dict returned is the model."""
    model = {"seed": 7}

    def load(name):
        if name == "nowhere":
            raise OSError("nowhere is neither a folder\nnor a model on the hub")
        return model

    # Into the dict, since asking for the old value would import the real ones.
    monkeypatch.setitem(vars(roilab), "load", load)
    monkeypatch.setitem(vars(roilab), "Chat", KnowingChat)
    monkeypatch.setattr(KnowingChat, "note", None)
    return model


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (60, 40), "navy").save(path)
    return str(path)


def fails(capsys, *argv, words=()):
    try:
        status = main(list(argv))
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("roilab")
    for word in words:
        assert word in err, err


def test_demo(fake, tmp_path, capsys):
    path = tmp_path / "picture.png"
    assert main(["demo", "--out", str(path)]) == 0
    out = capsys.readouterr().out
    scene, rounds = sample_rounds(7)
    for question in rounds:
        assert f"question: {question.question}" in out
        assert f"answer:   {question.answers[0]}\n  truth:    {question.answers[0]}  (right)" in out
    assert [word in out for word in ("imports", "loading", "first answer", "later answers")] == [True] * 4
    with Image.open(path) as image:
        assert image.width > 1000
    assert [len(regions or []) for _, regions in KnowingChat.asked] == [1, 1, 0]
    assert "note" not in out


def test_demo_says_what_is_wrong_and_the_note(fake, tmp_path, capsys, monkeypatch):
    fake["seed"] = 8  # it knows the answers about another scene
    monkeypatch.setattr(KnowingChat, "note", "this does not look like a scene")
    assert main(["demo", "--out", str(tmp_path / "picture.png")]) == 0
    out = capsys.readouterr().out
    assert "the answer is wrong" in out and sample_rounds(7)[1][0].answers[0] in out
    assert out.count("note:     this does not look like a scene") == 3


def test_demo_rounds_are_sound():
    for index in range(40):
        scene, rounds = sample_rounds(index)
        assert rounds == sample_rounds(index)[1] and len(rounds) == 3
        assert [len(r.boxes) for r in rounds] == [1, 1, 0]
        boxes = [tuple(o.box) for o in scene.objects]
        assert rounds[0].boxes[0] in boxes and rounds[1].boxes[0] in boxes and rounds[0].boxes != rounds[1].boxes
        first, second, both = (r.question for r in rounds)
        assert "<region1>" in first and "<region2>" not in first
        assert "<region2>" in second and "<region1>" not in second
        assert "<region1>" in both and "<region2>" in both
        for r in rounds:
            assert r.is_right(r.answers[0]) and r.is_right(r.answers[-1].replace("<", "").replace(">", ""))
            assert not r.is_right("something else")


def test_demo_truth_is_the_scene_s():
    # Which of the two is further left or higher, worked out here from the boxes, must be the answer that is called true.
    checked = 0
    for index in range(60):
        _, rounds = sample_rounds(index)
        question, answer = rounds[2].question, rounds[2].answers[0]
        side = 0 if "further left" in question else 1 if "higher" in question else None
        if side is not None:
            one, two = rounds[0].boxes[0], rounds[1].boxes[0]
            first = one[side] + one[side + 2] < two[side] + two[side + 2]
            assert answer == ("<region1>" if first else "<region2>")
            checked += 1
    assert checked > 3


def test_ask(fake, picture, capsys):
    assert (
        main(["ask", picture, "Is <region1> left of <region2>?", "--region", "1,2,30,20", "--region", "5.5,2,40,30"])
        == 0
    )
    assert capsys.readouterr().out == "2 regions é\n"
    assert KnowingChat.asked == [("Is <region1> left of <region2>?", [[1, 2, 30, 20], [5.5, 2, 40, 30]])]
    assert main(["ask", picture, "What is this?"]) == 0
    assert KnowingChat.asked == [("What is this?", None)]


def test_ask_json_and_note(fake, picture, capsys, monkeypatch):
    monkeypatch.setattr(KnowingChat, "note", "no scene")
    assert main(["ask", picture, "What is <region1>?", "--region", "1,2,30,20"]) == 0
    assert capsys.readouterr().out == "1 regions é\nnote: no scene\n"
    assert main(["ask", picture, "What is <region1>?", "--region", "1,2,30,20", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["answer"] == "1 regions é" and result["regions"] == [[1, 2, 30, 20]] and result["logprobs"] == [-0.5]
    assert result["note"] == "no scene" and result["model"] == "tiny" and result["question"] == "What is <region1>?"


def test_mistakes_are_one_line_and_status_2(fake, picture, tmp_path, capsys):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    fails(capsys, "ask", str(tmp_path / "nowhere.png"), "What?", words=["nowhere.png", "no file"])
    fails(capsys, "ask", str(text), "What?", words=["text.png", "not a picture"])
    fails(capsys, "ask", "https://example.org/a.png", "What?", words=["URL"])
    fails(capsys, "ask", picture, "", words=["empty"])
    fails(capsys, "ask", picture, "What?", "--region", "1,2,3", words=["--region 1", "'1,2,3'", "x1,y1,x2,y2"])
    fails(
        capsys, "ask", picture, "What?", "--region", "1,2,3,4", "--region", "a,b,c,d", words=["--region 2", "a,b,c,d"]
    )
    fails(capsys, "ask", picture, "What?", "--model", "nowhere", words=["nowhere is neither a folder nor a model"])
    fails(capsys, "ask", picture, words=["QUESTION"])
    fails(capsys, "demo", "--seed", "x", words=["--seed", "'x'"])
    fails(capsys, "demo", "--out", str(tmp_path / "no" / "picture.png"), words=["picture.png", "no folder"])
    fails(capsys, "demo", "--model", "photo", "--seed", "7", words=["--seed", "--model photo"])
    fails(capsys, "evaluate", "tiny", "--scenes", "0", words=["--scenes 0"])
    fails(capsys, "evaluate", "tiny", "--json", str(tmp_path / "no" / "x.json"), words=["x.json", "no folder"])
    fails(capsys, "bench", "--json", str(tmp_path / "no" / "x.json"), words=["x.json", "no folder"])
    fails(capsys, "fly", words=["fly"])
    fails(capsys, words=["COMMAND"])


def test_interrupt_is_quiet(fake, picture, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(KnowingChat, "ask", interrupted)
    assert main(["ask", picture, "What?"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_not_hidden(fake, picture, monkeypatch):
    def broken(*_, **__):
        raise TypeError("a bug of ours")

    monkeypatch.setattr(KnowingChat, "ask", broken)
    with pytest.raises(TypeError):
        main(["ask", picture, "What?"])


def test_version_and_help(capsys):
    for argv, words in (
        (["--version"], [roilab.__version__]),
        (["--help"], ["demo", "ask", "lab", "train", "evaluate", "study", "bench"]),
    ):
        with pytest.raises(SystemExit) as exit:
            main(argv)
        assert exit.value.code == 0
        out = capsys.readouterr().out
        assert all(word in out for word in words)


def test_evaluate_hands_over(fake, tmp_path, capsys, monkeypatch):
    results = {"families": {"kind": {"accuracy": 0.5, "n": 4}}, "vcr": {"q_a": 0.25}}
    calls = []

    def evaluate_scenes(model, scenes, seed, arm):
        calls.append((model, scenes, seed, arm))
        return results

    stand_in = SimpleNamespace(
        evaluate_scenes=evaluate_scenes,
        probe_boxes=lambda *given: {"kind": given},
        table=lambda r: f"table of {list(r)}",
    )
    monkeypatch.setitem(sys.modules, "roilab.evaluation", stand_in)
    path = tmp_path / "results.json"
    assert main(["evaluate", "tiny", "--scenes", "12", "--seed", "3", "--arm", "image_only", "--json", str(path)]) == 0
    assert calls == [(fake, 12, 3, "image_only")]
    assert json.loads(path.read_text()) == results
    assert "table of ['families', 'vcr']" in capsys.readouterr().out

    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- evaluate tiny -->\nold\n<!-- /evaluate tiny -->\nafter\n")
    assert main(["evaluate", "tiny", "--readme", str(readme)]) == 0
    assert (
        readme.read_text()
        == "before\n<!-- evaluate tiny -->\ntable of ['families', 'vcr']\n<!-- /evaluate tiny -->\nafter\n"
    )
    capsys.readouterr()
    assert main(["evaluate", "tiny", "--scenes", "12", "--seed", "3", "--probe"]) == 0
    assert results["probe"] == {"kind": (fake, 12, 3)}
    capsys.readouterr()
    readme.write_text("no marks here")
    fails(capsys, "evaluate", "tiny", "--readme", str(readme), words=["README.md", "<!-- evaluate tiny -->"])
    assert readme.read_text() == "no marks here"


def test_study_hands_over(tmp_path, capsys, monkeypatch):
    stand_in = SimpleNamespace(measure=lambda *given: {"given": list(map(str, given))}, table=lambda r: f"table of {r}")
    monkeypatch.setitem(sys.modules, "roilab.interpret.measuring", stand_in)
    path, readme = tmp_path / "study.json", tmp_path / "README.md"
    readme.write_text("<!-- study -->\nold\n<!-- /study -->\n")
    given = [
        "--scenes",
        "12",
        "--seed",
        "5",
        "--out",
        str(tmp_path / "out"),
        "--json",
        str(path),
        "--readme",
        str(readme),
    ]
    assert main(["study", *given]) == 0
    results = {"given": ["12", "5", str(tmp_path / "out")]}
    assert json.loads(path.read_text()) == results
    assert f"table of {results}" in capsys.readouterr().out and f"table of {results}" in readme.read_text()
    fails(capsys, "study", "--scenes", "7", words=["--scenes 7", "at least 8"])
    readme.write_text("no marks")
    fails(capsys, "study", "--readme", str(readme), words=["<!-- study -->"])


@pytest.fixture
def evaluating(fake, monkeypatch):
    """Stand-ins for the data sets and for the evaluation; the list returned is what they were called with."""
    calls = []
    result = SimpleNamespace(to_dict=lambda: {"scores": [1]}, table=lambda published: f"table, published: {published}")

    def read(name, directory, split):
        calls.append((name, directory, split))
        return ["records"]

    def evaluate_records(model, records, data, split, **options):
        calls.append((model, records, data, split, options))
        return result

    stand_in = SimpleNamespace(
        evaluate_records=evaluate_records, TASKS={"coco": None, "vcr_full": None}, LongPrompt=UserWarning
    )
    monkeypatch.setitem(sys.modules, "roilab.evaluation", stand_in)
    monkeypatch.setattr(roilab.data, "read", read)
    return calls


def test_evaluate_on_a_data_set(fake, evaluating, tmp_path, capsys):
    assert main(["evaluate", "tiny", "--on", "coco", "--data", "there"]) == 0
    assert evaluating == [("coco", "there", "val"), (fake, ["records"], "coco", "val", {})]
    assert capsys.readouterr().out == "table, published: False\n"
    readme, path, answers = tmp_path / "README.md", tmp_path / "r.json", str(tmp_path / "p.jsonl")
    readme.write_text("<!-- evaluate tiny on vcr_full -->\nold\n<!-- /evaluate tiny on vcr_full -->\n")
    options = [
        "--split",
        "test",
        "--scoring",
        "letter",
        "generated",
        "--arm",
        "text_only",
        "--limit",
        "9",
        "--batch",
        "4",
    ]
    options += ["--predictions", answers, "--json", str(path), "--readme", str(readme), "--published"]
    assert main(["evaluate", "tiny", "--on", "vcr_full", "--data", "there", *options]) == 0
    given = {"scoring": ["letter", "generated"], "arm": "text_only", "limit": 9, "batch": 4, "predictions": answers}
    assert evaluating[2:] == [("vcr_full", "there", "test"), (fake, ["records"], "vcr_full", "test", given)]
    assert capsys.readouterr().out == "table, published: True\n" and json.loads(path.read_text()) == {"scores": [1]}
    assert "-->\ntable, published: True\n<!--" in readme.read_text()


def test_evaluate_says_which_options_do_not_fit(fake, evaluating, tmp_path, capsys):
    for argv, words in (
        (["--on", "coco"], "--on coco needs --data DIR"),
        (["--on", "llava", "--data", "d"], "--on llava: no such evaluation; there are coco, vcr_full"),
        (["--on", "coco", "--data", "d", "--scenes", "4"], "--scenes does not go with --on"),
        (["--on", "coco", "--data", "d", "--seed", "0"], "--seed does not go with --on"),
        (["--limit", "3"], "--limit needs --on NAME"),
        (["--published"], "--published needs --on NAME"),
        (["--on", "coco", "--data", "d", "--predictions", str(tmp_path / "no" / "p")], "no folder"),
        (["--on", "coco", "--data", "d", "--readme", str(tmp_path / "no.md")], "no.md"),
    ):
        fails(capsys, "evaluate", "tiny", *argv, words=[words])
    assert evaluating == []


def test_evaluate_on_records_from_end_to_end(tmp_path, capsys, monkeypatch):
    """A small model on two four-choice records, stopped and continued; one line where the file is another evaluation's."""
    from evaluating import Held, choice

    small_model().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(roilab.data, "read", lambda name, directory, split: Held([choice("r0"), choice("r1", 0, 0)]))
    argv = [
        "evaluate",
        str(tmp_path / "model"),
        "--on",
        "vcr_full",
        "--data",
        "d",
        "--predictions",
        str(tmp_path / "p.jsonl"),
    ]
    assert main([*argv, "--published"]) == 0
    table = capsys.readouterr().out
    assert "| Q->AR | letter | all |" in table and "GPT4RoI-7B, published (arXiv 2307.03601)" in table
    lines = (tmp_path / "p.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "p.jsonl").write_text("".join(lines[:3]) + lines[3][:9])
    assert main([*argv, "--published"]) == 0
    assert (
        capsys.readouterr().out == table
        and (tmp_path / "p.jsonl").read_text().splitlines(keepends=True)[:3] == lines[:3]
    )
    small_model(seed=1).save_pretrained(tmp_path / "model")
    assert main(argv) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "p.jsonl is of another evaluation (model: " in error


def test_bench_and_train_hand_over(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(
        sys.modules,
        "roilab.bench",
        SimpleNamespace(run=lambda *given, plot, device: calls.append((*given, device)), table=str),
    )
    monkeypatch.setitem(sys.modules, "roilab.tiny.train", SimpleNamespace(main=lambda argv: calls.append(argv) or 0))
    path = str(tmp_path / "bench.json")
    assert main(["bench", "--json", path]) == 0
    assert main(["bench", "moved_box", "drag", "--device", "cpu"]) == 0
    assert main(["train", "tiny", "--out", "somewhere", "--help"]) == 0
    assert calls == [(path, None, None), (None, ["moved_box", "drag"], "cpu"), ["tiny", "--out", "somewhere", "--help"]]


def test_lab_opens_the_quickstart(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(subprocess, "call", lambda command: calls.append(command) or 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert main(["lab", "--no-browser", "--port", "8899"]) == 0
    (command,) = calls
    assert command[:3] == [sys.executable, "-m", "jupyterlab"] and command[3] == str(ROOT / "notebooks")
    assert "--LabApp.default_url=/lab/tree/00_quickstart.ipynb" in command
    assert command[-3:] == ["--no-browser", "--port", "8899"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fails(capsys, "lab", words=["JupyterLab is not installed", "pip install jupyterlab"])


def test_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "roilab.cli", "ask", "nowhere.png", "What?"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("roilab: no file 'nowhere.png'") and done.stderr.count("\n") == 1


@needs_tiny
def test_the_shipped_model_in_the_demo(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo.png")]) == 0
    out, err = capsys.readouterr()
    assert out.count("(right)") == 3, out
    assert err == "" and (tmp_path / "demo.png").stat().st_size > 10_000


def test_an_escaped_turn_marker_is_reported(picture, tmp_path):
    small_model("vicuna_v0").save_pretrained(tmp_path / "model")
    with pytest.warns(EscapedMarker, match="ends a turn in this template"):
        assert main(["ask", picture, "What ### is it?", "--model", str(tmp_path / "model")]) == 0


@needs_tiny
def test_the_shipped_model_refuses_what_makes_no_sense(picture, capsys):
    fails(capsys, "ask", picture, "What is <region1>?", words=["region1"])
    fails(capsys, "ask", picture, "What is <region0>?", words=["region0"])
    fails(capsys, "ask", picture, "What is <region1>?", "--region", "30,2,1,20", words=["30"])
    fails(capsys, "ask", picture, "What is <region1>?", "--region", "100,100,120,120", words=["60", "40"])
    fails(capsys, "ask", picture, "What is <region1>?", "--region", "nan,2,1,20", words=["nan"])
    fails(capsys, "ask", picture, " ", words=["empty"])


def test_data_sets_are_written_and_looked_at(tmp_path, capsys, monkeypatch):
    from roilab.data import table

    monkeypatch.setattr(table, "CACHE", tmp_path / "cache")
    assert main(["data", "export", str(tmp_path / "scenes"), "--scenes", "4"]) == 0
    assert "coco" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "scenes"), "--out", str(tmp_path / "sample.png")]) == 0
    out = capsys.readouterr().out
    assert (
        "| coco | train | 4 |" in out
        and "| vcr_full | train |" in out
        and (tmp_path / "sample.png").stat().st_size > 1000
    )
    for wrong, part in (
        (["data", "check", str(tmp_path / "nowhere")], "is no folder"), (["data", "export", str(tmp_path), "--scenes", "0"], "--scenes 0"),
        (["data", "export", str(tmp_path)], "was not written by export"),
    ):  # fmt: skip
        assert main(wrong) == 2
        assert part in capsys.readouterr().err
