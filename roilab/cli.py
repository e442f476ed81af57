"""The command `roilab`: it reads arguments, calls the package and prints. What it does stands in the modules it calls.

A mistake of the user's is one line on stderr and exit status 2; Ctrl-C is status 130. Heavy modules are imported by the sub-command that
needs them, so that `roilab --help` is immediate.
"""

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path

import roilab

QUICKSTART = "00_quickstart.ipynb"
DEMO_SCENE = 7  # of those kept for tests


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv=None) -> int:
    """Runs one command; returns its exit status (argparse itself exits for --help, --version and wrong options)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a letter shows a stand-in
            stream.reconfigure(errors="backslashreplace")
    try:
        if argv[:1] == ["train"]:  # their options are the business of the trainer and of JupyterLab
            return _train(argv[1:])
        if argv[:1] == ["lab"]:
            return _lab(argv[1:])
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `roilab … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"roilab: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2


def _parser():
    parser = _Parser(prog="roilab", description="Ask a vision-language model about regions of a picture.")
    parser.add_argument("--version", action="version", version=f"roilab {roilab.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="a drawn scene or a photograph, some regions and rounds: prints the dialogue, saves the picture"
    )
    demo.add_argument("--out", default="demo.png", metavar="FILE", help="where the picture goes (default: %(default)s)")
    demo.add_argument("--seed", type=int, help=f"which of the scenes kept for tests (default: {DEMO_SCENE})")
    demo.add_argument("--model", default="tiny", help="tiny, photo, a folder, or a hub id (default: %(default)s)")
    demo.set_defaults(run=_demo)

    ask = commands.add_parser("ask", help="one question about a picture of yours")
    ask.add_argument("image", metavar="IMAGE", help="picture file")
    ask.add_argument("question", metavar="QUESTION", help='names regions as <region1>, <region2>: "What is <region1>?"')
    ask.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="x1,y1,x2,y2",
        help="a box in pixels; the first one is <region1>, and so on",
    )
    ask.add_argument("--model", default="tiny", help="tiny, photo, a folder, or a hub id (default: %(default)s)")
    ask.add_argument("--json", action="store_true", help="print question, answer, tokens and log-probabilities as JSON")
    ask.set_defaults(run=_ask)

    commands.add_parser("lab", help="JupyterLab on the quickstart notebook; options go to JupyterLab", add_help=False)
    commands.add_parser(
        "train", help="train a model, as in: roilab train tiny (see roilab train --help)", add_help=False
    )

    evaluate = commands.add_parser(
        "evaluate", help="how often a model is right, on drawn scenes that it was not trained on or on a data set"
    )
    evaluate.add_argument("model", metavar="MODEL", help="tiny, photo, a folder, or a hub id")
    evaluate.add_argument("--scenes", type=int, metavar="N", help="how many scenes (default: 2000)")
    evaluate.add_argument("--seed", type=int, metavar="S", help="which scenes (default: 0)")
    evaluate.add_argument(
        "--probe",
        action="store_true",
        default=None,
        help="add a column of what a small network reads off the frozen vision tower's features in the boxes",
    )
    evaluate.add_argument("--json", metavar="FILE", help="write the results here too")
    evaluate.add_argument(
        "--readme",
        metavar="FILE",
        help="put the table between the marks '<!-- evaluate MODEL -->' (or '<!-- evaluate MODEL on NAME -->') of this file",
    )
    evaluate.add_argument(
        "--on",
        metavar="NAME",
        help="a data set: vcr_full, v7w_telling, v7w_pointing, vg, refcocog, coco, or photo (COCO's boxes in the photo model's words; its default)",
    )
    evaluate.add_argument(
        "--arm", help="regions (default), text_coordinates, drawn_marks, crop_only, image_only or text_only"
    )
    of_data = evaluate.add_argument_group("with --on")
    of_data.add_argument("--data", metavar="DIR", help="folder of the data set's files")
    of_data.add_argument("--split", help="train, val, ... (default: val)")
    of_data.add_argument(
        "--scoring",
        nargs="+",
        metavar="HOW",
        help="choices: letter (default), generated, likelihood; coco: the last two",
    )
    of_data.add_argument("--limit", type=int, metavar="N", help="so many records, spread evenly (default: all)")
    of_data.add_argument("--batch", type=int, metavar="N", help="questions at a time (default: 16)")
    of_data.add_argument(
        "--predictions", metavar="FILE", help="write every answer here; a stopped evaluation continues from it"
    )
    of_data.add_argument("--published", action="store_true", default=None, help="columns of published numbers beside")
    evaluate.set_defaults(run=_evaluate)

    study = commands.add_parser(
        "study", help="what interpretability is worth where the truth is known: methods, region tests, planted defects"
    )
    study.add_argument(
        "--scenes", type=int, default=200, metavar="N", help="how many test scenes (default: %(default)s)"
    )
    study.add_argument("--seed", type=int, default=3, metavar="S", help="which scenes (default: %(default)s)")
    study.add_argument(
        "--out",
        default="study",
        metavar="DIR",
        help="parts that are done; a run goes on from them (default: %(default)s)",
    )
    study.add_argument("--json", metavar="FILE", help="write the results here too")
    study.add_argument(
        "--readme", metavar="FILE", help="put the tables between the marks '<!-- study -->' of this file"
    )
    study.set_defaults(run=_study)

    data = commands.add_parser(
        "data", help="data sets: look into a folder of them, or write drawn scenes in their formats"
    )
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    look = actions.add_parser(
        "check", help="which data sets a folder holds, counts, what is missing, samples as pictures"
    )
    look.add_argument("directory", metavar="DIR")
    look.add_argument("--out", metavar="FILE", help="write a picture with a sample of each data set")
    look.set_defaults(run=_data_check)
    write = actions.add_parser("export", help="drawn scenes as files of all data sets, to train and evaluate offline")
    write.add_argument("directory", metavar="DIR")
    write.add_argument("--scenes", type=int, default=2000, metavar="N", help="how many scenes (default: %(default)s)")
    write.add_argument("--split", default="train", help="train, val or test (default: %(default)s)")
    write.add_argument("--seed", type=int, default=0, metavar="S", help="which scenes (default: %(default)s)")
    write.set_defaults(run=_data_export)

    convert = commands.add_parser("convert", help="published GPT4RoI weights -> a folder that this package loads")
    convert.add_argument(
        "official", metavar="OFFICIAL_DIR", help="their folder (or hub id): config.json, tokenizer, shards"
    )
    convert.add_argument("out", metavar="OUT", help="folder to write")
    convert.add_argument(
        "--base", metavar="LLAMA_DIR", help="the LLaMA that they are a difference to, unless they are whole"
    )
    convert.add_argument(
        "--vision", metavar="CLIP_DIR", help="CLIP ViT-L/14 (default: openai/clip-vit-large-patch14 from the hub)"
    )
    convert.add_argument("--dry-run", action="store_true", help="check keys, shapes, tokens and sizes; write nothing")
    convert.set_defaults(run=_convert)

    bench = commands.add_parser("bench", help="speed ratios, measured on this machine")
    bench.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="which ones (default: all but index, features, inside, convert, photo, drag and whatif, which take minutes, a download, much disk or a browser)",
    )
    bench.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    bench.add_argument("--json", metavar="FILE", help="write the results here too")
    bench.add_argument("--plot", metavar="FILE", help="draw the ratios there")
    bench.add_argument(
        "--readme", metavar="FILE", help="put the table between the marks '<!-- bench -->' or '<!-- bench NAME -->'"
    )
    bench.set_defaults(run=_bench)
    return parser


def _demo(arguments):
    _check_folder(arguments.out)
    if arguments.model == "photo" and arguments.seed is not None:
        raise ValueError("--seed does not go with --model photo, which shows one photograph")
    seed = DEMO_SCENE if arguments.seed is None else arguments.seed
    start = time.perf_counter()
    load, chat_class = _import_model_code()
    times = {"imports": time.perf_counter() - start}
    model, times["loading"] = _timed(lambda: load(arguments.model))
    from .demo import PHOTOGRAPH, photograph_rounds, sample_rounds
    from .pictures import read_picture

    if arguments.model == "photo":
        rounds, larger = photograph_rounds(), 1
        image = drawn = read_picture(PHOTOGRAPH)
        print("a photograph of a desk (COCO val2017, CC BY 2.0), not seen in training\n")
    else:
        (scene, rounds), larger = sample_rounds(seed), 3
        image, drawn = (
            scene.image,
            scene.scaled(3 * scene.size).image,
        )  # drawn anew, not enlarged: the same scene with sharp edges
        print(f"test scene {seed} ({scene.setting}, {len(scene.objects)} objects), not seen in training\n")
    chat = chat_class(model, image)
    boxes, turns, seconds = [], [], []
    for question in rounds:
        for box in question.boxes:
            boxes.append(box)
            print(f"<region{len(boxes)}> is the box {','.join(f'{side:.0f}' for side in box)}")
        answer, took = _timed(lambda asked=question: chat.ask(asked.question, regions=list(asked.boxes) or None))
        seconds.append(took)
        right = question.is_right(answer.text)
        print(f"  question: {question.question}\n  answer:   {answer.text}")
        print(
            f"  truth:    {answer.text if right else question.answers[0]}  ({'right' if right else 'the answer is wrong'})"
        )
        turns += [{"role": "user", "content": question.question}, {"role": "assistant", "content": answer.text}]
        if answer.note:
            print(f"  note:     {answer.note}")
            turns.append({"role": "note", "content": answer.note})
        print()
    times["first answer"], times["later answers"] = seconds[0], sum(seconds[1:]) / len(seconds[1:])
    print("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in times.items()))

    from .plotting import show_dialogue

    show_dialogue(drawn, [[larger * side for side in box] for box in boxes], turns, arguments.out)
    print(f"picture: {arguments.out}")


def _ask(arguments):
    from .pictures import read_picture

    image = read_picture(arguments.image)
    boxes = [_box(number, text) for number, text in enumerate(arguments.region, 1)]
    load, chat_class = _import_model_code()
    answer = chat_class(load(arguments.model), image).ask(arguments.question, regions=boxes or None)
    if arguments.json:
        result = dict(
            question=arguments.question, answer=answer.text, regions=boxes, tokens=list(answer.tokens), logprobs=list(answer.logprobs),
            note=answer.note, model=arguments.model,
        )  # fmt: skip
        print(json.dumps(result))
        return
    print(answer.text)
    if answer.note:
        print(f"note: {answer.note}")


def _lab(options):
    import importlib.util
    import subprocess

    if importlib.util.find_spec("jupyterlab") is None:
        raise ValueError("JupyterLab is not installed in this environment: pip install jupyterlab")
    folder = Path(roilab.__file__).resolve().parent.parent / "notebooks"
    if (folder / QUICKSTART).is_file():  # by address: JupyterLab does not print that of a file argument
        options = [f"--LabApp.default_url=/lab/tree/{QUICKSTART}", *options]
    else:
        folder = Path.cwd()  # an installed wheel has no notebooks beside it
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # a container; JupyterLab would refuse to start
        options = ["--allow-root", *options]
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(folder), *options])


def _train(options):
    import importlib.util

    if importlib.util.find_spec("accelerate") is None:
        raise ValueError("training needs accelerate: pip install 'roilab[train]'")
    from .training.command import main as train

    return train(options)


def _evaluate(arguments):
    marker = f"evaluate {arguments.model}" + (f" on {arguments.on}" if arguments.on else "")
    if arguments.model == "photo":
        arguments.on = arguments.on or "photo"
    of_scenes, of_data = (
        ("scenes", "seed", "probe"),
        ("data", "split", "scoring", "limit", "batch", "predictions", "published"),
    )
    for name in of_scenes if arguments.on else of_data:
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} does not go with --on" if arguments.on else f"--{name} needs --on NAME")
    _check_folder(arguments.json)
    from .files import around, replace_between

    if arguments.readme:
        around(arguments.readme, marker)  # no marks: say so before the work
    results, table = (_evaluate_data if arguments.on else _evaluate_scenes)(arguments)
    print(table)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if arguments.readme:
        replace_between(arguments.readme, marker, table)


def _evaluate_scenes(arguments):
    scenes = 2000 if arguments.scenes is None else arguments.scenes
    if scenes < 1:
        raise ValueError(f"--scenes {scenes}, expected at least 1")
    load, _ = _import_model_code()
    from .evaluation import evaluate_scenes, probe_boxes, table

    model, seed = load(arguments.model), arguments.seed or 0
    results = evaluate_scenes(model, scenes=scenes, seed=seed, arm=arguments.arm or "regions")
    if arguments.probe:
        results["probe"] = probe_boxes(model, scenes, seed)
    return results, table(results)


def _evaluate_data(arguments):
    if arguments.data is None:
        raise ValueError(f"--on {arguments.on} needs --data DIR, the folder of its files")
    _check_folder(arguments.predictions)
    load, _ = _import_model_code()
    from . import data
    from .evaluation import TASKS, LongPrompt, evaluate_records

    warnings.simplefilter("always", LongPrompt)
    if arguments.on not in TASKS:
        raise ValueError(f"--on {arguments.on}: no such evaluation; there are {', '.join(TASKS)}")
    split = arguments.split or "val"
    records = data.read("coco" if arguments.on == "photo" else arguments.on, arguments.data, split)
    names = ("scoring", "arm", "limit", "batch", "predictions")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    result = evaluate_records(load(arguments.model), records, arguments.on, split, **options)
    return result.to_dict(), result.table(published=bool(arguments.published))


def _study(arguments):
    if arguments.scenes < 8:
        raise ValueError(f"--scenes {arguments.scenes}, expected at least 8, the pictures of one region report")
    _check_folder(arguments.json)
    from .files import around, replace_between

    if arguments.readme:
        around(arguments.readme, "study")
    _import_model_code()
    from .interpret.measuring import measure, table

    results = measure(arguments.scenes, arguments.seed, Path(arguments.out))
    print(table(results))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results) + "\n", encoding="utf-8")  # long: without indents
    if arguments.readme:
        replace_between(arguments.readme, "study", table(results))


def _data_check(arguments):
    _check_folder(arguments.out)
    from .data import check

    found = check(arguments.directory)
    print(found)
    if arguments.out:
        found.show(arguments.out)
        print(f"picture: {arguments.out}")


def _data_export(arguments):
    if arguments.scenes < 1:
        raise ValueError(f"--scenes {arguments.scenes}, expected at least 1")
    counts = roilab.scenes.export(
        arguments.directory, scenes=arguments.scenes, split=arguments.split, seed=arguments.seed
    )
    for name, count in counts.items():
        print(f"{name}: {count:,} records")


def _convert(arguments):
    _import_model_code()
    from .weights import convert

    options = {name: each for name in ("base", "vision") if (each := getattr(arguments, name)) is not None}
    found = convert(arguments.official, arguments.out, dry_run=arguments.dry_run, **options)
    print(f"{found['parameters']:,} parameters, {found['bytes'] / 1e9:.2f} GB")
    print(found["rows"])
    if found["ignored"]:
        print(f"not needed: {', '.join(found['ignored'][:3])}{', ...' if len(found['ignored']) > 3 else ''}")
    print("nothing written" if arguments.dry_run else f"written: {arguments.out}")


def _bench(arguments):
    _check_folder(arguments.json)
    _check_folder(arguments.plot)
    names = arguments.names
    if arguments.readme and len(names) > 1:
        raise ValueError(f"--readme takes the table of all benchmarks or of one, not of {len(names)}")
    from .bench import run, table
    from .files import around, replace_between

    marker = " ".join(["bench", *names])
    if arguments.readme:
        around(arguments.readme, marker)
    results = run(arguments.json, names or None, plot=arguments.plot, device=arguments.device)
    if arguments.readme:
        replace_between(arguments.readme, marker, table(results, arguments.device))


def _import_model_code():
    """`roilab.load` and `roilab.Chat`, with what transformers says while it loads turned off."""
    warnings.simplefilter("ignore")
    from transformers.utils import logging

    from .dialogues import EscapedMarker

    warnings.simplefilter("always", EscapedMarker)

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return roilab.load, roilab.Chat


def _timed(call):
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def _box(number, text):
    try:
        x1, y1, x2, y2 = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"--region {number} is {text!r}, expected four numbers x1,y1,x2,y2") from None
    return [x1, y1, x2, y2]


def _check_folder(path):
    """Said before the work, not after it."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {Path(path).absolute().parent}")


if __name__ == "__main__":
    sys.exit(main())
