"""The figures in README.md are those of the result files."""
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = {"ResNet-20": "resnet20_cifar10", "SE-ResNet-20": "seresnet20_cifar10",
         "MobileNetV2, small": "mobilenetv2_cifar10", "MENet-128": "menet128_8x1_g4"}


def rows(columns):
    """The rows of the tables with so many columns that begin with a network."""
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in README.splitlines()
             if line.startswith("|")]
    return [c for c in cells if c[0] in NAMES and c[1].startswith("W") and len(c) == columns]


def words(values):
    """Mean and spread; no spread where all sets gave the same."""
    mean = f"{values.mean():.1f}"
    return mean if values.nunique() == 1 else f"{mean} ± {values.std():.1f}"


def test_sets_that_clip():
    """The table of matched and crafted images."""
    results = pd.read_csv(ROOT / "results/clipping.csv")
    results = results[(results.rule != "mean") & results.objective.isin(["influence", None])
                      | results.objective.isna() & (results.rule != "mean")]
    found = [c for c in rows(6) if "±" not in "".join(c) and c[1] in ("W3A3", "W5A5")]
    found = [c for c in found if float(c[5]) < 80]
    assert len(found) == 4
    for network, bits, *figures in found:
        part = results[results.network == NAMES[network]]
        sets = part.strategy + " " + part.n.map("{:g}".format)
        means = [part.top1[sets == s].mean() for s in ("random 10", "match 10", "craft 8")]
        target = part[(part.strategy == "range") & (part.ranges == "mse")]
        assert set(target.w_bits) == {int(bits[1])}
        assert figures == [f"{v:.1f}" for v in (*means, target.top1.iloc[0])]


@pytest.mark.parametrize("row", [c for c in rows(6) if "±" in c[3]], ids=lambda c: " ".join(c[:2]))
def test_selectq_beside_random(row):
    """The table of SelectQ: fifty random sets, five traversals."""
    results = pd.read_csv(ROOT / "results/fig2.csv")
    part = results[results.network == NAMES[row[0]]]
    at = part[part.w_bits == int(row[1][1])]
    groups = [at[at.strategy == "balanced"], at[at["update"] == "additive"],
              at[at["update"] == "shift"]]
    assert [len(g) for g in groups] == [50, 5, 5]
    full = part[part.strategy == "float"].top1.iloc[0]
    assert row[2:] == [f"{full:.1f}", *(words(g.top1) for g in groups)]


def test_sentences():
    """How many sets and images the two tables rest on, and their standard error."""
    clip = pd.read_csv(ROOT / "results/clipping.csv")
    clip = clip[(clip.strategy == "random") & (clip.n == 10) & (clip.rule != "mean")]
    sets, images = (clip.groupby("network")[c].agg(f) for c, f in (("seed", "nunique"),
                                                                   ("images", "first")))
    menet, many = sets.index == NAMES["MENet-128"], sets.unique().item()
    pictures = images[~menet].unique().item(), images[menet].item()
    said = (f"mean of {many} random sets of ten, on {pictures[0]:,} CIFAR-10 and "
            f"{pictures[1]} ImageNet images")
    assert said in README
    fig2 = pd.read_csv(ROOT / "results/fig2.csv").query("images == 10_000")
    errors = f"{fig2.se.min():.1f} to {fig2.se.max():.1f}"
    assert (f"top-1 on {10_000:,} CIFAR-10 images (standard error {errors}), fifty random sets "
            "and five traversals") in README


def test_what_it_takes():
    """Minutes of traversals, and the accuracies beside them."""
    found = [[c.strip() for c in line.strip("|").split("|")] for line in README.splitlines()
             if line.startswith("| 2 CPU cores |") and "make demo" not in line]
    seconds = pd.read_csv(ROOT / "results/traversal_seconds.csv").set_index("network").seconds
    clip = pd.read_csv(ROOT / "results/clipping.csv").query("n == 10 and rule != 'mean'")
    for name, minutes, expect in ((c[1].split(", ")[-1], *c[2:]) for c in found[:2]):
        assert minutes == f"{seconds[NAMES[name]] / 60:.1f}"
        part = clip[clip.objective.isin(["influence", float("nan")])]
        part = part[part.network == NAMES[name]]
        match, random = (part[part.strategy == s].top1.mean() for s in ("match", "random"))
        assert expect.split(": ")[1] == f"{match:.1f}, random {random:.1f}"
    speed = pd.read_csv(ROOT / "results/benchmarks_statistics.csv").statistics_images_per_s[0]
    minutes = f"{round(1_281_167 / speed / 60, -1):.0f}"
    assert found[2][2] == f"{minutes}, from {speed:.0f} images a second"
    assert len(found) == 3


def test_integer_models():
    """The figures of integer models stand in the paragraph below the first table."""
    rows = pd.read_csv(ROOT / "results/integer_models.csv")

    def top1(network, tool, strategy, n, bits):
        part = rows[(rows.network == NAMES[network]) & (rows.tool == tool) & (rows.n == n)]
        return f"{part[(part.strategy == strategy) & (part.a_bits == bits)].top1.mean():.1f} %"

    four = ("MobileNetV2, small", "onnxruntime")
    assert (f"ten matched images give MobileNetV2 {top1(*four, 'match', 10, 4)}, ten random ones "
            f"{top1(*four, 'random', 10, 4)} on average") in README
    six = ("MENet-128", "onnxruntime")
    assert (f"at W6A6 they give MENet-128 {top1(*six, 'match', 10, 6)}, random ones "
            f"{top1(*six, 'random', 10, 6)}") in README
    lite = ("MENet-128", "litert")
    assert (f"a hundred matched images give MENet-128 {top1(*lite, 'match', 100, 8)}, random ones "
            f"{top1(*lite, 'random', 100, 8)}") in README
