"""The explorer: its state, its files and its page in a real browser."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import call, one_line

pytest.importorskip("plotly", reason="plotly is not installed")
pytest.importorskip("anywidget", reason="anywidget is not installed")

from selectq import explorer_jobs
from selectq.clustering import SelectQSettings
from selectq.data import open_pool
from selectq.explorer import Explorer, explore, export_set
from selectq.explorer_jobs import Chooser, Job
from selectq.explorer_state import QUICK, Choice, ExplorerState, edit_selection, load_picture
from selectq.explorer_state import picture_dict, python_lines, read_picture, strip, toggled
from selectq.files import InputError
from selectq.matching import MatchSettings, match
from selectq.models import load_network
from selectq.ranking import load_selection, save_selection, select, select_random
from selectq.scoring import table_target
from selectq.strategies import STRATEGIES, choose_images
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
    app.controls.choice["strategy"].value = "match"
    assert app.state.selection().settings["objective"] == "log"
    assert not strip(app.state).exact
    plain = table_target(app.state.table)
    found = match(app.state.table, plain, 10, settings=QUICK)
    assert (found.index == app.state.selection().index).all()
    page = app.shelves.children[0].cards.value
    assert "<img" not in page and found.names[0] in page


def test_sessions_share_nothing_and_memory_stays(digits):
    one, two = (Explorer(state_of(digits)) for _ in range(2))
    for k in range(6):
        one.controls.choice["n"].value = 5 + k
        one.controls.view["site"].value = 2 + k
    assert two.state.picture == state_of(digits).picture
    s = one.state
    for k in range(220):
        s.choose(strategy="random", n=5 + k % 50)
        s.look(site=k % 10)
        strip(s)
    assert len(s.done) == 200 and len(s._sets) <= s._sets.most and len(s._seen) <= s._seen.most


# Choices that take long


class Gate:
    """Stands in for the function that chooses: it waits until it is opened."""

    def __init__(self, monkeypatch):
        self.opened, self.begun, self.real = threading.Event(), [], explorer_jobs.chosen_by
        monkeypatch.setattr(explorer_jobs, "chosen_by", self)
        monkeypatch.setattr(explorer_jobs, "GRACE", 0.0)

    def __call__(self, state, choice):
        self.begun.append(choice.n)
        while not self.opened.wait(0.001):
            pass
        if choice.n == 13:
            raise MemoryError("no room\nfor it")
        return self.real(state, choice)


def visited(digits, visit):
    """Run a visit of a chooser in an event loop; what was said."""

    async def run():
        came = asyncio.Queue()
        state = state_of(digits)
        chooser = Chooser(state, lambda said, wrong: came.put_nowait((said, wrong)))
        await asyncio.wait_for(visit(state, chooser, came.get), 120)
        return came.qsize()

    return asyncio.run(run())


def test_a_newer_choice_voids_the_older(digits, monkeypatch):
    gate = Gate(monkeypatch)

    async def visit(state, chooser, came):
        before = state.picture
        chooser.choose(strategy="kmeans", n=20)
        older = chooser.job
        chooser.choose(n=21)  # of the same choice: still k-means
        assert older.stopped and chooser.job is not older
        assert chooser.choice().n == 21 and chooser.choice().strategy == "kmeans"
        assert state.picture is before and chooser.words() == "choosing 21 images with kmeans …"
        newer = chooser.job
        chooser.look(plane="min-max")  # at once, and nothing is begun anew
        assert state.picture.plane == "min-max" and chooser.job is newer and not newer.stopped
        state.toggle([int(state.table.index[5])], add=True)
        gate.opened.set()
        assert await came() == ("chosen: 21 images with kmeans", False)
        assert older.wait(60)
        alone = choose_images(state.table, "kmeans", 21)
        assert list(state.selection().index) == [*alone.index, state.table.index[5]]
        assert len(state.done) == 3 and state.picture.plane == "min-max"
        state.undo(), state.undo(), state.undo()
        assert state.picture == before

    assert visited(digits, visit) == 0  # nothing else was said: the older one is void


def test_a_set_that_came_too_late_is_void(digits, monkeypatch):
    gate = Gate(monkeypatch)

    async def visit(state, chooser, came):
        chooser.choose(n=20)
        gate.opened.set()
        chooser.job._thread.join(60)  # it is there, and the event loop has not heard of it
        gate.opened.clear()
        chooser.choose(n=21)
        newer = chooser.job
        threading.Timer(0.5, gate.opened.set).start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert chooser.job is newer and state.picture.choice.n == 10
        assert await came() == ("chosen: 21 images with selectq", False)
        assert len(state.selection()) == 21

    assert visited(digits, visit) == 0


def test_what_is_under_way_can_be_given_up(digits, monkeypatch):
    gate = Gate(monkeypatch)

    async def visit(state, chooser, came):
        before = state.picture
        chooser.choose(strategy="facility")
        job = chooser.job
        chooser.undo()
        assert job.stopped and chooser.job is None and not chooser.words()
        assert state.picture is before and chooser.choice() == before.choice
        assert job.wait(60)  # the thread has ended, though the gate is shut
        chooser.choose(n=13)
        gate.opened.set()
        assert await came() == ("MemoryError: no room for it", True)
        assert state.picture is before and chooser.choice() == before.choice
        with pytest.raises(InputError, match="n=0"):
            chooser.choose(n=0)
        assert chooser.job is None and not chooser.pending

    assert visited(digits, visit) == 0


def test_both_sides_can_be_under_way(digits, monkeypatch):
    gate = Gate(monkeypatch)

    async def visit(state, chooser, came):
        chooser.choose(strategy="kcenter")
        chooser.look(b=Choice("random", target=state.picture.a.target, bits=3), side="b")
        chooser.choose(strategy="herding", n=6)
        assert chooser.words() == "choosing 10 images with kcenter and 6 images with herding …"
        chooser.look(b=None, side="a")
        assert chooser.words() == "choosing 10 images with kcenter …"
        chooser.look(b=Choice("random", target=state.picture.a.target, bits=3), side="b")
        chooser.choose(strategy="herding", n=6)
        gate.opened.set()
        await came()
        assert [state.selection(s).strategy for s in "ab"] == ["kcenter", "herding"]

    assert visited(digits, visit) == 0


def test_undo_of_a_set_that_is_forgotten_waits_for_it(digits, monkeypatch):
    gate = Gate(monkeypatch)

    async def visit(state, chooser, came):
        state.choose(strategy="herding")
        first = state.picture
        state.choose(strategy="random")
        state._sets.clear()
        state.selection()
        chooser.undo()
        assert chooser.words() and state.picture.choice.strategy == "random"
        gate.opened.set()
        await came()
        assert state.picture == first and len(state.undone) == 1

    visited(digits, visit)


def test_a_closed_application_stops(digits, monkeypatch):
    gate = Gate(monkeypatch)

    async def visit(state, chooser, came):
        app = Explorer(state)
        app.controls.choice["strategy"].value = "kcenter"
        job = app.chooser.job
        assert "choosing" in app.head.line.value
        app.take.button.click()
        assert "is not there yet" in app.head.line.value and "choosing" in app.head.line.value
        app.close()
        assert job.wait(60) and job.stopped

    visited(digits, visit)
    assert gate.begun == [10]


def test_outside_of_an_event_loop_a_set_is_there_at_once(digits, monkeypatch):
    monkeypatch.setattr(explorer_jobs, "GRACE", 0)  # a thread, if there were one, would be late
    app = Explorer(state_of(digits))
    app.controls.choice["strategy"].value = "match"
    app.controls.match["rounds"].value = 20
    target = app.state.target()
    search = MatchSettings(passes=1, rounds=20, candidates=2000)
    alone = match(app.state.table, target, 10, settings=search)
    assert list(app.state.selection().index) == list(alone.index) and app.chooser.job is None


def test_a_job_says_what_failed_and_can_be_stopped_before_it_begins():
    with pytest.raises(InputError, match="ZeroDivisionError"):
        Job(lambda: 1 / 0).result()
    shut, ran = threading.Event(), []
    job = Job(lambda: ran.append(1), ran.append, first=shut.wait)
    job.stop()
    shut.set()
    assert job.wait(60)
    job._thread.join(60)
    assert not ran and not job._thread.is_alive()


def test_every_setting_of_selectq_and_match_reaches_the_set(digits):
    app = Explorer(state_of(digits))
    s, controls = app.state, app.controls
    given = dict(update="shift", order="lowest", centroids=7, gamma=0.5, lambda_max=0.2)
    given |= dict(lambda_min=0.01, granularity="batch", batch_size=50, shuffle=False)
    given |= dict(distance="cosine", initialisation="images", score_sites="!*stage1*")
    assert set(given) == set(controls.selectq)
    for k, (field, value) in enumerate(given.items()):
        controls.selectq[field].value = value
        so_far = SelectQSettings(**dict(list(given.items())[: k + 1]))
        assert list(s.selection().index) == list(select(s.table, 10, so_far).index), field
    controls.choice["strategy"].value = "match"
    search = dict(candidates=300, passes=2, rounds=3)
    for field, value in search.items():
        controls.match[field].value = value
    assert controls.match["search"].value == "own"
    controls.match["objective"].value = "error"
    alone = match(s.table, s.target(), 10, objective="error", settings=MatchSettings(**search))
    assert list(s.selection().index) == list(alone.index)
    assert "objective='error'" in python_lines(s)
    controls.match["objective"].value = ""
    assert s.picture.choice.objective is None
    controls.match["search"].value = QUICK
    assert controls.match["rounds"].value == 0
    hidden = {
        name: [f for f in ("n", "seed") if controls.choice[f].layout.display == "none"]
        for name in ("random", "first", "herding", "one-per-class", "facility")
        if setattr(controls.choice["strategy"], "value", name) is None
    }
    assert hidden == {
        "random": [],
        "first": ["seed"],
        "herding": ["seed"],
        "one-per-class": ["n"],
        "facility": ["seed"],
    }


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


def kernels_of(folder):
    """Processes that run the page's notebook for visitors, from a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if "ipykernel_launcher" in (process.info["cmdline"] or []):
                found += [process] * (Path(process.cwd()) == folder)
    return found


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

    def has(self, label, value):
        """Wait until a field holds a value."""
        self.page.wait_for_function(
            "([e, value]) => e.value === value", arg=[self.field(label).element_handle(), value]
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


SLOW = "9999999"  # rounds that nobody waits for


def test_a_slow_choice_leaves_the_page_answering(digits, browser, tmp_path):
    state = state_of(digits)
    with served(digits, tmp_path) as address:
        page = Page(browser, address)
        status = page.page.get_by_role("status")
        busy = status.locator(".sq-busy")
        page.field("Strategy").select_option("match")
        page.says("match(", True)
        # rounds without an end: said at once, and the rest of the page goes on
        page.field("Rounds").fill(SLOW)
        page.field("Rounds").press("Enter")
        busy.get_by_text("choosing 10 images with match").wait_for()
        page.field("Site").select_option("features.stage2.unit1.body.conv1.conv")
        page.shows("value at features.stage2.unit1.body.conv1.conv")
        page.page.get_by_role("button", name="Export").click()
        status.get_by_text("is not there yet").wait_for()
        busy.wait_for()
        page.says(SLOW, False)
        # undo gives it up
        page.page.get_by_role("button", name="Undo").click()
        busy.wait_for(state="detached")
        page.has("Rounds", "0")
        # a newer choice voids it: this one comes
        page.field("Rounds").fill(SLOW)
        page.field("Rounds").press("Enter")
        busy.get_by_text("choosing 10 images with match").wait_for()
        page.field("Rounds").fill("41")
        page.field("Rounds").press("Enter")
        page.says("rounds=41", True)
        busy.wait_for(state="detached")
        page.page.get_by_role("button", name="Export").click()
        page.shows("written: ")
        search = MatchSettings(passes=1, rounds=41, candidates=2000)
        alone = match(state.table, state.target(), 10, settings=search)
        taken = load_selection(tmp_path / "selected" / "selection.json", state.table)
        assert list(taken.index) == list(alone.index)
        # a session that is over ends, whatever it was choosing
        page.field("Rounds").fill(SLOW)
        page.field("Rounds").press("Enter")
        busy.get_by_text("choosing 10 images with match").wait_for()
        kernels = kernels_of(tmp_path)
        assert len(kernels) == 1 and not page.errors, page.errors
        page.page.close(run_before_unload=True)
        psutil.wait_procs(kernels, 60)
        assert not kernels_of(tmp_path)


def test_settings_of_selectq_on_the_page(digits, browser, tmp_path):
    state = state_of(digits)
    with served(digits, tmp_path) as address:
        page = Page(browser, address)
        page.field("Batch size").fill("64")
        page.field("Batch size").press("Enter")
        page.says("batch_size=64", True)
        page.page.get_by_label("Shuffle the pool").uncheck()
        page.says("shuffle=False", True)
        page.field("Begin at").select_option("images")
        page.says("initialisation='images'", True)
        page.page.get_by_role("button", name="Export").click()
        page.shows("written: ")
        given = SelectQSettings(batch_size=64, shuffle=False, initialisation="images")
        taken = load_selection(tmp_path / "selected" / "selection.json", state.table)
        assert list(taken.index) == list(select(state.table, 10, given).index)
        # a field without an effect is not there, and every other one has a name
        page.field("Strategy").select_option("first")
        page.says("'first'", True)
        for label in ("Seed", "Batch size", "Rounds", "Second site"):
            page.field(label).wait_for(state="hidden")
        unnamed = page.page.evaluate(
            """() => [...document.querySelectorAll(`.sq-app input, .sq-app select,
            .sq-app textarea, .sq-app button, .sq-app [role=slider]`)].filter(e => e.offsetParent &&
            !e.labels?.length && !e.ariaLabel && !e.textContent.trim() && !e.title)
            .map(e => e.outerHTML)"""
        )
        assert not unnamed and not page.errors
