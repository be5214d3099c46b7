"""Train a network on CIFAR-10 and write its weights and what it reached.

    python scripts/train_cifar.py resnet20_cifar10 --data $SELECTQ_DATA/cifar10
                                  [--epochs 24] [--out results/weights]

Ten to twenty minutes per network on two CPU cores. The test images are looked at once, at the end.
"""
import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from selectq.data import open_pool
from selectq.batches import load_batches
from selectq.models import build_network, weights_hash
from selectq.table import versions


def tensors(path, preprocess):
    "All images (n, 3, 32, 32), normalised, and labels (n,) of a Parquet file."
    pool = open_pool(path)
    images = torch.cat([b.images for b in load_batches(pool, preprocess, batch_size=5000)])
    return images, torch.from_numpy(pool.labels)


def augmented(x, generator, most=4):
    "Images (B, 3, H, W) moved by up to `most` pixels, zeros in the gap, mirrored or not."
    size = x.shape[-1]
    # (2, B, size)
    at = torch.randint(0, 2 * most + 1, (2, len(x), 1), generator=generator) + torch.arange(size)
    flip = torch.rand(len(x), generator=generator) < .5
    cols = torch.where(flip[:, None], at[1].flip(1), at[1])
    padded = F.pad(x, (most,) * 4)
    rows = torch.arange(len(x))[:, None, None]
    # B H W C -> B C H W, channels last
    return padded[rows, :, at[0][:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def train(module, x, y, epochs, rate, bfloat16, seed):
    "SGD with a warm-up of a tenth and a cosine after it."
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(module.parameters(), rate, momentum=.9, nesterov=True,
                                weight_decay=5e-4)
    steps = epochs * (len(x) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=.1,
                                                   cycle_momentum=False)
    module.to(memory_format=torch.channels_last).train()
    for epoch in range(epochs):
        start, total = time.time(), 0.
        for rows in torch.randperm(len(x), generator=generator).split(128)[:len(x) // 128]:
            with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
                scores = module(augmented(x[rows], generator))
            loss = F.cross_entropy(scores.float(), y[rows])
            optimizer.zero_grad(); loss.backward(); optimizer.step(); schedule.step()
            total += loss.item()
        print(f'epoch {epoch + 1}: loss {total / (len(x) // 128):.3f}, {time.time() - start:.0f} s',
              flush=True)


def main(name, data, epochs, rate, bfloat16, seed, out):
    torch.manual_seed(seed)
    start, net = time.time(), build_network(name)
    x, y = tensors(Path(data) / 'train.parquet', net.preprocess)
    train(net.module, x, y, epochs, rate, bfloat16, seed)
    module = net.module.eval().to(memory_format=torch.contiguous_format)
    x, y = tensors(Path(data) / 'test.parquet', net.preprocess)
    with torch.inference_mode():
        correct = torch.cat([module(b).argmax(1) for b in x.split(500)]) == y
    path = Path(out) / f'{name}.safetensors'
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), path)
    facts = dict(network=name, weights=weights_hash(module),
                 top1=100 * correct.float().mean().item(), images=len(x), epochs=epochs, rate=rate,
                 bfloat16=bfloat16, seed=seed, minutes=round((time.time() - start) / 60, 1),
                 threads=torch.get_num_threads(), versions=versions())
    path.with_suffix('.json').write_text(json.dumps(facts, indent=1) + '\n')
    print(f'{path.name}: {path.stat().st_size / 1e3:.0f} KB, top-1 {facts["top1"]:.2f} % of '
          f'{len(x)} test images, {facts["minutes"]} minutes')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('name',
                        help='resnet20_cifar10, seresnet20_cifar10, mobilenetv2_cifar10, or '
                             'another CIFAR-10 network of pytorchcv')
    parser.add_argument('--data', default=Path(os.environ.get('SELECTQ_DATA', '.')) / 'cifar10',
                        help='folder with train.parquet and test.parquet')
    parser.add_argument('--epochs', type=int, default=24)
    parser.add_argument('--rate', type=float, default=.2, help='largest learning rate')
    parser.add_argument('--bfloat16', action='store_true', help='multiply in bfloat16')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', default=Path(__file__).parents[1] / 'results/weights')
    main(**vars(parser.parse_args()))
