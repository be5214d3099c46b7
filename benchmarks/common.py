"""What the benchmarks share: the machine's name, paired timing, peak memory of a command, results as CSV."""
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from selectq.studies import hardware

RESULTS = Path(__file__).resolve().parents[1] / 'results'


def seconds(f, device='cpu'):
    "Seconds that one call takes."
    sync = torch.cuda.synchronize if str(device).startswith('cuda') else (lambda: None)
    sync(); start = time.perf_counter()
    f(); sync()
    return time.perf_counter() - start


def paired(plain, other, repeats, device='cpu'):
    "Seconds of both in turn, (repeats, 2), after one warm-up of each."
    plain(), other()
    return np.array([[seconds(plain, device), seconds(other, device)] for _ in range(repeats)])


def ratio_row(times):
    "Median of the paired ratios, their quartiles and extremes."
    r = times[:, 1] / times[:, 0]
    low, mid, high = np.quantile(r, [.25, .5, .75])
    return dict(ratio=mid, q25=low, q75=high, least=r.min(), most=r.max(), pairs=len(r))


def peak_memory(*args):
    "Peak resident memory in MB and seconds of a Python command, children included."
    code = ('import resource, subprocess, sys, time; t = time.perf_counter(); subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL); '
            'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, time.perf_counter() - t)')
    out = subprocess.run([sys.executable, '-c', code, *map(str, args)], check=True,
                         capture_output=True, text=True).stdout
    return tuple(map(float, out.split()))


def save(rows, name, device='cpu'):
    "Write rows to results/benchmarks_NAME.csv with the hardware and versions, and print them."
    df = pd.DataFrame(rows).assign(hardware=hardware(device), torch=torch.__version__.split('+')[0])
    RESULTS.mkdir(exist_ok=True)
    df.round(4).to_csv(RESULTS / f'benchmarks_{name}.csv', index=False)
    print(df.round(3).to_string(index=False))
