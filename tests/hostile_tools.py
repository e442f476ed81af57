"""Hostile files and arguments for evaluation, training, interpretability and the command."""

import contextlib
import io
import json
import os
import pickle
import shutil

import stages
import torch
from conftest import small_model
from evaluating import Held, choice, dialogue
from hostile import EITHER, NO_JSON, NO_OBJECT, UNHARMED, hostile, mutations, search
from hostile_data import FORMATS
from hostile_inputs import NO_BOXES, encoded, png
from hypothesis import given

from roilab import cli, interpret, training
from roilab.chat import Chat
from roilab.evaluation import Quiz, evaluate_choices, evaluate_classes, evaluate_records
from roilab.training.features import FeatureCache

# Evaluation

CLASSES = ["Describe <region1>.", "ball", "Describe <region2>.", "box"]


def records():
    return Held([choice("a"), choice("b", image="b.png")])


def labelled():
    return Held([dialogue("a", CLASSES, [(2, 3, 30, 40), (20, 5, 60, 44)], labels=["ball", "box"])])


EVALUATIONS = {
    "evaluate_choices": lambda world, path: evaluate_choices(world.model, records(), predictions=path),
    "evaluate_classes": lambda world, path: evaluate_classes(world.model, labelled(), scoring="likelihood", predictions=path),
}  # fmt: skip


def predictions(world, entry):
    """The lines of a finished predictions file."""

    def make():
        path = world.here / "made.jsonl"
        EVALUATIONS[entry](world, path)
        return path.read_bytes().splitlines(keepends=True)

    return world.once(entry, make)


def declare(entry, evaluate):
    def all_of(world, attempt, contents, says):
        path = world.here / "predictions.jsonl"
        for content in contents:
            path.write_bytes(content)
            attempt(lambda: evaluate(world, path), says)
            assert path.read_bytes() == content, "a refused file was written to"

    @hostile(entry, "predictions file: no JSON, of another evaluation, a folder")
    def _(world, attempt):
        header, first, *rest = predictions(world, entry)
        damaged = [content for content in (NO_JSON | NO_OBJECT).values() if content]
        all_of(world, attempt, damaged, "predictions")
        all_of(world, attempt, [content + b"\n" for content in damaged], "line 1|is of another|no file of predictions")
        all_of(world, attempt, [header + content + b"\n" for content in damaged], "line 2")
        all_of(
            world,
            attempt,
            [first, b'{"roilab predictions": 1}\n', header.replace(b'"model"', b'"other"')],
            "predictions",
        )
        (world.here / "folder").mkdir()
        os.mkfifo(world.here / "pipe")
        for path in (world.here / "folder", world.here / "pipe", world.here / "none" / "p.jsonl"):
            attempt(lambda path=path: evaluate(world, path), "folder")

    @hostile(entry, "predictions file: predictions without a key, of another question, without what was chosen")
    def _(world, attempt):
        header, first, *rest = predictions(world, entry)
        row = json.loads(first)
        found = "name" if entry == "evaluate_classes" else "chosen"
        for change in (
            {"key": []},
            {"key": None},
            {"id": "other"},
            {"by": 5},
            {found: True},
            {found: [1]},
            {found: "x"},
        ):
            all_of(world, attempt, [header + json.dumps(row | change).encode() + b"\n"], "predictions.jsonl")
        for key in ("key", "id", found):
            less = {name: row[name] for name in row if name != key}
            all_of(world, attempt, [header + json.dumps(less).encode() + b"\n"], "predictions.jsonl")

    @hostile(entry, "predictions file: cut at any byte is continued, one value changed (hypothesis)", EITHER)
    def _(world, attempt):
        lines = predictions(world, entry)
        whole, path = b"".join(lines), world.here / "predictions.jsonl"
        for cut in (0, 1, len(lines[0]) - 1, len(lines[0]), len(lines[0]) + 5, len(whole) - 1):
            path.write_bytes(whole[:cut])

            def continued():
                evaluate(world, path)
                rows = [json.loads(line) for line in path.read_bytes().splitlines()]
                assert rows[0] == json.loads(lines[0])
                assert sorted(row["key"] for row in rows[1:]) == sorted(json.loads(line)["key"] for line in lines[1:])

            attempt(continued)

        @search(4)
        @given(mutations(json.loads(lines[1])))
        def check(changed):
            path.write_bytes(lines[0] + json.dumps(changed).encode() + b"\n")
            attempt(lambda: evaluate(world, path), "predictions.jsonl")

        check()


for each in EVALUATIONS.items():
    declare(*each)


@hostile("evaluate_records", "unknown task, arm, scoring; no records, no choices")
def _(world, attempt):
    model = world.model
    attempt(lambda: evaluate_records(model, records(), "other"), "other")
    for options in ({"arm": "other"}, {"scoring": "other"}, {"scoring": []}, {"limit": 0}, {"limit": -1}, {"batch": 0}):
        attempt(lambda options=options: evaluate_choices(model, records(), **options))
    attempt(lambda: evaluate_choices(model, Held([])), "0 records")
    attempt(lambda: evaluate_choices(model, labelled()), "choices")
    attempt(lambda: evaluate_classes(model, labelled(), names=["other"]), "ball")
    attempt(lambda: evaluate_choices(model, Held([choice("a"), choice("a")])), "key 'a")


@hostile("Quiz", "files of answers: no JSON, of another quiz, letters that are none; names that lead out")
def _(world, attempt):
    quiz = Quiz(records(), questions=2)
    for name in ("", " ", "../Ada", "/etc/x", "a/b", "\0", "CON", "x" * 500, ".hidden", 5, None, "a\nb\u2028/"):
        attempt(lambda name=name: quiz.answers(name, world.here), "name")
    person = quiz.answers("Ada", world.here)
    for letter in ("E", "", "AB", 5, None, ["A"]):
        attempt(lambda letter=letter: person.add(letter), "answer")
    person.add("A")
    path = person.path
    whole = json.loads(path.read_text())
    for content in (NO_JSON | NO_OBJECT).values():
        path.write_bytes(content)
        attempt(lambda: quiz.people(world.here), path.name)
    for change in (
        {"quiz": "other"},
        {"answers": "A"},
        {"answers": ["E"]},
        {"answers": [["A"]]},
        {"answers": ["A"] * 99},
        {"roilab quiz": 2},
    ):
        path.write_text(json.dumps(whole | change))
        attempt(lambda: quiz.people(world.here), path.name)


# Training


def resumed(world, folder):
    model = world.once("to train", small_model)
    return training.train(
        model,
        stages.recipe(steps=2, save_every=1, batch_size=2, keep=2),
        {"shapes": stages.records(4)},
        folder,
        progress=False,
    )


def stopped(world):
    """The folder of a run that was stopped after a step."""

    def make():
        folder = world.root / "run"
        resumed(world, folder)
        for name in ("model", "checkpoint-2"):
            shutil.rmtree(folder / name)
        return folder

    return world.once("run", make)


@hostile("training.train", "a checkpoint to go on from: pickled code, cut off, no JSON")
def _(world, attempt):
    run = stopped(world)
    (checkpoint,) = run.glob("checkpoint-*")
    for name, contents in (
        ("trained.safetensors", [b"", (checkpoint / "trained.safetensors").read_bytes()[:-9], pickle.dumps(world.evil())]),
        ("optimizer.pt", [pickle.dumps(world.evil())]),
        ("scheduler.pt", [pickle.dumps(world.evil(), 2)]),
        ("rng_state.pth", [pickle.dumps(world.evil())]),
        ("trainer_state.json", [b"", b"[1", b"[]", b'{"global_step": "x"}', b"[" * 10**5]),
        ("progress.json", [b"", b"{}", b"5", b'{"losses": "x", "shortened": 0}']),
        ("../recipe.json", [b"", b"[]", b"{}", b'{"recipe": 5}', b"[" * 10**5]),
    ):  # fmt: skip
        folder = world.folder(run, "run")
        for content in contents:
            (folder / checkpoint.name / name).write_bytes(content)
            attempt(lambda: resumed(world, folder), "checkpoint|recipe.json")  # noqa: B023
            assert not (folder / "model").exists()
    folder = world.folder(run, "run")
    torch.save({"state": world.evil(), "param_groups": []}, folder / checkpoint.name / "optimizer.pt")
    attempt(lambda: resumed(world, folder), "checkpoint")


@hostile("FeatureCache", "files of features: cut off, empty, of another shape", EITHER)
def _(world, attempt):
    cache = FeatureCache(world.here / "features", world.once("frozen", lambda: small_model().requires_grad_(False)))
    item = [{"image": world.picture}]
    cache.fill(item)
    (path,) = (world.here / "features").rglob("*.safetensors")
    whole = path.read_bytes()
    for content in (b"", whole[:50], whole[:-7], pickle.dumps(world.evil())):
        path.write_bytes(content)

        def fill():
            assert cache.fill(item) == 1 and path.read_bytes() == whole

        attempt(fill)


# Interpretability


def target(world):
    def make():
        chat = Chat(world.model, world.picture, max_new_tokens=3)
        return interpret.Target.of(chat, "Is <region1> red?", [[1, 2, 30, 40]], answer="Yes, it is.")

    return world.once("target", make)


@hostile("interpret", "regions, parts, tokens that are not there")
def _(world, attempt):
    model, explained = world.model, target(world)
    chat = Chat(model, world.picture, max_new_tokens=1)
    chat.add_region([1, 2, 30, 40])
    for region in (0, 2, -1, 10**20):
        says = rf"region{region}"
        for method in (interpret.box_sensitivity, interpret.region_anatomy, interpret.slope, interpret.region_tests):
            attempt(lambda method=method, region=region: method(model, explained, region), says)
        attempt(lambda region=region: interpret.recombined(model, explained, 1, region), says)
        attempt(lambda region=region: interpret.exchange_positions(model, explained, 1, region), says)
        attempt(lambda region=region: explained.position(region), says)
        attempt(lambda region=region: interpret.attention_knockout(model, explained, f"inside region{region}"), says)
        attempt(lambda region=region: interpret.attention_knockout(model, explained, f"region{region}"), says)
    for part in ("", "other", "inside", "inside region", "inside regionx", "history"):
        attempt(lambda part=part: interpret.attention_knockout(model, explained, part), "no part")
    for about in ("green", "", "\ud800"):
        attempt(
            lambda about=about: interpret.Target.of(chat, "Is <region1> red?", answer="Yes.", about=about),
            "not in the answer",
        )
    attempt(lambda: interpret.Target.of(chat, "Is <region1> red?", answer=""), "no tokens")
    attempt(lambda: interpret.Target.of(chat), "no question")
    for question in ("", "<region2>?", 5, f"<region{'3' * 5000}>"):
        attempt(lambda question=question: interpret.Target.of(chat, question, answer="Yes."))
        attempt(lambda question=question: interpret.Live(chat, question, answer="Yes."))
    for token in (99, -1):
        attempt(lambda token=token: interpret.Live(chat, "Is <region1> red?", answer="Yes.", token=token), "token")
    attempt(lambda: interpret.Live(chat, "Is <region1> red?", answer="Yes.", top=0), "top 0")
    live = interpret.Live(chat, "Is <region1> red?", answer="Yes.")
    for shapes in ([], [None], *([box] for box in NO_BOXES[1:])):
        attempt(lambda shapes=shapes: live(shapes), "region")


@hostile("interpret", "layers, heads, positions, words that are not there")
def _(world, attempt):
    model, explained = world.model, target(world)
    for layers in ([2], [-1], [0, 99], []):
        attempt(lambda layers=layers: interpret.attention_map(model, explained, layers), "layer")
        attempt(lambda layers=layers: interpret.attention_knockout(model, explained, "region1", layers=layers), "layer")
        if layers:
            attempt(lambda layers=layers: interpret.trace(model, explained, layers), "layer")
    for heads in ([4], [-1], []):
        attempt(lambda heads=heads: interpret.attention_map(model, explained, heads=heads), "head")
    for positions in ([len(explained.ids)], [-1], [10**20]):
        attempt(lambda positions=positions: interpret.logit_lens(model, explained, positions), "position")
        attempt(lambda positions=positions: interpret.trace(model, explained, positions=positions), "position")
        attempt(lambda positions=positions: interpret.attention_knockout(model, explained, positions), "position")
    for options in ({"words": [""]}, {"words": [" "]}, {"top": 0}, {"top": 10**6}, {"positions": []}):
        attempt(lambda options=options: interpret.logit_lens(model, explained, **options), "word|top|positions")


@hostile("interpret", "methods, fills, paths, steps, memory that make no sense")
def _(world, attempt):
    model, explained = world.model, target(world)
    scores = interpret.rollout(model, explained)
    for call in (interpret.to_tokens, interpret.to_pixels, interpret.cover):
        attempt(lambda call=call: call(model, explained, method="other"), "other")
    for call in (interpret.to_tokens, interpret.to_pixels):
        for steps in (0, -1, 49):
            attempt(lambda call=call, steps=steps: call(model, explained, steps=steps), "steps")
    for options in (
        {"fill": "other"},
        {"path": "other"},
        {"segments": "other"},
        {"segments": torch.zeros(3)},
        {"segments": torch.zeros(4, 4)},
    ):
        attempt(lambda options=options: interpret.cover(model, explained, **options), "other|segments")
    for batch in (0, -1, True, "many", "", "1e400 GB", "0 GB", "1 byte", 1.5):
        attempt(lambda batch=batch: interpret.cover(model, explained, batch=batch), "batch|needs")
        attempt(lambda batch=batch: interpret.box_sensitivity(model, explained, batch=batch), "batch|needs")
    for steps in (0, -1):
        attempt(lambda steps=steps: interpret.box_sensitivity(model, explained, steps=steps), "steps")
        attempt(lambda steps=steps: interpret.deletion_insertion(model, scores, steps=steps), "steps")
    for share in (-0.5, 1.5, float("nan")):
        attempt(lambda share=share: interpret.randomised(model, share), "share")
    attempt(lambda: interpret.token_bank(model, []), "0 pictures")
    attempt(lambda: interpret.region_report(model, []), "0 pictures")


@hostile("interpret.study", "file of rows: no JSON, other rows; targets without a region")
def _(world, attempt):
    model, explained, path = world.model, target(world), world.here / "study.jsonl"
    methods = {"rollout": interpret.rollout}
    for content in [*(NO_JSON | NO_OBJECT).values(), b"{}", b'{"target": "x"}', b'{"target": -1}', b'{"target": 0}']:
        path.write_bytes(content + b"\n")
        attempt(lambda: interpret.study(model, [explained], methods, path, progress=False), "study.jsonl")
        assert path.read_bytes() == content + b"\n"
    row = {"target": 0, "method": "rollout", "question": "other", "answer": "Yes.", "boxes": []}
    for change in ({}, {"target": 9}, {"target": 10**30}):
        path.write_text(json.dumps(row | change) + "\n")
        attempt(lambda: interpret.study(model, [explained], methods, path, progress=False), "study.jsonl")
    plain = interpret.Target.of(Chat(model, world.picture), "What is it?", answer="Yes.")
    attempt(lambda: interpret.study(model, [plain], methods, progress=False), "no region")


# The command


class Status(Exception):
    """Exit status 2 and one line on stderr, as documented."""


def command(*arguments):
    """Runs `roilab`; raises `Status` if it ends as a mistake should."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(each) for each in arguments])
        except SystemExit as leaving:  # argparse
            status = leaving.code
    lines = [line for line in err.getvalue().splitlines() if line.startswith(("roilab", "Traceback"))]
    if status == 2:
        assert len(lines) == 1 and "Traceback" not in err.getvalue() and out.getvalue() == "", (lines, out.getvalue())
        raise Status(lines[0])


@hostile("roilab ask", "pictures, boxes, questions, models that are none", raises=Status)
def _(world, attempt):
    good = world.here / "good.png"
    world.picture.save(good)
    bad = world.here / "bad.png"
    for content in (
        b"",
        b"text",
        encoded(world.picture, "PNG")[:99],
        png(100_000, 100_000),
        pickle.dumps(world.evil()),
    ):
        bad.write_bytes(content)
        attempt(lambda: command("ask", bad, "What is it?"), "bad.png")
    for path in ("none.png", world.here, "/dev/zero", "http://127.0.0.1:9/a.png", "", "\0", "x" * 5000):
        attempt(lambda path=path: command("ask", path, "What is it?"))
    for box in ("", "1,2,3", "a,b,c,d", "nan,1,2,3", "1e400,1,2,3", "30,2,1,40", "99,99,100,100", "1,2,3,4,5"):
        attempt(
            lambda box=box: command("ask", good, "What is <region1>?", "--region", box, "--model", world.saved()),
            "region",
        )
    for question in ("", " ", "<region1>?", f"<region{'9' * 5000}>?", "What? " * 5000):
        attempt(
            lambda question=question: command("ask", good, question, "--model", world.saved()), "region|question|tokens"
        )
    for model in ("nowhere", world.here, good, "\0", "a/b/c"):
        attempt(lambda model=model: command("ask", good, "What?", "--model", model))
    folder = world.folder(world.saved())
    for name, content in (("config.json", b"[" * 10**5), ("model.safetensors", b"x"), ("tokenizer.json", b"{}")):
        (folder / name).write_bytes(content)
        attempt(lambda: command("ask", good, "What?", "--model", folder), "copy")  # noqa: B023
        shutil.copy(world.saved() / name, folder)
    attempt(lambda: command("ask", good), "QUESTION")
    attempt(lambda: command("no-such-command"), "no-such-command")
    attempt(lambda: command(), "COMMAND")


@hostile("roilab evaluate", "options, data and predictions that do not fit", raises=Status)
def _(world, attempt):
    saved, folder = world.saved(), world.here / "data"
    shutil.copytree(FORMATS / "vcr_small", folder)
    for options in (
        ["--on", "other", "--data", folder], ["--on", "vcr_full"], ["--on", "vcr_full", "--data", world.here / "none"], ["--data", folder], ["--scenes", "0"],
        ["--scenes", "x"], ["--on", "vcr_full", "--data", folder, "--split", "other"], ["--on", "vcr_full", "--data", folder, "--seed", "1"],
        ["--on", "vcr_full", "--data", folder, "--split", "val"], ["--json", "/none/x.json", "--scenes", "1"], ["--arm", "other", "--scenes", "1"],
        ["--readme", world.here / "none.md", "--scenes", "1"],
    ):  # fmt: skip
        attempt(lambda options=options: command("evaluate", saved, *options))
    attempt(lambda: command("evaluate", "nowhere", "--scenes", "1"), "nowhere")
    bad = world.here / "predictions.jsonl"
    for content in (b"x\n", b"[" * 10**5 + b"\n", b'{"roilab predictions": 1}\n', b"\xff\n"):
        bad.write_bytes(content)
        options = ("--on", "vcr_full", "--data", folder, "--split", "train", "--predictions", bad)
        attempt(lambda options=options: command("evaluate", saved, *options), "predictions.jsonl|vcr1images")


@hostile("roilab data check", "folders that are none", raises=Status)
def _(world, attempt):
    (world.here / "file").touch()
    for path in (world.here / "none", world.here / "file", "\0", "/dev/null"):
        attempt(lambda path=path: command("data", "check", path), "no folder")
    attempt(lambda: command("data", "check", world.here, "--out", "/none/x.png"), "no folder")
    attempt(lambda: command("data"), "ACTION")


@hostile("roilab data check", "damaged files: told, not raised", UNHARMED, raises=Status)
def _(world, attempt):
    (world.here / "annotations").mkdir()
    for content in (b"", b"[" * 10**5, b"\xff", pickle.dumps(world.evil())):
        for name in ("annotations/instances_val2017.json", "train.jsonl", "detections.pkl"):
            (world.here / name).write_bytes(content)
        attempt(lambda: command("data", "check", world.here))


@hostile("roilab data export", "folders that hold something else, splits, counts", raises=Status)
def _(world, attempt):
    (world.here / "train.jsonl").write_text("mine")
    for options in ([], ["--split", "other"], ["--scenes", "0"], ["--scenes", "x"], ["--seed", "x"]):
        attempt(lambda options=options: command("data", "export", world.here, *options))
    assert [path.name for path in world.here.iterdir()] == ["train.jsonl"]
    for content in (b"", b"[1]", b"5", b"[" * 10**5):
        (world.here / "roilab_scenes.json").write_bytes(content)
        attempt(lambda: command("data", "export", world.here))


@hostile("roilab convert", "folders that are none", raises=Status)
def _(world, attempt):
    out = world.here / "out"
    (world.here / "empty").mkdir()
    for folder in (world.here / "none", world.here / "empty", "\0", world.saved()):
        attempt(lambda folder=folder: command("convert", folder, out, "--vision", world.saved()))
        assert not out.exists()
    attempt(lambda: command("convert", world.saved()), "OUT")
