"""Make the figures of the overview page from results/*.csv.

    python scripts/figures.py
"""
from pathlib import Path

import pandas as pd

from selectq.plots import plot_comparison

ROOT = Path(__file__).parents[1]

if __name__ == '__main__':
    axs = plot_comparison(pd.read_csv(ROOT / 'results/first_light_input.csv',
                                      keep_default_na=False))
    axs[0].figure.suptitle('MENet-128 on ImageNet images, 100 of 1000 images chosen', fontsize=10)
    out = ROOT / 'nbs/images/first_light.png'
    out.parent.mkdir(exist_ok=True)
    axs[0].figure.savefig(out, dpi=110)
    print(out)
