"""Take the pictures of the explorer's page: the digits in a real browser, written to nbs/images/.

    python scripts/explorer_pictures.py

It needs the extra `explorer`, Playwright's Python package and a Chromium.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import test_explorer as helpers  # the visitor of the tests

from selectq.data import open_pool
from selectq.models import load_network
from selectq.targets import make_target, save_target
from selectq.traversal import collect

MOST = 60_000  # bytes of a picture


def save(png, name):
    """Write a picture as wide as its budget allows."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for width in range(image.width, 400, -100):
        size = (width, round(image.height * width / image.width))
        small, sheet = io.BytesIO(), image.resize(size, Image.Resampling.LANCZOS)
        octree = sheet.quantize(96, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        octree.save(small, "png", optimize=True)
        if small.tell() <= MOST:
            break
    path = ROOT / "nbs" / "images" / f"explorer_{name}.png"
    path.write_bytes(small.getvalue())
    print(f"{path.name}: {size[0]} x {size[1]}, {small.tell():,} bytes")


def shoot(page, name, width=1400, height=1000):
    """A picture of what a visitor sees."""
    page.page.set_viewport_size(dict(width=width, height=height))
    page.page.wait_for_timeout(3000)
    save(page.page.screenshot(), name)


def visit(browser, folder):
    """The states that the gallery shows."""
    with helpers.served(folder, folder) as address:
        page = helpers.Page(browser, address)
        shoot(page, "selectq")
        k = helpers.alone(helpers.state_of(folder))
        page.page.mouse.move(*page.point(k), steps=4)
        page.shows("the median range at")
        page.page.mouse.click(*page.point(k))
        page.shows("changed by hand")
        page.page.mouse.move(700, 20)
        shoot(page, "by_hand")
        page.page.get_by_role("button", name="Undo").click()
        page.field("Strategy").select_option("match")
        page.says("match(", True)
        page.field("Rounds").fill(helpers.SLOW)
        page.field("Rounds").press("Enter")
        page.shows("choosing 10 images with match")
        shoot(page, "slow")
        page.page.get_by_role("button", name="Undo").click()
        page.page.get_by_role("button", name="Undo").click()
        page.says("match(", False)
        page.page.get_by_label("two sets side by side").check()
        page.page.get_by_role("button", name="set B").wait_for()
        page.field("Strategy").select_option("match")
        page.field("Site").select_option("features.stage3.unit1.body.conv2.conv")
        page.shows("value at features.stage3.unit1.body.conv2.conv")
        shoot(page, "two_sets")
        shoot(page, "narrow", 800, 1100)
        dark = helpers.Page(browser, address + "?theme=dark")
        dark.field("Strategy").select_option("match")
        dark.page.wait_for_timeout(3000)
        shoot(dark, "dark")
        for p in (page, dark):
            print(p.errors, p.others)


def main():
    with tempfile.TemporaryDirectory() as tmp:
        folder, net, pool = Path(tmp), load_network("digits"), open_pool("digits")
        table = collect(net, pool, "input", out=folder / "stats")
        save_target(make_target(net, table, pool, "mse", 3), folder / "target.json")
        with sync_playwright() as p:
            where = helpers.chromium()
            browser = p.chromium.launch(executable_path=where, args=helpers.FLAGS, headless=True)
            visit(browser, folder)
            browser.close()


if __name__ == "__main__":
    main()
