"""What people give by mistake: each gets one clear line, and no quiet wrong number."""
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selectq.data import PartPool, open_pool
from selectq.evaluation import bit_pairs, evaluate
from selectq.files import InputError, Notice, written_aside
from selectq.images import Preprocess
from selectq.info import extreme_images
from selectq.models import DIGITS_PREPROCESS, as_network, check_size
from selectq.ranking import select
from selectq.sites import coverage, find_sites
from selectq.traversal import collect


class Functional(nn.Module):
    """One ReLU module beside functional ones, and a hard-swish written out."""
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.c = nn.ModuleList([nn.Conv2d(3, 6, 3), *(nn.Conv2d(6, 6, 3) for _ in range(3))])
        self.relu, self.fc = nn.ReLU(), nn.Linear(6, 10)

    def forward(self, x):
        x = self.relu(self.c[0](x))
        x = torch.relu_(self.c[1](x))
        x = F.hardswish(self.c[2](x))
        x = self.c[3](x)
        return self.fc((x * F.relu6(x + 3) / 6).mean((2, 3)))


@pytest.fixture(scope="module")
def w():
    """A network without papers, 40 images as a loader gives them, labels, a table, a set."""
    net, g = Functional().eval(), torch.Generator().manual_seed(0)
    images, val = (torch.randn(40, 3, 12, 12, generator=g) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        table = collect(net, images.split(8), noise=12)
    return SimpleNamespace(net=net, images=images, val=val, labels=torch.arange(40) % 10,
                           table=table, set=select(table, 5))


def refused(call, *words):
    """The call raises `InputError` with all words in its one line."""
    with pytest.raises(InputError) as e: call()
    assert "\n" not in str(e.value)
    for word in words: assert word in str(e.value), (word, str(e.value))


def test_functional_activations(w):
    """They are sites; the tensor that a written-out hard-swish leaves in float is named."""
    assert find_sites(w.net, "activation", w.images[:2]) == [
        "relu", "relu()", "hardswish()", "relu6()"]
    found = coverage(w.net, "activation", w.images[:2])
    assert found.types == ["ReLU", "ReLU", "Hardswish", "ReLU6"] and found.tensors == {
        "c.3": ["fc"]} and found.layers == []
    with pytest.warns(Notice, match=r"^left in float: 1 output between layers \(c.3\)$"):
        collect(w.net, w.images.split(8), noise=12)


@pytest.mark.parametrize("change, words", [
    (lambda y: y - 1, ["label -1 (image 0", "0 to 9"]),
    (lambda y: y + 990, ["label 990", "use the labels of the network"]),
    (lambda y: y + 1, ["label 10 (image 9", "subtract 1"]),
    (lambda y: y.float(), ["float32", "labels.long()"]),
    (lambda y: F.one_hot(y, 10), ["(40, 10)", "labels.argmax(1)"]),
    (lambda y: y[0], ["labels of batch 0", "DataLoader"]),
    (lambda y: y > 4, ["bool"]),
    (lambda y: None, ["no labels", "(images, labels)"])])
def test_labels(w, change, words):
    refused(lambda: evaluate(w.net, [(w.val, change(w.labels))], w.table, w.set, 8), *words)


def several(w):
    """What is no list of batches of float images."""
    bad = w.images.clone()
    bad[13, 0, 0, 0] = float("inf")
    data = torch.utils.data.TensorDataset(w.images, w.labels)
    return [([(w.images * 9).to(torch.uint8)], "uint8", "preprocess.normalise"),
            (data, "TensorDataset", "DataLoader"),
            (w.images, "images.split(32)"),
            ([w.images[:0], w.images], "batch 0", "holds no images"),
            ([], "no batches"),
            ([w.images[:8] * float("nan"), w.images], "image 0 holds NaN"),
            (bad.split(8), "image 13 holds NaN or Inf"),
            ([w.images.numpy()], "ndarray"),
            ([{"x": w.images}], "pixel_values"),
            ([w.images[:, :1]], "do not pass through Functional")]


@pytest.mark.parametrize("k", range(10))
def test_loaders(w, k):
    given, *words = several(w)[k]
    refused(lambda: collect(w.net, given, noise=12), *words)


def test_a_single_image_leaves_no_warning(w):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(lambda: collect(w.net, list(w.images[:3]), noise=12), "Conv2d reads 4 axes")


def test_one_selection_and_one_width(w):
    rows = [evaluate(w.net, [(w.val, w.labels)], w.table, s, b)[["w_bits", "a_bits", "top1"]]
            for s, b in ((w.set, 8), ([w.set], [8]), ((w.set,), [(8, 8)]))]
    assert rows[0].w_bits.tolist() == [32, 8] and all(r.equals(rows[0]) for r in rows)
    assert bit_pairs(torch.tensor(8)) == bit_pairs(np.int64(8)) == bit_pairs(8.) == [(8, 8)]
    assert bit_pairs([6, (4, 8)]) == [(6, 6), (4, 8)]
    for bits, word in (("8", "bits='8'"), (None, "bits=None"), (33, "bits=33"), ([(1, 2, 3)], "W"),
                       (True, "bits=True"), ([8, "x"], "bits='x'")):
        refused(lambda: bit_pairs(bits), word)
    for strange in ("selection.json", [1, 2], [w.set, None]):
        refused(lambda: evaluate(w.net, [(w.val, w.labels)], w.table, strange, 8), "no selection",
                "load_selection")


def test_a_module_without_preprocessing():
    """The digits are 8 pixels wide: a guess of 224 is refused for every pool it would read."""
    net = Functional().eval()
    pool, val = (PartPool(open_pool("digits", part), range(12)) for part in ("train", "val"))
    refused(lambda: collect(net, pool), "8 pixels wide", "Preprocess(8, 8, mean, std)")
    known = as_network(net, preprocess=DIGITS_PREPROCESS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        table = collect(known, pool, noise=10)
    chosen = select(table, 3)
    assert len(evaluate(known, val, table, chosen, 8)) == 2
    refused(lambda: evaluate(net, val, table, chosen, 8), "8 pixels wide", "as_network")
    other = as_network(net, preprocess=Preprocess(16, 16))
    refused(lambda: evaluate(other, val, table, chosen, 8), "made with", "would read with")
    recoloured = as_network(net, preprocess=Preprocess(
        DIGITS_PREPROCESS.resize, DIGITS_PREPROCESS.crop, (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)))
    batch = [(torch.zeros(1, 3, 12, 12), torch.zeros(1, dtype=torch.long))]
    refused(lambda: evaluate(recoloured, val, table, chosen, 8), "made with", "0.5")
    assert len(evaluate(net, batch, table, chosen, 8)) == 2  # a loader brings its images ready
    refused(lambda: evaluate(net, batch, table, chosen, 8, estimators="mse", pool=pool),
            "made with")


def test_noise_knows_no_batches():
    """The same images in batches of 1, 7 and 40, the flattest first: one table, one selection."""
    net, g = Functional().eval(), torch.Generator().manual_seed(1)
    images = torch.randn(40, 3, 12, 12, generator=g)
    images[0] *= 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        tables = [collect(net, images.split(b), noise=12) for b in (1, 7, 40)]
    assert {t.hash for t in tables} == {tables[0].hash}


def test_a_guess_that_doubles_is_too_much():
    """100 pixels for a guess of 256 are refused, 130 are not."""
    guess = as_network(Functional())
    class Sized(SimpleNamespace):
        def __len__(self): return 20
    pool = lambda side: Sized(source="here", pixels=lambda i: (side, side + 9))
    refused(lambda: check_size(guess, pool(100)), "100 pixels wide", "Preprocess(100, 100")
    check_size(guess, pool(130))


def test_a_hash_follows_the_labels(w):
    """Other labels, or none, make another table: balanced sets rest on them."""
    labels = np.arange(40) % 10
    tables = [replace(w.table, labels=v) for v in (None, labels, labels[::-1].copy())]
    assert len({t.hash for t in tables}) == 3


def test_nothing_is_left_beside_a_file_that_failed(tmp_path):
    with pytest.raises(KeyError), written_aside(tmp_path / "a.json") as aside:
        aside.write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_extreme_images(w):
    """One site is enough to be extreme: by the widest of the ratios, not by their mean."""
    stats = np.zeros((5, 4, 4), np.float32)
    stats[..., 3] = 1
    stats[1, :, 3], stats[3, 0, 3] = 3, 9
    few = replace(w.table, stats=stats, index=np.arange(5), names=w.table.names[:5],
                  digests=w.table.digests[:5], labels=None)
    found = extreme_images(few, 2)
    assert found["index"].tolist() == [3, 1] and found.times.tolist() == [9, 3]
    assert found.site.tolist()[0] == few.sites[0]
