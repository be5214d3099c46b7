"""`selectq score` as a user runs it."""
import re
import sys
from pathlib import Path

import pytest
from conftest import call, one_line
from forked import Forked

from selectq.data import open_pool


@pytest.fixture(scope="module")
def target(world, tmp_path_factory):
    """A target of the world's table."""
    path = tmp_path_factory.mktemp("target") / "target.json"
    command = "target digits {pool} --stats {table} --bits 4 --out " + str(path)
    code, _, err = call(command, **vars(world))
    assert code == 0, err
    return path


def test_a_selection_a_folder_and_a_list_of_the_same_images_have_one_score(world, target, here):
    code, out, err = call("select {table} -n 8 --strategy random --out mine.json", **vars(world))
    assert code == 0, err
    pool, names = open_pool(world.pool), []
    import json
    for image in json.loads((here / "mine.json").read_text())["images"]:
        names.append(image["name"])
        (here / "folder").mkdir(exist_ok=True)
        (here / "folder" / f"{len(names)}.png").write_bytes(pool.content(image["index"]))
    (here / "list.txt").write_text("\n".join(names) + "\n")
    command = f"score {{table}} mine.json folder list.txt --target {target} --html page.html"
    code, out, err = call(command, **vars(world))
    assert (code, err) == (0, "")
    errors = re.findall(r"predicted error of the set (\S+),", out)
    assert len(errors) == 3 and len(set(errors)) == 1
    assert max(len(line) for line in out.splitlines()) <= 80
    pages = [(here / f"page-{k}.html").read_text() for k in (1, 2, 3)]
    assert all("<script" not in p and 'src="http' not in p for p in pages)
    assert pages[1].count("data:image/jpeg") == 8  # thumbnails of the folder's files


def test_without_a_target_it_says_so(world, here):
    code, out, err = call("score {table} {selection}", **vars(world))
    assert code == 0, err
    assert out.startswith("No --target: ")


def test_images_of_the_validation_set_are_named(world, target, here):
    code, out, err = call(f"score {{table}} {{few}} --target {target} --model digits --val {{val}}",
                          **vars(world))
    assert code == 0, err
    assert "also in the validation set" in " ".join(out.split())


@pytest.mark.parametrize("command, words", {
    "score {table} {flat}": ("not in the table", "--model"),
    "score {table} nowhere.json": ("nowhere.json",),
    "score {table} nowhere": ("nowhere", "is not there"),
    "score {table} {junk}": ("no selection",),
    "score {table} {strange}": ("select again",),
    "score {table} {selection} --rule median": ("median",),
    "score {table} {selection} --target {junk}": ("no target",),
    "score {incomplete} {selection}": ("not complete",),
}.items())
def test_what_cannot_be_scored_is_refused_in_one_line(world, here, command, words):
    one_line(call(command, **vars(world)), *words)
    assert not list(here.iterdir())


def test_the_published_files_come_from_a_script_that_runs_and_goes_on(tmp_path):
    """Fifty sets on the digits, predicted and measured; a second run adds none."""
    scripts = Path(__file__).parents[1] / "scripts"
    command = [sys.executable, scripts / "score.py", "--networks", "digits",
               "--out", tmp_path, "--tables", tmp_path / "tables"]
    files = [tmp_path / "score.csv", tmp_path / "score_predicted.csv"]
    for _ in range(2):
        process = Forked(command)
        out, err = process.communicate(300)
        assert process.returncode == 0, err
        counts = [len(path.read_text().splitlines()) for path in files]
        assert counts == [52, 51]
