"""The command line: what it refuses, and how; what it accepts, and what comes out."""
import json
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import call, finish, one_line, start, tree
from PIL import Image

from selectq.table import load_table

S = "--workers 0 --noise 12"  # of every traversal here

REFUSED = {
    # command: words that the line holds
    "stats": "MODEL",
    "stats digits": "POOL",
    "stats digits digits": "--out",
    "stats digits digits extra --out x": "extra",
    "stats digits digits --out x --fast": "--fast",
    "stats digits {root}/nowhere --out x": "nowhere does not exist",
    "stats digits {empty} --out x": "empty holds no images",
    "stats digits {texts} --out x": "texts holds no images",
    "stats digits {texts}/notes.txt --out x": "notes.txt",
    "stats resnet81 {pool} --out x": "'resnet81' resnet18",
    "stats '' {pool} --out x": "network ''",
    "stats digits {pool} --out x --sites relus": "--sites 'relus' activation relu output input",
    "stats digits {pool} --out x --weights {root}/nowhere.pth": "nowhere.pth",
    "stats digits {pool} --out x --weights {unfit}": "unfit.pth stage3 missing",
    "stats digits {pool} --out x --weights {garbage}": "garbage.pth",
    "stats digits {pool} --out x --weights {nan}": "NaN image",
    "stats digits {pool} --out x --weights {nan} --fold-batchnorm": "NaN weights",
    "stats digits {pool} --out {table} --fold-batchnorm": "weights",
    "stats resnet18 {pool} --out x --weights {other}": "other.safetensors",
    "stats digits {broken} --out x": "2 of 62 --allow-unreadable zero.png",
    "stats digits {pool} --out {file}": "is a file",
    "stats digits {pool} --out {file}/x": "file",
    "stats digits {pool} --out {texts}": "not empty",
    "stats digits {pool} --out {table} --batch-size 7": "batch_size 32 7",
    "stats digits {pool} --out x --batch-size 0": "batch",
    "stats digits {pool} --out x --chunk 0": "--chunk 0",
    "stats digits {pool} --out x --noise 0": "--noise 0",
    "stats digits {pool} --out x --batch-size many": "--batch-size integer",
    "stats digits {pool} --out x --workers -1": "--workers",
    "stats digits {pool} --out x --device cuda:99": "cuda:99 cpu",
    "stats digits {pool} --out x --device abacus": "abacus",
    "stats digits {pool} --out x --classes {root}/nowhere.json": "nowhere.json",
    "stats digits {pool} --out x --classes {junk}": "junk.json",
    "info": "STATS",
    "info {root}/nowhere": "nowhere no statistics table",
    "info {incomplete}": "not complete",
    "info {table} --extreme -1": "--extreme",
    "select": "STATS",
    "select {root}/nowhere": "nowhere",
    "select {empty}": "no statistics table",
    "select {file}": "no statistics table",
    "select {incomplete} -n 5": "not complete",
    "select {table}": "-n 1000 60 images",
    "select {table} -n 61": "-n 61 60 images",
    "select {table} -n 0": "-n 0",
    "select {table} -n -3": "-n -3",
    "select {table} -n ten": "-n integer",
    "select {table} -n 5 --centroids 61": "--centroids 61 60 images",
    "select {table} -n 5 --centroids 13": "--centroids 13 12 noise",
    "select {table} -n 5 --centroids 0": "--centroids 0",
    "select {table} -n 5 --strategy best": "'best' selectq, random, one-per-class",
    "select {table} -n 5 --update additiv": "'additiv' additive or shift",
    "select {table} -n 5 --order first": "'first' highest or lowest",
    "select {table} -n 5 --granularity pixel": "'pixel' image or batch",
    "select {table} -n 5 --gamma -1": "--gamma -1",
    "select {table} -n 5 --gamma nan": "--gamma nan",
    "select {table} -n 5 --lambda-min 2": "--lambda-min 2",
    "select {table} -n 5 --batch-size 0": "batch",
    "select {table} -n 5 --seed -1": "--seed -1",
    "select {table} -n 61 --strategy random": "-n 61",
    "select {unlabelled} --strategy one-per-class": "no labels",
    "select {table} -n 5 --out {texts}": "texts",
    "select {table} -n 5 --out {file}/x.json": "file",
    "select {table} -n 5 --score-sites nothing*": "--score-sites 'nothing*'",
    "select {table} -n 5 --score-sites !*": "--score-sites '!*'",
    "evaluate digits": "VAL",
    "evaluate digits {val} --stats {table}": "--selection",
    "evaluate digits {val} --stats {table} --selection {root}/nowhere.json": "nowhere.json",
    "evaluate digits {val} --stats {table} --selection {junk}": "junk.json no selection",
    "evaluate digits {val} --stats {table} --selection {classes}": "classes.json no selection",
    "evaluate digits {val} --stats {table} --selection {strange}": "table",
    "evaluate digits {val} --stats {incomplete} --selection {selection}": "not complete",
    "evaluate digits {val} --stats {root}/nowhere --selection {selection}": "nowhere",
    "evaluate digits {val} --stats {others} --selection {selection}": "weights",
    "evaluate digits {val} --stats {table} --selection {selection} --weights {other}": "weights",
    "evaluate resnet81 {val} --stats {table} --selection {selection}": "'resnet81'",
    "evaluate digits {flat} --stats {table} --selection {selection}": "no labels",
    "evaluate digits {few} --stats {table} --selection {selection}": "2 classes --classes",
    "evaluate digits {val} --stats {table} --selection {selection} --classes {eleven}": (
        "11 classes"
    ),
    "evaluate digits {leak} --stats {table} --selection {selection}": (
        "train0007.png leak --allow-leak"
    ),
    "evaluate digits {copy} --stats {table} --selection {selection}": (
        "holiday.png leak --allow-leak"
    ),
    "evaluate digits {root}/nowhere --stats {table} --selection {selection}": "nowhere",
    "evaluate digits {val} --stats {table} --selection {selection} --bits 1": "--bits 1",
    "evaluate digits {val} --stats {table} --selection {selection} --bits 8 17": "--bits 17",
    "evaluate digits {val} --stats {table} --selection {selection} --bits 8:1": "--bits 1",
    "evaluate digits {val} --stats {table} --selection {selection} --bits eight": "eight",
    "evaluate digits {val} --stats {table} --selection {selection} --bits 4.5": "4.5",
    "evaluate digits {val} --stats {table} --selection {selection} --bits 8,4": "8,4",
    "evaluate digits {val} --stats {table} --selection {selection} --bits 4:": "4:",
    "evaluate digits {val} --stats {table} --selection {selection} --bits 4:8:2": "4:8:2",
    "evaluate digits {val} --stats {table} --selection {selection} --bits": "--bits",
    "evaluate digits {val} --stats {table} --selection {selection} --batch-size 0": "batch",
    "evaluate digits {val} --stats {table} --selection {selection} --batch-size -1": "batch",
    "evaluate digits {val} --stats {table} --selection {selection} --out {texts}": "texts",
    "evaluate digits {val} --stats {table} --selection {selection} --edge-bits 1": "--edge-bits 1",
    "evaluate digits {val} --stats {table} --selection {selection} --edge-bits 0": "--edge-bits 0",
    "evaluate digits {val} --stats {table} --selection {selection} --edge-bits 32": (
        "--edge-bits 32"
    ),
    "evaluate digits {val} --stats {table} --selection {selection} --edge-bits eight": (
        "--edge-bits integer"
    ),
    "evaluate digits {val} --stats {table} --selection {selection} --inputs int8": (
        "--inputs 'int8' float, quantized"
    ),
    "evaluate digits {val} --stats {table} --selection {selection} --inputs quantized": (
        "--inputs 'quantized' --pool"
    ),
    (
        "evaluate digits {val} --stats {table} --selection {selection} --inputs quantized"
        " --pool {val}"
    ): "table",
    "evaluate digits {val} --stats {table} --selection {selection} --fold-batchnorm": (
        "weights of this network"
    ),
    "evaluate digits {val} --stats {table} --selection {selection} --correct-bias yes": "yes",
    "run digits {pool}": "VAL",
    "run digits {root}/nowhere {val} --out x": "nowhere",
    "run digits {empty} {val} --out x": "no images",
    "run digits {pool} {empty} --out x": "no images",
    "run digits {pool} {val} --out x": "-n 1000 60 images",
    "run digits {pool} {val} --out x -n 0": "-n 0",
    "run digits {pool} {val} --out x -n 5 --centroids 61": "--centroids 61",
    "run digits {pool} {val} --out x -n 5 --random-seeds -1": "-1",
    "run digits {pool} {val} --out x -n 5 --update both": "'both'",
    "run digits {pool} {val} --out x -n 5 --order best": "'best'",
    "run digits {pool} {val} --out x -n 5 --sites none": "'none'",
    "run digits {pool} {val} --out x -n 5 --bits 32": "--bits 32",
    "run digits {pool} {val} --out x -n 5 --bits 4:8:2": "4:8:2",
    "run digits {pool} {val} --out x -n 5 --batch-size 0": "batch",
    "run digits {pool} {val} --out x -n 5 --edge-bits 17": "--edge-bits 17",
    "run digits {pool} {val} --out x -n 5 --inputs Quantized": (
        "--inputs 'Quantized' float, quantized"
    ),
    "run digits {pool} {val} --out x -n 5 --fold-batchnorm --weights {nan}": "NaN weights",
    "run digits {pool} {val} --out x -n 5 --workers -2": "--workers",
    "run digits {pool} {val} --out x -n 5 --weights {unfit}": "unfit.pth",
    "run digits {pool} {val} --out x -n 5 --weights {nan}": "NaN",
    "run digits {pool} {flat} --out x -n 5": "no labels",
    "run digits {pool} {few} --out x -n 5": "2 classes --classes",
    "run digits {pool} {leak} --out x -n 5": "train0007.png leak --allow-leak",
    "run digits {pool} {copy} --out x -n 5": "holiday.png leak --allow-leak",
    "run digits {pool} {pool} --out x -n 5": "60 images leak",
    "run digits {broken} {val} --out x -n 5": "2 of 62 --allow-unreadable",
    "run digits {pool} {broken} --out x -n 5": "2 of 62 --allow-unreadable",
    "run digits {pool} {val} --out {file} -n 5": "file",
    "run digits {pool} {val} --out x -n 5 --ranges ema": "'ema' mean-extremes",
    "run digits {pool} {val} --out x -n 5 --score-sites nothing*": "--score-sites 'nothing*'",
    "paper": "EXPERIMENT",
    "paper table1": "--train",
    "paper table1 --train {pool}": "--val",
    "paper table9 --train {pool} --val {val} --out x": "'table9' table1 fig7",
    "paper table1 --train {pool} --val {val} --out x": "-n 1000 60 images",
    "paper table1 --train {root}/nowhere --val {val} --out x": "nowhere does not exist",
    "paper table1 --train {pool} --val {val} --out x --sizes 5 --networks resnet81": (
        "'resnet81' resnet18"
    ),
    "paper table1 --train {pool} --val {val} --out x --sizes 5 --networks digits resnet81": (
        "'resnet81' resnet18"
    ),
    (
        "paper table1 --train {pool} --val {val} --out x --networks digits --sizes 5"
        " --weights {empty}"
    ): "empty digits.safetensors",
    "paper table1 --train {pool} --val {val} --out x --networks digits --sizes 5 --sites relus": (
        "--sites 'relus' activation output input"
    ),
    "paper table1 --train {pool} --val {val} --out x --networks digits --sizes 5 --bits 1": (
        "--bits 1"
    ),
    "paper table1 --train {pool} --val {val} --out x --networks digits --sizes 5 --bits 8 eight": (
        "eight"
    ),
    "paper table1 --train {pool} --val {val} --out x --networks digits --sizes 5 --limit-train 0": (
        "limit=0"
    ),
    "paper table1 --train {pool} --val {val} --out x --networks digits --sizes 5 --limit-val -1": (
        "limit=-1"
    ),
    "paper table1 --train {pool} --val {val} --out x --networks digits --sizes 5 --traversals 0": (
        "--traversals"
    ),
    "paper table1 --train {pool} --val {val} --out x --networks digits --sizes 5 --sets -1": "-1",
    "paper table1 --train {pool} --val {val} --out x --networks digits --sizes 5 --limit-train 4": (
        "-n 5 4 images"
    ),
    "paper table1 --train {flat} --val {val} --out x --networks digits --sizes 5": "no labels",
    "select {table} -n 5 --distance manhattan": "'manhattan' euclidean",
    "select {table} -n 5 --distance channel": "channel",
    "select {table} -n 5 --initialisation gaussian": "gaussian",
    "select {table} -n 5 --initialisation zero": "'zero' uniform",
    "demo --out {file}": "file",
    "demo extra": "extra",
    "fly": "fly",
    "--version-of-everything": "--version-of-everything",
}


@pytest.mark.parametrize("command", REFUSED)
def test_refused(command, world, here):
    """Exit code 2, one line that says what is wrong, nothing made, nothing touched."""
    quiet = (
        " --workers 0"
        if "{" in command
        and command.startswith(("stats", "evaluate", "run", "paper"))
        and not command.endswith(("--bits", "--workers -1", "--workers -2"))
        else ""
    )
    one_line(call(command + quiet, **vars(world)), *REFUSED[command].split(" "))
    assert tree(here) == {} or command == LATE and "x/results.csv" not in tree(here)


# found out when the validation set is read: the table and the selection are whole by then, and kept
LATE = "run digits {pool} {broken} --out x -n 5"


SUBPROCESS = {  # with decoding processes, and whatever libraries print
    "stats digits {root}/nowhere --out x": "nowhere",
    "stats digits {mixed} --out x --workers 2": "--allow-unreadable",
    "run digits {pool} {val} --out x -n 5 --weights {pickled} --workers 2": "nan.pth",
}


@pytest.fixture(scope="module")
def messy(world, tmp_path_factory):
    """Broken files of the kinds that make decoders talk, and weights whose pickle does."""
    import io
    import torch
    from safetensors.torch import load_file
    root = tmp_path_factory.mktemp("messy")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for k, (fmt, options) in enumerate(
        {
            "PNG": {},
            "JPEG": {},
            "TIFF": dict(compression="tiff_lzw"),
            "GIF": {},
            "WEBP": {},
            "BMP": {},
        }.items()
    ):
        buffer = io.BytesIO()
        image.save(buffer, fmt, **options)
        for share in (4, 2):
            (root / f"{k}_{share}.{fmt.lower()}").write_bytes(
                buffer.getvalue()[: len(buffer.getvalue()) * (share - 1) // share]
            )
        (root / f"whole_{k}.{fmt.lower()}").write_bytes(buffer.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "exif.jpg", exif=exif.tobytes()[:-4])
    torch.save(load_file(world.nan), root / "nan.pth", pickle_protocol=4)
    return dict(mixed=root, pickled=root / "nan.pth")


@pytest.mark.parametrize("command", SUBPROCESS)
def test_refused_in_a_process(command, world, here, messy):
    one_line(finish(start(command, here, **vars(world), **messy)), *SUBPROCESS[command].split(" "))
    assert tree(here) == {}


def test_help():
    """Each command explains itself; nothing at all is answered with help, too."""
    for command in ("stats", "info", "select", "evaluate", "run", "paper", "demo"):
        code, out, err = call(f"{command} --help")
        assert code == 0 and err == "" and out.startswith("Usage: ")
    code, out, err = call("--help")
    assert code == 0 and err == ""
    assert all(
        command in out
        for command in ("stats", "info", "select", "evaluate", "run", "paper", "demo")
    )


def test_no_arguments():
    code, out, err = call("")
    assert len((out + err).splitlines()) > 5 and "Usage: " in out + err and "Traceback" not in err
    assert not err.startswith("selectq: Usage"), "the help is squeezed into one line"


def test_stats_select_evaluate(world, here):
    """The three commands in a row, and what they print and write."""
    code, out, err = call(f"stats digits {{pool}} --out s {S}", **vars(world))
    assert (code, err) == (0, "") and out.startswith("s: 60 images x 7 activation sites of digits")
    assert out.count("\n") == 1
    code, out, err = call("select s -n 8 --out a.json")
    assert (code, err) == (0, "") and out.startswith("a.json: 8 images (selectq)")
    assert call("select s -n 8 --out deep/b.json --strategy random --seed 3")[0] == 0
    assert call("select s --out c.json --strategy one-per-class")[1].startswith("c.json: 10 images")
    code, out, err = call(
        "evaluate digits {val} --stats s --selection a.json --selection deep/b.json --selection"
        " c.json --bits 8 3:4 --out r/results.csv --workers 0",
        **vars(world),
    )
    assert (code, err) == (0, "") and "float" in out
    results, facts = pd.read_csv("r/results.csv"), json.loads(
        (here / "r" / "results.json").read_text()
    )
    assert list(zip(results.w_bits, results.a_bits)) == [(32, 32)] + [(8, 8), (3, 4)] * 3
    assert results.strategy.tolist() == [
        "float",
        "selectq",
        "selectq",
        "random",
        "random",
        "one-per-class",
        "one-per-class",
    ]
    assert facts["table"] == load_table("s").hash and facts["settings"]["bits"] == [[8, 8], [3, 4]]
    assert facts["versions"]["selectq"]
    assert (
        sorted(p.name for p in here.rglob("*") if p.name.startswith(".") or "partial" in p.name)
        == []
    )


def test_bits_spread(world, here):
    """--bits takes values until the next option, may be repeated, leaves other arguments alone."""
    for words in ("--bits 8 4", "--bits 8 --bits 4", "--bits=8 --bits=4", "--bits 8:8 4:4"):
        assert (
            call(
                f"evaluate digits {words} {{val}} --stats {{table}} --selection {{selection}} --out"
                " x.csv --workers 0",
                **vars(world),
            )[0]
            == 0
        )
        assert pd.read_csv("x.csv").w_bits.tolist() == [32, 8, 4]


def test_fewer_classes(world, here):
    """With a class list, a validation set of two classes has the labels of the full order."""
    assert (
        call(
            "evaluate digits {few} --stats {table} --selection {selection} --bits 8 --classes"
            " {classes} --out x.csv --workers 0",
            **vars(world),
        )[0]
        == 0
    )
    assert pd.read_csv("x.csv").top1.min() > 50  # wrong labels would give next to nothing


def test_run(world, here):
    """One command from folders to the report; the same again changes no result."""
    command = (
        "run digits {pool} {val} -n 6 --bits 8 3 --random-seeds 2 --both-readings --workers 0 --out"
        " report"
    )
    for _ in range(2):
        code, out, err = call(command, **vars(world))
        assert (code, err) == (0, "") and "report" in out
        names = {p.name for p in (here / "report").iterdir()}
        assert names == {
            "stats",
            "selection.json",
            "selection_shift_lowest.json",
            "results.csv",
            "results.json",
            "comparison.png",
            "run.json",
        }
        results = pd.read_csv("report/results.csv")
        assert len(results) == 1 + 2 * 4 and results.n.tolist()[1:] == [6] * 8
        assert (
            results.columns[:16].tolist()
            == "network strategy update order sites ranges correct_bias edge_bits inputs w_bits"
            " a_bits n seed top1 top5 se".split()
        )
        Image.open("report/comparison.png").verify()
        previous = locals().get("previous", results)
        pd.testing.assert_frame_equal(results, previous)


def test_run_into_a_used_folder(world, here):
    """Another run removes what an earlier one wrote and nobody changed since.

    A user's files stay, and one in the way is refused by name.
    """
    command = "run digits {pool} {val} -n 6 --bits 8 --random-seeds 1 --workers 0 --out report"
    assert call(command + " --both-readings", **vars(world))[0] == 0
    report = here / "report"
    (report / "notes.txt").write_text("mine")
    (report / "selection_of_mine.txt").write_text("mine")
    parts = lambda: {p.name: p.read_bytes() for p in (report / "stats").glob("*.parquet")}
    stored, stats = json.loads((report / "run.json").read_text()), parts()
    assert set(stored["files"]) == {
        "selection.json",
        "selection_shift_lowest.json",
        "results.csv",
        "results.json",
        "comparison.png",
    }
    assert stored["run"]["n"] == 6
    code, out, err = call(command, **vars(world))
    assert (code, err) == (0, "") and out.startswith("report: 5 files of an earlier run removed")
    names = {
        "stats",
        "selection.json",
        "results.csv",
        "results.json",
        "comparison.png",
        "run.json",
        "notes.txt",
        "selection_of_mine.txt",
    }
    assert {p.name for p in report.iterdir()} == names
    assert set(json.loads((report / "run.json").read_text())["files"]) == {
        "selection.json",
        "results.csv",
        "results.json",
        "comparison.png",
    }
    assert parts() == stats, "the table serves the next run"
    assert not call(command, **vars(world))[1].startswith(
        "report: "
    ), "the same run removes nothing"
    (report / "results.csv").write_text("mine")
    before = tree(report)
    one_line(
        call(command + " --both-readings", **vars(world)),
        "report holds results.csv",
        "has changed",
        "--out",
    )
    assert tree(report) == before
    (report / "results.csv").unlink()
    (report / "selection_text.json").write_text("mine")
    before = tree(report)
    one_line(
        call(command + " --both-readings", **vars(world)),
        "selection_text.json",
        "run.json does not list",
    )
    (report / "selection_text.json").unlink()
    assert call(command + " --both-readings", **vars(world))[0] == 0
    (report / "run.json").write_text("[]")
    one_line(call(command, **vars(world)), "run.json is no list")
    (report / "run.json").unlink()
    before = tree(report)
    one_line(call(command, **vars(world)), "report holds comparison.png", "does not list")
    assert tree(report) == before


def test_options_in_messages():
    """The command line says of its options what the library says of its parameters."""
    from selectq.cli import _in_options
    for python, option in {
        "take it out of one, or pass allow_leak=True": "take it out of one, or pass --allow-leak",
        "repair them or pass allow_unreadable=True": "repair them or pass --allow-unreadable",
        "use kind='input' or kind='output'": "use --sites 'input' or --sites 'output'",
        "could be fetched (no); give weights=FILE": "could be fetched (no); give --weights FILE",
        "in the order of the network, classes=[...]": (
            "in the order of the network, --classes FILE.json"
        ),
        "give the full class order with classes=": (
            "give the full class order with --classes FILE.json"
        ),
        "estimator='ema' is now mean-extremes": "--ranges 'ema' is now mean-extremes",
        "inputs='quantized' reads the chosen images again; give pool": (
            "--inputs 'quantized' reads the chosen images again; give --pool"
        ),
        "n=2000 but the pool holds 60 images": "-n 2000 but the pool holds 60 images",
        "lambda_min=2 and lambda_max=0.1 cannot be used": (
            "--lambda-min 2 and --lambda-max 0.1 cannot be used"
        ),
        "score_sites='relu' needs the type": "--score-sites 'relu' needs the type",
        "mean=3, in=4, then=5, a n=b": "mean=3, in=4, then=5, a n=b",
    }.items():
        assert _in_options(python) == option


def test_left_in_float(capsys):
    """One line names what quantization leaves alone, if there is anything."""
    from selectq.cli import _say_float
    for meta in ({}, {"float": None}, {"float": dict(tensors=[], layers=[])}): _say_float(meta)
    assert capsys.readouterr().out == ""
    _say_float({"float": dict(tensors=["add"], layers=[])})
    _say_float({"float": dict(tensors=[], layers=[f"up{k}" for k in range(6)])})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("left in float: ") and "(add)" in first
    assert second.startswith("left in float: 6 ") and "up0" in second and "more" in second


def test_notices(capsys):
    """A notice is one line on stderr, in words of the command line; other warnings stay."""
    import warnings
    from selectq.cli import _notices
    from selectq.files import Notice
    with _notices():
        warnings.warn("images of 64 x 64 are enlarged; pass allow_leak=True", Notice)
    assert capsys.readouterr().err == "selectq: images of 64 x 64 are enlarged; pass --allow-leak\n"


def test_from_python(world, here):
    """A command is a function, too: the same options by name, and a wrong one is refused."""
    from selectq.cli import select

    assert call("select {table} -n 6 --update shift --out a.json", **vars(world))[0] == 0
    select(str(world.table), n=6, update="shift", out="b.json")
    assert (here / "a.json").read_bytes() == (here / "b.json").read_bytes()
    with pytest.raises(TypeError, match="updat"):
        select(str(world.table), updat="shift")


def test_score_sites(world, here):
    """Sites that do not count in the score are quantized; selection and results say which did."""
    assert (
        call("select {table} -n 6 --out all.json", **vars(world))[0]
        == call("select {table} -n 6 --score-sites '!*stage1*' --out some.json", **vars(world))[0]
        == 0
    )
    some, whole = (json.loads((here / f"{k}.json").read_text()) for k in ("some", "all"))
    assert some["settings"]["score_sites"] == "!*stage1*"
    assert whole["settings"]["score_sites"] == "all" and some["images"] != whole["images"]
    code, out, err = call(
        "run digits {pool} {val} -n 6 --bits 4 --random-seeds 0 --workers 0 --out r --sites relu"
        " --score-sites *stage2*",
        **vars(world),
    )
    assert (code, err) == (0, "") and load_table("r/stats").kind == "relu"
    assert pd.read_csv("r/results.csv").sites.tolist() == ["relu"] * 2
    assert (
        json.loads((here / "r" / "results.json").read_text())["settings"]["readings"][0][
            "score_sites"
        ]
        == "*stage2*"
    )
    assert (
        call(
            "paper table1 --train {pool} --val {val} --networks digits --sizes 5 --sets 1 --bits 4"
            " --out o --workers 0 --sites relu --score-sites *stage2*",
            **vars(world),
        )[0]
        == 0
    )
    rows = pd.read_csv("o/table1.csv")
    assert rows.score_sites.dropna().tolist() == ["*stage2*"] * 2 and set(rows.sites) == {"relu"}
    assert rows.numerics.tolist() == [1] * 4


def test_paper(world, here):
    """An experiment writes a row per result. Again it computes nothing, with more bits what is new.

    What is printed has a column of the paper's figures.
    """
    command = (
        "paper table1 --train {pool} --val {val} --networks digits --sizes 5 --sets 2 --bits 4"
        " --out o --workers 0"
    )
    code, out, err = call(command, **vars(world))
    assert (code, err) == (0, "") and "paper" in out.splitlines()[1]
    assert out.endswith(
        "o/table1.csv: 5 results; run the same command again to go on or to extend it\n"
    )
    first = (here / "o" / "table1.csv").read_bytes()
    assert call(command, **vars(world))[1] == out
    assert (here / "o" / "table1.csv").read_bytes() == first
    old = pd.read_csv("o/table1.csv")
    assert call(command.replace("--bits 4", "--bits 4 3 --traversals 2"), **vars(world))[0] == 0
    new = pd.read_csv("o/table1.csv")
    assert old.seconds.isin(new.seconds).all() and len(new) == 1 + 2 * (2 + 4)
    assert new.w_bits.isin([32, 4, 3]).all()
    weights = here / "weights"
    weights.mkdir()
    (weights / "digits.safetensors").write_bytes(world.other.read_bytes())
    assert (
        call(
            command.replace("--out o", "--out p")
            + " --weights weights --limit-train 50 --limit-val 20",
            **vars(world),
        )[0]
        == 0
    )
    other = pd.read_csv("p/table1.csv")
    assert (other.weights != old.weights[0]).all() and (other.images == 20).all()
    assert load_table("p/stats/digits-activation").meta["images"] == 50


ALL = "--fold-batchnorm --correct-bias --edge-bits 8 --inputs quantized"


def test_settings(world, here):
    """Options of quantization in three commands and in one: the same numbers, and written down."""
    code, out, err = call(
        f"stats digits {{pool}} --out s --sites input --fold-batchnorm {S}", **vars(world)
    )
    assert (code, err) == (0, "") and out.endswith(", 0 BatchNorms not folded\n")
    assert load_table("s").meta["weights"] != load_table(world.input).meta["weights"]
    assert load_table("s").meta["network"] == "digits"
    one_line(
        call("evaluate digits {val} --stats s --selection s.json --workers 0", **vars(world)),
        "s.json",
    )
    assert call("select s -n 6 --out s.json")[0] == 0
    # not folded
    one_line(
        call("evaluate digits {val} --stats s --selection s.json --workers 0", **vars(world)),
        "weights",
        "of this network",
    )
    code, out, err = call(
        f"evaluate digits {{val}} --stats s --selection s.json --bits 2 4:2 {ALL} --pool {{pool}}"
        " --out e.csv --workers 0",
        **vars(world),
    )
    assert (code, err) == (0, "") and "correct_bias" in out and "edge_bits" in out
    assert "inputs" in out
    code, out, err = call(
        f"run digits {{pool}} {{val}} -n 6 --sites input --bits 2 4:2 {ALL} --random-seeds 1 --out"
        " report --workers 0",
        **vars(world),
    )
    assert (code, err) == (0, "") and "edge_bits" in out
    e, r = pd.read_csv("e.csv"), pd.read_csv("report/results.csv")
    pd.testing.assert_frame_equal(e, r[:3])
    assert r.correct_bias.tolist() == [False] + [True] * 4 and r.edge_bits.tolist() == [0] + [8] * 4
    assert r.inputs.tolist()[1:] == ["quantized"] * 4
    for facts in ("e.json", "report/results.json"):
        settings = json.loads((here / facts).read_text())["settings"]
        assert (
            settings["fold_batchnorm"],
            settings["correct_bias"],
            settings["edge_bits"],
            settings["inputs"],
        ) == (True, True, 8, "quantized")
    code, out, err = call(
        "evaluate digits {val} --stats s --selection s.json --bits 2 4:2 --fold-batchnorm --out"
        " plain.csv --workers 0",
        **vars(world),
    )
    assert (code, err) == (0, "") and "edge_bits" not in out
    assert (
        pd.read_csv("plain.csv").top5.tolist() + pd.read_csv("plain.csv").top1.tolist()
        != e.top5.tolist() + e.top1.tolist()
    )


def test_allow_leak(world, here):
    assert (
        call(
            "run digits {pool} {copy} -n 5 --bits 8 --random-seeds 0 --out x --workers 0"
            " --allow-leak",
            **vars(world),
        )[0]
        == 0
    )
    assert (
        call(
            "evaluate digits {leak} --stats {table} --selection {selection} --bits 8 --workers 0"
            " --allow-leak",
            **vars(world),
        )[0]
        == 0
    )


def test_allow_unreadable(world, here):
    """What cannot be decoded is listed in meta.json, and the rest is used."""
    code, out, err = call(f"stats digits {{broken}} --out s {S} --allow-unreadable", **vars(world))
    assert (code, err) == (0, "") and "60 images" in out and "2 unreadable" in out
    listed = json.loads((here / "s" / "meta.json").read_text())["unreadable"]
    assert [u["name"] for u in listed] == sorted(u["name"] for u in listed)
    assert {u["name"] for u in listed} == {"0/zero.png", "1/text.jpg"}
    assert all(u["reason"] for u in listed)
    assert call("select s -n 60")[0] == 0
    assert {i["index"] for i in json.loads((here / "selection.json").read_text())["images"]} == set(
        range(62)
    ) - {u["index"] for u in listed}
    assert (
        call(
            "run digits {broken} {val} -n 5 --bits 8 --random-seeds 1 --out x --workers 0"
            " --allow-unreadable",
            **vars(world),
        )[0]
        == 0
    )


def test_every_mode(here):
    """One image stored in every mode has one and the same row in the table."""
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    img = Image.fromarray(grey)
    palette = Image.frombytes("P", (32, 32), (255 - grey).tobytes())
    palette.putpalette(bytes(v for k in range(256) for v in [255 - k] * 3))
    turned = Image.Exif()
    turned[0x0112] = 6
    ink = Image.merge("CMYK", [Image.new("L", (32, 32), 0)] * 3 + [Image.fromarray(255 - grey)])
    (here / "modes").mkdir()
    for name, (image, options) in {
        "grey.png": (img, {}),
        "rgb.png": (img.convert("RGB"), {}),
        "rgba.png": (Image.merge("RGBA", [img, img, img, img.rotate(90)]), {}),
        "la.png": (Image.merge("LA", [img, img.rotate(90)]), {}),
        "palette.png": (palette, {}),
        "transparent.png": (palette, {"transparency": 3}),
        "alpha.png": (palette, {"transparency": bytes(range(256))}),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), {}),
        "deep.tif": (Image.fromarray(grey.astype(np.uint16) * 257), {}),
        "int.tif": (Image.fromarray(grey.astype(np.int32) * 257), {}),
        "float.tif": (Image.fromarray(grey.astype(np.float32)), {}),
        "cmyk.tif": (ink, {}),
        "turned.png": (img.rotate(90), {"exif": turned}),
        "UPPER.PNG": (img, {}),
        "grey.bmp": (img, {}),
        "grey.webp": (img, {"lossless": True}),
        "grey.pgm": (img, {}),
        "grey.gif": (img, {}),
    }.items():
        image.save(here / "modes" / name, **options)
    Image.fromarray(grey > 127).save(here / "modes" / "bilevel.png")
    img.convert("CMYK").save(here / "modes" / "cmyk.jpg")
    assert call(f"stats digits {{modes}} --out s {S}", modes=here / "modes")[1].startswith(
        "s: 20 images"
    )
    frame = load_table(here / "s").frame().set_index("name").drop(columns="index")
    same = frame.drop(index=["bilevel.png", "cmyk.jpg"])
    assert np.allclose(same, same.loc[["rgb.png"]].to_numpy(), rtol=1e-4, atol=1e-5), (
        same.sub(same.loc["rgb.png"]).abs().max(axis=1)
    )
    assert np.isfinite(frame.to_numpy()).all()
    assert not np.allclose(frame.loc["bilevel.png"], frame.loc["rgb.png"], rtol=1e-2)


def test_shards(world, here):
    """Shards are pools, too: Parquet and tar hold the same images and give the same numbers."""
    import tarfile
    import pyarrow as pa
    import pyarrow.parquet as pq
    paths = sorted(world.pool.rglob("*.png"))
    (here / "pq").mkdir()
    pq.write_table(
        pa.table(
            {
                "image": [dict(bytes=p.read_bytes(), path=p.name) for p in paths],
                "label": [int(p.parent.name) for p in paths],
            }
        ),
        here / "pq" / "a.parquet",
        row_group_size=7,
    )
    with tarfile.open(here / "a.tar", "w") as tar:
        for p in paths:
            tar.add(p, p.name)
    tables = []
    for k, pool in enumerate((world.pool, here / "pq", here / "a.tar")):
        assert call(f"stats digits {{p}} --out t{k} {S}", p=pool)[0] == 0
        tables.append(load_table(here / f"t{k}"))
    assert all(
        np.array_equal(t.stats, tables[0].stats)
        and t.digests.to_pylist() == tables[0].digests.to_pylist()
        for t in tables
    )
    assert tables[1].labels.tolist() == tables[0].labels.tolist() and tables[2].labels is None


def test_start_is_light():
    """`selectq --help` and `import selectq` load none of the heavy packages."""
    import subprocess
    heavy = ("torch", "numba", "pandas", "matplotlib", "pyarrow", "sklearn", "PIL")
    code = (
        "import sys, selectq, selectq.cli\ntry: selectq.cli.main(['--help'])\nexcept SystemExit as"
        f" e: assert e.code == 0\nprint('heavy:', [m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("heavy: []\n"), done.stdout[-200:] + done.stderr
