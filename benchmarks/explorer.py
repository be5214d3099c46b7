"""Every control of the explorer on 50,000 images x 20 sites, beside a callback that does nothing.

    python benchmarks/explorer.py [--images 50000] [--sites 20] [--repeats 9] [--changes 200]

What is timed is what happens in Python from a changed widget to the last message for the browser.
CPU seconds of the process are kept beside seconds of the clock: other work on the cores makes the
clock run on, and not the process.
"""
import sys
sys.path.append(sys.path.pop(0))  # behind the standard library, which has a statistics module too

import argparse
import resource
import time

import ipywidgets
import numpy as np
import pyarrow as pa

from clustering import generated_table
from common import save
from dataclasses import replace
from matching import generated_target
from selectq.clustering import SelectQSettings
from selectq.explorer import Explorer
from selectq.explorer_state import ExplorerState


def named(table):
    "The table with a name for each image, as real ones have."
    names = pa.array([f'pool/{k:06d}.jpg' for k in range(len(table))])
    return replace(table, names=names, digests=names)


def controls(app):
    "Name of each control -> what a user does, with a number that differs at every call."
    s, c = app.state, app.choice
    turn = lambda widget: lambda k: setattr(
        widget, 'value', widget.options[k % len(widget.options)]
        if not isinstance(widget.options[0], tuple) else widget.options[k % len(widget.options)][1])
    put = lambda widget, value: lambda k: setattr(widget, 'value', value(k))
    names = s.table.sites
    return {
        'images, SelectQ': (dict(strategy='selectq'), put(c['n'], lambda k: 10 + k % 90)),
        'images, random': (dict(strategy='random'), put(c['n'], lambda k: 10 + k % 90)),
        'images, match': (dict(strategy='match'), put(c['n'], lambda k: 5 + k % 20)),
        'seed': (dict(strategy='random'), put(c['seed'], lambda k: 1000 + k)),
        'strategy': ({}, turn(c['strategy'])),
        'calibrator': (dict(strategy='random'), put(c['rule'], lambda k: f'ema 0.{50 + k % 40}')),
        'target': (dict(strategy='random'), turn(c['target'])),
        'bits': (dict(strategy='random', target='mean of extremes', bits=4), turn(c['bits'])),
        'update': (dict(strategy='selectq'), turn(app.selectq['update'])),
        'order': (dict(strategy='selectq'), turn(app.selectq['order'])),
        'centroids': (dict(strategy='selectq'),
                      put(app.selectq['centroids'], lambda k: 5 + k % 11)),
        'gamma': (dict(strategy='selectq'), put(app.selectq['gamma'], lambda k: 1 + k / 100)),
        'granularity': (dict(strategy='selectq'), turn(app.selectq['granularity'])),
        'score sites': (dict(strategy='selectq'),
                        put(app.selectq['score_sites'], lambda k: f'!{names[k % len(names)]}')),
        'site': (dict(strategy='selectq'), put(app.seen['site'], lambda k: k % len(names))),
        'axes': (dict(strategy='selectq'), turn(app.seen['plane'])),
        'click on an image': (dict(strategy='random'), lambda k: app._clicked(np.array([k]))),
        'point at an image': ({}, lambda k: app._pointed(np.array([k]))),
        'undo': (dict(strategy='random', n=12), lambda k: app.undo.click()),
        'two sets': (dict(strategy='selectq'), lambda k: setattr(app.two, 'value', k % 2 == 0)),
    }


def timed(act, k):
    "Seconds of the clock and of the process."
    start = time.perf_counter(), time.process_time()
    act(k)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main(images, sites, repeats, changes):
    table = named(generated_table(images, sites))
    table.hash  # once for a table
    app = Explorer(ExplorerState(table, generated_target(table)))
    empty_widget = ipywidgets.IntSlider(max=10 ** 6)
    empty_widget.observe(lambda change: None, 'value')
    empty = lambda k: setattr(empty_widget, 'value', k + 1)
    rows, count = [], 0
    for name, (first, act) in controls(app).items():
        if first: app.state.choose(**first), app._draw()
        act(count), act(count + 1)
        times = []
        for _ in range(repeats):
            count += 1
            if name == 'undo': app.choice['seed'].value = 5000 + count
            times.append([*timed(act, count + 1), *timed(empty, count)])
        t = np.array(times)
        clock, cpu, empty_clock, _ = np.median(t, 0)
        rows.append(dict(control=name, images=images, sites=sites, cpu_s=cpu,
                         most_cpu_s=t[:, 1].max(),
                         clock_s=clock, empty_s=empty_clock, ratio=np.median(t[:, 0] / t[:, 2]),
                         repeats=repeats))
    app.state.choose(strategy='selectq', selectq=SelectQSettings())
    page = resource.getpagesize() / 2 ** 20
    pages = lambda: int(open('/proc/self/statm').read().split()[1])  # in memory
    held, acts = [], list(controls(app).values())
    for k in range(2 * changes):
        first, act = acts[k % len(acts)]
        if first: app.state.choose(**first)
        act(10_000 + k)
        if k + 1 in (changes // 2, changes, 2 * changes): held.append(pages() * page)
    rows.append(dict(control=f'memory after {changes // 2}, {changes}, {2 * changes} changes, MB',
                     images=images, sites=sites, cpu_s=held[0], most_cpu_s=held[1],
                     clock_s=held[2]))
    save(rows, 'explorer')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=50_000)
    parser.add_argument('--sites', type=int, default=20)
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--changes', type=int, default=200)
    main(**vars(parser.parse_args()))
