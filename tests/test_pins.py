"""Constants that decide published results: a change here moves figures, so it has to be meant."""
import hashlib
from importlib.resources import files

import pytest

from selectq import clustering, engines, paper, studies
from selectq.ablations import KNOB_VALUES
from selectq.clustering import SelectQSettings
from selectq.evaluation import COLUMNS
from selectq.models import PAPER_NAMES, build_network

PARAMETERS = {  # as pytorchcv publishes them for the networks of the paper
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "senet16": 31_366_168,
    "mobilenetv2_w1": 3_504_960,
    "mobilenetv3_large_w1": 5_481_752,
    "shufflenet_g1_w1": 1_531_936,
    "squeezenet_v1_0": 1_248_424,
    "mnasnet_b1": 4_383_312,
    "menet108_8x1_g3": 654_516,
}


def test_paper_networks():
    """The nine networks of the paper, with the published number of parameters."""
    assert PAPER_NAMES == dict(
        ResNet18="resnet18",
        ResNet50="resnet50",
        SENet="senet16",
        MobileNetV2="mobilenetv2_w1",
        MobileNetV3="mobilenetv3_large_w1",
        ShuffleNet="shufflenet_g1_w1",
        SqueezeNet="squeezenet_v1_0",
        MnasNet="mnasnet_b1",
        MENet="menet108_8x1_g3",
    )
    for name in PAPER_NAMES:
        net = build_network(name)
        assert net.name == PAPER_NAMES[name], name
        assert sum(p.numel() for p in net.module.parameters()) == PARAMETERS[net.name], name
        p = net.preprocess
        assert (p.resize, p.crop, tuple(p.mean), tuple(p.std)) == (
            256,
            224,
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
        ), name


@pytest.mark.parametrize("name", ["resnet20_cifar10", "seresnet20_cifar10", "mobilenetv2_cifar10"])
def test_cifar_preprocessing(name):
    """CIFAR-10 images are not resized; mean and std are those of its training images."""
    p = build_network(name).preprocess
    assert (p.resize, p.crop, tuple(p.mean), tuple(p.std)) == (
        32,
        32,
        (0.4914, 0.4822, 0.4465),
        (0.2023, 0.1994, 0.2010),
    )


def test_readings():
    """The printed formulas and the prose, in this sequence; every other setting is the paper's."""
    pairs = {name: (s.update, s.order) for name, s in clustering.READINGS.items()}
    assert pairs == {
        "printed": ("additive", "highest"),
        "text": ("shift", "lowest"),
        "additive-lowest": ("additive", "lowest"),
        "shift-highest": ("shift", "highest"),
    }
    assert [(r.update, r.order) for r in paper.READINGS] == [
        ("additive", "highest"),
        ("shift", "lowest"),
    ]
    usual = dict(
        granularity="image",
        centroids=10,
        gamma=1.0,
        lambda_min=0.001,
        lambda_max=0.1,
        batch_size=32,
        seed=0,
        shuffle=True,
        distance="euclidean",
        initialisation="uniform",
        score_sites="all",
    )
    for r in clustering.READINGS.values():
        assert {k: v for k, v in vars(r).items() if k not in ("update", "order")} == usual
    assert SelectQSettings() == paper.READINGS[0]


def test_experiments():
    """Networks, bit widths, sizes and numbers of the paper's tables and figures."""
    e = paper.EXPERIMENTS
    assert {k: (v.networks, v.bits) for k, v in e.items()} == {
        "table1": (("ResNet18", "ResNet50", "SENet"), (4, 6, 8)),
        "table2": (("MobileNetV3", "MobileNetV2"), (4, 6, 8)),
        "table3": (("ShuffleNet", "SqueezeNet", "MnasNet", "MENet"), (6, 8)),
        "table4": (("ResNet50", "MobileNetV3", "ShuffleNet"), (4, 6, 8)),
        "fig2": (("ResNet18",), (4,)),
        "fig6": (("ResNet18",), (4, 6, 8)),
        "fig7": (("ResNet18",), (4, 6, 8)),
    }
    assert {
        k: (v.sizes, v.centroids, v.sets) for k, v in e.items() if k not in ("fig2", "fig6", "fig7")
    } == dict.fromkeys(["table1", "table2", "table3", "table4"], ((1000,), (10,), 5))
    assert (e["fig2"].sets, e["fig6"].sizes, e["fig7"].centroids) == (
        50,
        (10, 100, 1000),
        (1, 2, 5, 10, 20, 50, 100),
    )
    assert {k: v.estimators for k, v in e.items() if v.estimators != ("minmax",)} == {
        "table4": ("minmax", "aciq-gauss")
    }
    published = (files("selectq") / "published" / "selectq_2025.csv").read_bytes()
    assert (
        hashlib.sha256(published).hexdigest()
        == "1cd802285fef412d5365f5118d88b0a354d00ad66114423d1793c93365caacac"
    )


def test_knobs():
    """The values of every ablation."""
    assert {k: [tuple(c.values()) for c in v] for k, v in KNOB_VALUES.items()} == {
        "centroids": [(1,), (2,), (5,), (10,), (20,), (50,), (100,)],
        "gamma": [(0.0,), (0.1,), (1.0,), (10.0,), (100.0,)],
        "step": [
            (0.001, 0.1),
            (0.0001, 0.01),
            (0.01, 1.0),
            (0.001, 0.001),
            (0.01, 0.01),
            (0.1, 0.1),
        ],
        "distance": [("euclidean",), ("cosine",), ("channel",)],
        "initialisation": [("uniform",), ("gaussian",), ("images",)],
        "granularity": [("image",), *(("batch", b) for b in (8, 32, 128, 512))],
        "traversal": [(), (False,)],
        "reading": [("additive", "lowest"), ("shift", "highest")],
    }


def test_columns():
    """The columns of a result keep their names; the numerics come last and count in the key."""
    assert [
        c for c in COLUMNS if c not in ("correct_bias", "edge_bits", "inputs", "images")
    ] == "network strategy update order sites ranges w_bits a_bits n seed top1 top5 se".split()
    assert studies.ROW[-1] == studies.KEY[-1] == "numerics"
    assert studies.ROW[:2] == ["study", "method"]
    assert set(studies.KEY) >= {
        "weights",
        "table",
        "val",
        "percentile",
        "name",
        "chosen",
        *studies.KNOBS,
    }
    assert "score_sites" in studies.KNOBS


META = {
    "format": 1,
    "network": "net",
    "weights": "w" * 64,
    "kind": "activation",
    "sites": ["a", "b"],
    "preprocess": {"resize": 32, "crop": 32},
    "pool": {"source": "here", "fingerprint": "f" * 64, "images": 10},
    "batch_size": 32,
    "chunk": 1024,
    "noise": {"images": 100, "seed": 0},
}


def test_settings_of_a_part():
    """A part carries a hash of every setting that decides a number; the device is not one."""
    assert set(META) == set(engines._DECIDING)
    known = engines._settings_hash(META)
    # parts of a table made before carry it
    assert known == "aaddfdfa1c6e22cde2e544864f1f0484a67cadb8963881b66123776fb539743f"
    for key in engines._DECIDING:
        assert (
            engines._settings_hash(
                {**META, key: {"source": "here", "other": 1} if key == "pool" else "other"}
            )
            != known
        ), key
    assert engines._settings_hash({**META, "pool": {**META["pool"], "source": "there"}}) == known
    assert (
        engines._settings_hash(
            {**META, "device": "cuda", "versions": {}, "types": ["ReLU"], "float": {}}
        )
        == known
    )
