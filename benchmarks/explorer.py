"""Every control of the explorer on 50,000 images x 20 sites, beside a callback that does nothing.

    python benchmarks/explorer.py [--images 50000] [--sites 20] [--repeats 9] [--changes 200]

It runs in an event loop, as a notebook does. What is timed is what happens in Python from a changed
widget to the last message for the browser: that is when the control has answered. A set that takes
longer comes later, and `result_s` has the time to it. CPU seconds of the process and of
the thread of the interface are kept beside seconds of the clock: other work on the cores makes the
clock run on, and not the process.
"""
import sys
sys.path.append(sys.path.pop(0))  # behind the standard library, which has a statistics module too

import argparse
import asyncio
import os
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
from selectq.explorer_state import QUICK, ExplorerState
from selectq.matching import MatchSettings

SLOW = 'kmeans', 'kcenter', 'herding', 'facility'


def named(table):
    "The table with a name for each image, as real ones have."
    names = pa.array([f'pool/{k:06d}.jpg' for k in range(len(table))])
    return replace(table, names=names, digests=names)


def put(widget, value): return lambda k: setattr(widget, 'value', value(k))


def turn(widget):
    "The next option at every call."
    options = lambda: [o[1] if isinstance(o, tuple) else o for o in widget.options]
    return put(widget, lambda k: options()[k % len(widget.options)])


def quick_controls(app):
    "Name of each control -> (choice to begin with, what a user does, another at every call)."
    c, s, m, v = (app.controls.choice, app.controls.selectq, app.controls.match, app.controls.view)
    selectq, random, match = (dict(strategy=n) for n in ('selectq', 'random', 'match'))
    names = app.state.table.sites
    return {
        'images, SelectQ': (selectq, put(c['n'], lambda k: 10 + k % 90)),
        'images, random': (random, put(c['n'], lambda k: 10 + k % 90)),
        'images, match': (match, put(c['n'], lambda k: 5 + k % 20)),
        'seed': (random, put(c['seed'], lambda k: 1000 + k)),
        'calibrator': (random, put(c['rule'], lambda k: f'ema 0.{50 + k % 40}')),
        'target': (random, turn(c['target'])),
        'bits': (dict(strategy='random', target='mean of extremes', bits=4), turn(c['bits'])),
        'update': (selectq, turn(s['update'])),
        'order': (selectq, turn(s['order'])),
        'centroids': (selectq, put(s['centroids'], lambda k: 5 + k % 11)),
        'gamma': (selectq, put(s['gamma'], lambda k: 1 + k / 100)),
        'first step': (selectq, put(s['lambda_max'], lambda k: .1 + k / 1000)),
        'last step': (selectq, put(s['lambda_min'], lambda k: .001 + k / 1e5)),
        'granularity': (selectq, turn(s['granularity'])),
        'batch size': (selectq, put(s['batch_size'], lambda k: 8 + k % 100)),
        'shuffle': (selectq, put(s['shuffle'], lambda k: k % 2 == 0)),
        'distance': (selectq, turn(s['distance'])),
        'begin at': (selectq, turn(s['initialisation'])),
        'score sites': (selectq, put(s['score_sites'], lambda k: f'!{names[k % len(names)]}')),
        'candidates': (match, put(m['candidates'], lambda k: 2000 + k % 100)),
        'passes': (match, put(m['passes'], lambda k: k % 3)),
        'rounds': (match, put(m['rounds'], lambda k: 1 + k % 5)),
        'cost': (match, turn(m['objective'])),
        'site': (selectq, put(v['site'], lambda k: k % len(names))),
        'axes': (selectq, turn(v['plane'])),
        'second site': (selectq, put(v['other'], lambda k: k % len(names))),
        'click on an image': (random, lambda k: app._do(
            lambda: app._clicked(np.array([k % 1000])))),
        'point at an image': ({}, lambda k: app._pointed(np.array([k % 1000]))),
        'undo': (dict(strategy='random', n=12), lambda k: app.head.undo.click()),
        'two sets': (selectq, put(app.head.two, lambda k: k % 2 == 0)),
    }


def slow_controls(app):
    "The same for sets that can take long: a strategy, more images, another seed, the search."
    c, m, found = app.controls.choice, app.controls.match, {}
    for name in SLOW:
        found[f'strategy {name}'] = dict(strategy='random', seed=-1), put(
            c['strategy'], lambda k, name=name: name)
        found[f'images, {name}'] = dict(strategy=name), put(c['n'], lambda k: 12 + 11 * k % 200)
    for name in ('kmeans', 'kcenter', 'facility'):
        found[f'seed, {name}'] = dict(strategy=name, n=10), put(c['seed'], lambda k: 1000 + k)
    long = dict(strategy='match', search=MatchSettings())
    found['search long'] = dict(strategy='match', n=10, search=QUICK, seed=-1), put(
        m['search'], lambda k: MatchSettings())
    found['images, match, long'] = long, put(c['n'], lambda k: 10 + k % 20)
    return found


def clocks():
    "Seconds of the clock, of the process, and of this thread, in which the interface answers."
    return np.array([time.perf_counter(), time.process_time(), time.thread_time()])


def timed(act, k):
    "What an act takes, by the three clocks."
    start = clocks()
    act(k)
    return clocks() - start


async def settled(app):
    "Wait until nothing is under way."
    while app.chooser.job: await asyncio.sleep(.005)


async def row(app, name, first, act, repeats, count):
    "The times of one control: to its answer, to its set, and of another control meanwhile."
    empty_widget, times, others = ipywidgets.IntSlider(max=10 ** 7), [], []
    empty_widget.observe(lambda change: None, 'value')
    empty = put(empty_widget, lambda k: k + 1)
    site = put(app.controls.view['site'], lambda k: k % len(app.state.table.sites))
    slow = name in slow_controls(app)
    first_ones = 1 if slow else 2  # to warm up
    for k in range(repeats + first_ones):
        app.chooser.give_up()
        if first: app.state.choose(**{**first, **{f: count + k for f in first if f == 'seed'}})
        if name == 'undo': app.state.choose(seed=5000 + count + k)
        app._came('', False)
        await asyncio.sleep(.05)
        start = clocks()
        answer = timed(act, count + k)
        while app.chooser.job:
            if slow and k == 0: others.append(timed(site, len(others)))  # before those timed
            await asyncio.sleep(.02)
        times.append([*answer, *(clocks() - start)[:2], *timed(empty, k)])
    t = np.array(times[first_ones:])
    clock, cpu, main, result, result_cpu, nothing, *_ = np.median(t, 0)
    other = np.median(others, 0) if others else [None] * 3
    return dict(control=name, cpu_s=cpu, most_cpu_s=t[:, 1].max(), clock_s=clock,
                most_clock_s=t[:, 0].max(), main_s=main, result_s=result, result_cpu_s=result_cpu,
                other_s=other[0], other_main_s=other[2],
                most_other_s=max(o[0] for o in others) if others else None, empty_s=nothing,
                load=os.getloadavg()[0], repeats=repeats)


async def memory(app, changes):
    "Megabytes of the process after half of the changes, all, and twice as many."
    app.state.choose(strategy='selectq', selectq=SelectQSettings(), search=QUICK)
    page, acts = resource.getpagesize() / 2 ** 20, list(quick_controls(app).values())
    pages = lambda: int(open('/proc/self/statm').read().split()[1])  # in memory
    held = []
    for k in range(2 * changes):
        first, act = acts[k % len(acts)]
        if first: app.state.choose(**first)
        act(10_000 + k)
        await settled(app)
        if k + 1 in (changes // 2, changes, 2 * changes): held.append(pages() * page)
    return dict(control=f'memory after {changes // 2}, {changes}, {2 * changes} changes, MB',
                cpu_s=held[0], most_cpu_s=held[1], clock_s=held[2])


async def main(images, sites, repeats, changes):
    table = named(generated_table(images, sites))
    table.hash  # once for a table
    app = Explorer(ExplorerState(table, generated_target(table)))
    rows, count = [], 0
    for controls, times in ((quick_controls, repeats), (slow_controls, max(3, repeats // 3))):
        for name, (first, act) in controls(app).items():
            rows.append(await row(app, name, first, act, times, count))
            print(f"{name:24} {rows[-1]['clock_s']:.3f} s, its set {rows[-1]['result_s']:.3f} s",
                  flush=True)
            count += times + 2
    rows.append(await memory(app, changes))
    save([dict(r, images=images, sites=sites) for r in rows], 'explorer')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=50_000)
    parser.add_argument('--sites', type=int, default=20)
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--changes', type=int, default=200)
    asyncio.run(main(**vars(parser.parse_args())))
