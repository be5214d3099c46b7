"""Train the demo network (ResNet-8) on the train part of the digits and write its weights.

    python scripts/train_digits.py [--epochs 60] [--out selectq/weights/digits_resnet8.safetensors]

Two minutes on two CPU cores. The validation part is only looked at once, at the end.
"""
import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from selectq.data import open_pool
from selectq.batches import load_batches
from selectq.models import build_network


def shifted(x, generator, most=3):
    "Move each image (B, 3, H, W) by up to `most` pixels; the border value fills the gap."
    dy, dx = torch.randint(-most, most + 1, (2, len(x)), generator=generator).tolist()
    pad = F.pad(x, (most,) * 4, mode='replicate')
    h, w = x.shape[2:]
    return torch.stack([p[:, most + a:most + a + h, most + b:most + b + w]
                        for p, a, b in zip(pad, dy, dx)])


def tensors(part, preprocess):
    "All images (n, 3, 32, 32) and labels (n,) of a part."
    pool = open_pool('digits', part)
    images = next(load_batches(pool, preprocess, batch_size=len(pool))).images
    return images, torch.from_numpy(pool.labels)


def main(epochs, out, seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = build_network('digits')
    x, y = tensors('train', net.preprocess)
    optimizer = torch.optim.SGD(net.module.parameters(), lr=.1, momentum=.9, nesterov=True,
                                weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        net.module.train()
        for rows in torch.randperm(len(x), generator=generator).split(64):
            loss = F.cross_entropy(net.module(shifted(x[rows], generator)), y[rows])
            optimizer.zero_grad(); loss.backward(); optimizer.step()
        schedule.step()
        if epoch % 10 == 9:
            print(f'epoch {epoch + 1}: loss of the last batch {loss.item():.4f}', flush=True)
    net.module.eval()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    save_file(net.module.state_dict(), out)
    x, y = tensors('val', net.preprocess)
    with torch.inference_mode(): top1 = (net.module(x).argmax(1) == y).float().mean().item()
    print(f'{out}: {Path(out).stat().st_size / 1e3:.0f} KB, top-1 {100 * top1:.1f} % of '
          f'{len(x)} validation images')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--epochs', type=int, default=60)
    out = Path(__file__).parents[1] / 'selectq/weights/digits_resnet8.safetensors'
    parser.add_argument('--out', default=out)
    parser.add_argument('--seed', type=int, default=0)
    main(**vars(parser.parse_args()))
