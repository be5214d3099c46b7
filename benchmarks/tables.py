"""Write the tables of benchmarks/README.md from results/benchmarks_*.csv.

    python benchmarks/tables.py
"""
import sys
sys.path.append(sys.path.pop(0))  # behind the standard library, which has a statistics module too

from pathlib import Path

import pandas as pd

from common import RESULTS

MARK = '<!-- tables -->'
RATIO = ['ratio', 'q25', 'q75', 'pairs']
TABLES = {  # file: (title, columns or None for all)
    'statistics': ('Statistics beside plain inference', [
        'network', 'device', 'batch_size', 'memory_format', 'precision', 'compiled', 'sites',
        'plain_images_per_s', 'statistics_images_per_s', *RATIO]),
    'traversals': ("One traversal to a selection beside the paper's two", [
        'network', 'device', 'batch_size', 'batches', 'paper_s', 'ours_s', *RATIO]),
    'evaluation': ('W4A4 evaluation beside full precision', [
        'network', 'sites', 'quantizer', 'batch_size', 'number_of_sites', 'plain_s', 'quantized_s',
        *RATIO]),
    'clustering': ('Clustering and ranking', None),
    'matching': ('Matching in a table of 1.28 million images', None),
    'decoding': ('Decoding', None),
    'fast_decoding': ('What fast decoding changes', None),
    'memory': ('Peak memory', None),
    'commands': ('Commands on a finished table', None)}


def markdown(df):
    "A DataFrame as a Markdown table."
    def text(v):
        if not isinstance(v, float): return str(v)
        return f'{v:.3g}' if v < 100 else f'{v:.0f}'
    cells = [[text(v) for v in row] for row in df.itertuples(index=False)]
    return '\n'.join('| ' + ' | '.join(row) + ' |'
                     for row in [list(df.columns), ['---'] * len(df.columns), *cells])


def section(name, title, columns):
    "One file as a section, GPU results under their own."
    out = []
    for path in (RESULTS / f'benchmarks_{name}.csv', RESULTS / f'benchmarks_{name}_gpu.csv'):
        if not path.exists(): continue
        df = pd.read_csv(path)
        shown = df[columns] if columns else df.drop(columns=['hardware', 'torch'])
        out.append(f'## {title}\n\n{df.hardware[0]}, torch {df.torch[0]}.\n\n{markdown(shown)}\n')
    return '\n'.join(out)


if __name__ == '__main__':
    readme = Path(__file__).with_name('README.md')
    head = readme.read_text().split(MARK)[0]
    readme.write_text(head + MARK + '\n\n' + '\n'.join(section(n, *t) for n, t in TABLES.items()))
