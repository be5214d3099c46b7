"""The explorer: its state, its files and its page in a real browser."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import call, one_line

pytest.importorskip("plotly", reason="plotly is not installed")
pytest.importorskip("anywidget", reason="anywidget is not installed")

from selectq.data import open_pool
from selectq.explorer import Explorer, explore, export_set
from selectq.explorer_state import QUICK, Choice, ExplorerState, edit_selection, load_picture
from selectq.explorer_state import picture_dict, python_lines, read_picture, strip, toggled
from selectq.files import InputError
from selectq.matching import match
from selectq.models import load_network
from selectq.ranking import load_selection, save_selection, select, select_random
from selectq.scoring import table_target
from selectq.strategies import STRATEGIES
from selectq.targets import TargetSettings, make_target, save_target
from selectq.traversal import collect

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run"
).split()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder with a table and a target of the digits; nothing in it may change."""
    root = tmp_path_factory.mktemp("explorer")
    net, pool = load_network("digits"), open_pool("digits")
    table = collect(net, pool, "input", out=root / "stats")
    settings = TargetSettings(sample=64, images=8)
    save_target(make_target(net, table, pool, "mse", 3, settings), root / "target.json")
    return root


def state_of(digits):
    return ExplorerState(digits / "stats", digits / "target.json")


# The state


def test_every_change_can_be_undone(digits):
    state = state_of(digits)
    rng, pictures = np.random.default_rng(0), [state.picture]
    names, labels = list(STRATEGIES), list(state.targets)
    for _ in range(40):
        kind = rng.integers(5)
        if kind == 0:
            state.choose(n=int(rng.integers(1, 40)))
        elif kind == 1:
            state.choose(strategy=names[rng.integers(len(names))])
        elif kind == 2:
            state.toggle(rng.integers(len(state.table), size=3))
        elif kind == 3:
            state.look(site=int(rng.integers(len(state.table.sites))))
        else:
            state.look(b=None if state.picture.b else Choice("random", target=labels[0], bits=3))
        if state.picture != pictures[-1]:
            pictures.append(state.picture)
        again = read_picture(
            json.loads(json.dumps(picture_dict(state.picture, state.table.sites))),
            state.table.sites,
        )
        assert again == state.picture
    for picture in pictures[-2::-1]:
        state.undo()
        assert state.picture == picture
    state.undo()  # nothing is left: nothing happens
    for picture in pictures[1:]:
        state.redo()
        assert state.picture == picture


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_exported_is_what_its_python_gives(digits, strategy, tmp_path, monkeypatch):
    state = state_of(digits)
    state.choose(strategy=strategy, n=7, seed=3)
    state.toggle(state.selection().index[:2])
    state.toggle([3], add=True)
    export_set(state, tmp_path / "set", open_pool("digits"))
    script = (tmp_path / "set" / "selection.py").read_text()
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "selection.py", "exec"), {})
    ours, theirs = (
        json.loads(p.read_text())
        for p in (tmp_path / "set" / "selection.json", tmp_path / "selection.json")
    )
    assert ours.pop("explorer")["a"]["strategy"] == strategy
    assert ours == theirs
    names = [i["name"] for i in ours["images"]]
    assert (tmp_path / "set" / "selection.txt").read_text().split() == names
    assert len(list((tmp_path / "set" / "images").iterdir())) == len(names)


def test_a_picture_is_reached_again(digits, tmp_path):
    state = state_of(digits)
    state.choose(strategy="match", n=5)
    state.toggle([9])
    state.look(b=Choice("random", 12, rule="mean"), plane="two-sites", site=3, other=6)
    export_set(state, tmp_path / "set")
    files = digits / "stats", None, digits / "target.json"
    again = explore(*files, start=tmp_path / "set" / "selection.json")
    assert again.state.picture == state.picture
    assert [list(again.state.selection(s).index) for s in "ab"] == [
        list(state.selection(s).index) for s in "ab"
    ]
    with pytest.raises(InputError, match="no picture"):
        plain = tmp_path / "plain.json"
        save_selection(select_random(state.table, 3), plain)
        load_picture(plain, state.table)


def test_edits_leave_the_rest_alone(digits):
    table = state_of(digits).table
    base = select(table, 10)
    assert edit_selection(table, base, [base.index[0]], [5000]) is base
    with pytest.raises(InputError, match="no image is left"):
        edit_selection(table, base, (), base.index)
    with pytest.raises(InputError, match="not in the table"):
        edit_selection(table, base, [10**6])
    choice = toggled(Choice(), [1, 2, 3], [2])
    assert (choice.added, choice.removed) == ((1, 3), (2,))
    assert toggled(choice, [1, 2, 3], [1, 3]) == Choice()


def test_a_refused_change_changes_nothing(digits):
    state = state_of(digits)
    for wrong in (dict(n=0), dict(target="none"), dict(bits=4), dict(strategy="best")):
        before, many = state.picture, len(state.done)
        with pytest.raises(InputError):
            state.choose(**wrong)
        assert state.picture is before and len(state.done) == many
    with pytest.raises(InputError, match="not in the table"):
        state.toggle([10**6])


def test_without_a_target_or_a_pool(digits):
    app = explore(digits / "stats")
    app.choice["strategy"].value = "match"
    assert app.state.selection().settings["objective"] == "log"
    assert not strip(app.state).exact
    plain = table_target(app.state.table)
    found = match(app.state.table, plain, 10, settings=QUICK)
    assert (found.index == app.state.selection().index).all()
    page = app.cards["a"].value
    assert "<img" not in page and found.names[0] in page


def test_sessions_share_nothing_and_memory_stays(digits):
    one, two = (Explorer(state_of(digits)) for _ in range(2))
    for k in range(6):
        one.choice["n"].value = 5 + k
        one.seen["site"].value = 2 + k
    assert two.state.picture == state_of(digits).picture
    s = one.state
    for k in range(220):
        s.choose(strategy="random", n=5 + k % 50)
        s.look(site=k % 10)
        strip(s)
    assert len(s.done) == 200 and len(s._sets) <= s._sets.most and len(s._seen) <= s._seen.most


def test_other_images_are_refused(digits, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    open_pool("digits").image(0).save(few / "0.png")
    with pytest.raises(InputError, match="give the pool of the table"):
        explore(digits / "stats", few)


def test_an_export_is_whole_or_not_there(digits, tmp_path):
    class Broken:
        def image(self, i):
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        export_set(state_of(digits), tmp_path / "set", Broken())
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    with pytest.raises(InputError, match="there already"):
        export_set(state_of(digits), tmp_path / "full")


def test_the_command_refuses_before_a_browser_opens(digits, tmp_path):
    where = dict(stats=digits / "stats", none=tmp_path / "none")
    one_line(call("explore {none}", **where), "no statistics table")
    one_line(call("explore {stats} --target {none}", **where), "no target")
    one_line(call("explore {stats} --start {none}", **where), "no picture")
    one_line(call("explore {stats} --theme blue", **where), "light or dark")


# The page


def chromium():
    """Where a Chromium is, or None."""
    names = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def served(digits, folder):
    """`selectq explore` at a free port, run in a folder; its address."""
    stats, target = (os.path.relpath(digits / name, folder) for name in ("stats", "target.json"))
    words = [sys.executable, "-m", "selectq.cli", "explore", stats, "--no-browser"]
    words += ["--pool", "digits", "--target", target]
    log = open(folder / "log", "w+")
    process = subprocess.Popen(
        words, cwd=folder, stdout=log, stderr=log, text=True, start_new_session=True
    )
    try:
        yield address_of(process, Path(log.name))
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def address_of(process, log, seconds=120):
    """The address that the command says, once something answers there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        said = [w for w in log.read_text().split() if w.startswith("http://")]
        try:
            urllib.request.urlopen(f"{said[0]}voila/static/none").close()
        except urllib.error.HTTPError:
            return said[0]
        except (IndexError, OSError):
            time.sleep(0.2)
    raise AssertionError(log.read_text())


class Page:
    """One visitor."""

    def __init__(self, browser, address):
        self.errors, self.others = [], []
        self.page = browser.new_context(viewport=dict(width=1400, height=1000)).new_page()
        self.page.set_default_timeout(90_000)
        self.page.on("console", self.heard)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        here = address.split("?")[0]
        self.page.on("request", lambda r: self.asked(r.url, here))
        self.page.goto(address)
        self.page.get_by_role("button", name="Undo").wait_for()
        self.page.wait_for_function(
            "() => document.querySelectorAll('.sq-app .js-plotly-plot .main-svg').length > 5"
        )

    def heard(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def asked(self, url, address):
        if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:")):
            self.others.append(url)

    def field(self, label):
        return self.page.get_by_label(label, exact=True)

    def shows(self, text):
        self.page.get_by_text(text).first.wait_for()

    def says(self, text, there):
        """Wait until the lines of Python hold a text, or do not."""
        self.page.wait_for_function(
            """([text, there]) =>
            document.querySelector('.sq-app textarea').value.includes(text) === there""",
            arg=[text, there],
        )

    def images(self, side="A"):
        """The number that stands above the thumbnails."""
        text = self.page.locator(".sq-middle h2", has_text=f"Set {side}").inner_text()
        return int(text.split(": ")[1].split()[0])

    def point(self, k):
        """Where image `k` is on the screen."""
        return self.page.evaluate(
            """k => { const g = document.querySelector('.sq-middle .js-plotly-plot'),
            l = g._fullLayout, b = g.getBoundingClientRect(), d = g._fullData[0],
            x = d.x, y = d.y;
            return [b.left + l.xaxis._offset + l.xaxis.l2p(x[k]),
            b.top + l.yaxis._offset + l.yaxis.l2p(y[k])]; }""",
            k,
        )


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    pytest.importorskip("voila", reason="voila is not installed")
    if chromium() is None:
        pytest.skip("no Chromium is found; install chromium, or name one in CHROMIUM")
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=chromium(), args=FLAGS, headless=True)
        yield found
        found.close()


def alone(state):
    """An image far from all others on the scatter, and not in the set."""
    xy = state.table.stats[:, state.picture.site, :2].astype(float)
    xy = (xy - xy.min(0)) / np.ptp(xy, axis=0)
    gap = ((xy[:, None] - xy) ** 2).sum(2)
    np.fill_diagonal(gap, 9)
    gap = gap.min(1)
    gap[state.rows()] = 0
    return int(gap.argmax())


def test_a_visit(digits, browser, tmp_path):
    state = state_of(digits)
    with served(digits, tmp_path) as address:
        page = Page(browser, address)
        assert page.page.title()
        # a slider by keyboard
        page.page.get_by_role("slider", name="Images").focus()
        for n in (11, 12):
            page.page.keyboard.press("ArrowRight")
            page.shows(f": {n} images")
        # another site
        page.field("Site").select_option("features.stage2.unit1.body.conv1.conv")
        page.shows("value at features.stage2.unit1.body.conv1.conv")
        state.choose(n=11), state.choose(n=12)
        state.look(site=state.table.sites.index("features.stage2.unit1.body.conv1.conv"))
        # pointing at an image, and a click on it
        k = alone(state)
        page.page.mouse.move(*page.point(k), steps=4)
        page.shows(f"{state.table.names[k].as_py()}, image {state.table.index[k]}")
        page.page.mouse.click(*page.point(k))
        page.shows(": 13 images, 1 changed by hand")
        # a change, and back
        page.field("Seed").fill("4")
        page.field("Seed").press("Enter")
        page.says("seed=4", True)
        page.page.get_by_role("button", name="Undo").click()
        page.says("seed=4", False)
        state.toggle([int(state.table.index[k])])
        # what cannot be used is said
        page.field("Image").fill("nobody")
        page.page.get_by_role("button", name="Add", exact=True).click()
        page.shows("no image is called 'nobody'")
        # somebody else sees nothing of it
        other = Page(browser, address)
        assert other.images() == 10 and page.images() == 13
        # export
        page.field("Folder").fill("taken")
        page.page.get_by_role("button", name="Export").click()
        page.shows("written: ")
        made = json.loads((tmp_path / "taken" / "selection.json").read_text())
        assert made.pop("explorer") == json.loads(
            json.dumps(picture_dict(state.picture, state.table.sites))
        )
        save_selection(state.selection(), tmp_path / "python.json")
        assert made == json.loads((tmp_path / "python.json").read_text())
        chosen = load_selection(tmp_path / "taken" / "selection.json", state.table)
        assert int(state.table.index[k]) in chosen.index
        assert len(list((tmp_path / "taken" / "images").iterdir())) == 13
        there = os.path.relpath(digits / "stats", tmp_path)
        script = (tmp_path / "taken" / "selection.py").read_text()
        assert python_lines(state).replace(str(digits / "stats"), there) == script
        # nothing from elsewhere, no error, and it fits
        for p in (page, other):
            assert not p.others and not p.errors, (p.others, p.errors)
        for width in (1400, 800):
            page.page.set_viewport_size(dict(width=width, height=1000))
            assert page.page.evaluate("document.documentElement.scrollWidth") <= width
