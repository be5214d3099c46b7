"""Real images and real weights, where they are at hand: SELECTQ_DATA names their folder."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from selectq.data import open_pool
from selectq.batches import load_batches
from selectq.images import image_digest
from selectq.evaluation import count_correct, standard_error
from selectq.models import load_network, weights_hash
from selectq.sites import inference

DATA = Path(os.environ.get("SELECTQ_DATA", ""))
pytestmark = pytest.mark.skipif(
    "SELECTQ_DATA" not in os.environ, reason="SELECTQ_DATA is not set: real images are not at hand"
)


def test_cifar10():
    """CIFAR-10 as Parquet: every image is there, with its label; the last one decodes too."""
    for part, n in (("train", 50_000), ("test", 10_000)):
        pool = open_pool(DATA / "cifar10" / f"{part}.parquet")
        assert len(pool) == n and np.bincount(pool.labels).tolist() == [n // 10] * 10
        assert pool.image(0).size == pool.image(n - 1).size == (32, 32)
        assert pool.image(0).mode == "RGB"
        assert image_digest(pool.content(0)) != image_digest(pool.content(n - 1))
        assert len(pool.content(7)) == pool.sizes()[7]


@pytest.fixture(scope="module")
def wnids():
    return json.loads((DATA / "imagenet-sample" / "wnids.json").read_text())


def test_imagenet_sample(wnids):
    """A validation set that has some of the classes only: its labels need the list of them."""
    train, val = (
        open_pool(DATA / "imagenet-sample" / part, classes=wnids) for part in ("train", "val")
    )
    assert len(wnids) == 1000 and len(train) == 1000
    assert train.labels.tolist() == sorted(train.labels) and len(set(train.labels)) == 1000
    assert len(val) == 500 and val.labels.max() < 1000
    assert all(val.name(i).split("/")[0] == wnids[val.labels[i]] for i in range(500))
    assert all(min(train.image(i).size) == 256 for i in (0, 500, 999))


def test_float_accuracy(wnids):
    """Real weights load; top-1 on 60 images is within three standard errors of 53.4 %."""
    net = load_network("menet128_8x1_g4", DATA / "weights" / "menet128_8x1_g4.safetensors")
    assert net.hash == weights_hash(net.module) and net.preprocess.crop == 224
    val = open_pool(DATA / "imagenet-sample" / "val", classes=wnids)
    right = np.zeros(2, int)
    with inference(net.module):
        for batch in load_batches(val, net.preprocess, range(60), 20):
            assert batch.unreadable == []
            right += count_correct(net.module(batch.images), torch.from_numpy(batch.labels))
    top1, top5 = 100 * right / 60
    assert abs(top1 - 53.4) < 3 * standard_error(53.4, 60) and top5 > top1
