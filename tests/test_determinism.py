"""The same images and the same weights give the same selection, however the work is spread."""
import json
import os
import subprocess
import sys

from selectq.table import load_table

TWO = """
import sys
from selectq.cli import main
for args in (['stats', 'digits', sys.argv[1], '--out', 'stats', '--workers', sys.argv[2], '--noise', '20', '--chunk', '25'],
             ['select', 'stats', '-n', '15', '--out', 'selection.json'],
             ['select', 'stats', '-n', '15', '--out', 'shift.json', '--update', 'shift', '--order', 'lowest', '--granularity', 'batch']):
    try: main(args)
    except SystemExit as e: assert not e.code
"""


def spread(folder, pool, workers, threads):
    """Statistics and two selections in one new process: the table's hash and the images chosen."""
    folder.mkdir()
    env = {**os.environ, "NUMBA_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(workers)}
    done = subprocess.run([sys.executable, "-c", TWO, str(pool), str(workers)], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return load_table(folder / "stats").hash, [json.loads((folder / name).read_text())["images"] for name in ("selection.json", "shift.json")]


def test_workers_and_threads(world, tmp_path):
    """0, 1 and 2 decoding processes, 1 and 2 threads: one table, one selection, to the last bit of every score."""
    results = [spread(tmp_path / f"{workers}{threads}", world.pool, workers, threads) for workers, threads in ((0, 1), (1, 2), (2, 1))]
    assert results[0] == results[1] == results[2]
    assert len(results[0][1][0]) == 15 and results[0][1][0] != results[0][1][1]
