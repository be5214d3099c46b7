"""`selectq stats` by one process and by several, interrupted in every way, and resumed.

The parts stay the same bytes. Every run here is a process of its own: `python -m selectq.cli stats`
or torchrun, forked from one that has imported torch, but for `whole`, which is started as a user
does. Three helpers run in this process what needs none: `refused`, `load_table` and `_open_folder`.
"""
import json, os, shutil, signal, socket, subprocess, sys, threading, time
from pathlib import Path

# idle threads sleep: the runs here share their cores
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

import numpy as np
import pytest
from forked import Forked
from PIL import Image

N, CHUNK, BATCH = 640, 32, 16
PARTS = N // CHUNK
SETTINGS = ['--chunk', CHUNK, '--batch-size', BATCH, '--workers', 0, '--noise', 8, '--device',
            'cpu']
TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
TIMEOUT = 120


# --- pools

def write_images(folder, n, side=128, seed=0):
    "n PNGs of 8 x 8 coloured squares."
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        img = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        img = img.resize((side, side), Image.Resampling.NEAREST)
        img.save(folder / f'{i:04d}.png', compress_level=1)
    return folder

@pytest.fixture(scope='session')
def pool(tmp_path_factory): return write_images(tmp_path_factory.mktemp('processes') / 'pool', N)

@pytest.fixture
def own_pool(pool, tmp_path):
    "The pool by links, for a test that changes it."
    (tmp_path / 'pool').mkdir()
    for p in pool.iterdir(): os.link(p, tmp_path / 'pool' / p.name)
    return tmp_path / 'pool'


# --- runs

def command(pool, out, processes=1, settings=SETTINGS):
    launcher = ['-m'] if processes == 1 else [*TORCHRUN, '-m']
    return [sys.executable, *launcher, 'selectq.cli', 'stats', 'digits', str(pool), '--out',
            str(out), *map(str, settings)]

def start(args, most=None): return Forked(args, most=most)  # most: bytes of a file it writes

def finish(process):
    "Exit status and stderr. A run that hangs is killed with its processes, and fails the test."
    try: _, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        end(process)
        pytest.fail(f'no end after {TIMEOUT} s: {process.args}')
    return process.returncode, err

def run(pool, out, processes=1, settings=SETTINGS, most=None):
    return finish(start(command(pool, out, processes, settings), most))

def succeed(pool, out, processes=1, settings=SETTINGS):
    code, err = run(pool, out, processes, settings)
    assert code == 0, err
    return out

def workers(launcher):
    "Ids of the selectq processes that a torchrun started."
    found = []
    for d in Path('/proc').glob('[0-9]*'):
        try:
            parent = int((d / 'stat').read_text().rsplit(')', 1)[1].split()[1])
            cmd = (d / 'cmdline').read_bytes()
        except (OSError, ValueError, IndexError): continue
        if parent == launcher.pid and b'selectq.cli' in cmd: found.append(int(d.name))
    return found

def end(process):
    for pid in [*workers(process), process.pid]:
        try: os.kill(pid, signal.SIGKILL)
        except ProcessLookupError: pass
    process.communicate()

def running(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False

def await_first_part(process, out):
    "Return as soon as a part is there."
    limit = time.time() + TIMEOUT
    while not any(out.glob('part-*')):
        if process.poll() is not None or time.time() > limit:
            end(process)
            pytest.fail(f'the run ended before its first part: {process.args}')
        time.sleep(.005)

def stop_in_the_middle(process, out):
    "Wait for the first part, then stop all selectq processes of the run: their ids."
    await_first_part(process, out)
    pids = workers(process) or [process.pid]
    for pid in pids: os.kill(pid, signal.SIGSTOP)
    assert 0 < len(parts(out)) < PARTS
    return pids


# --- tables

def parts(out):
    return {p.name: p.read_bytes() for p in Path(out).glob('*.parquet')
            if p.name.startswith('part-')}
def stamps(out):
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns)
            for p in Path(out).glob('part-*.parquet')}
def meta(out): return json.loads((Path(out) / 'meta.json').read_text())
def asides(out): return sorted(p.name for p in Path(out).iterdir() if p.name.startswith('.'))

def assert_same(out, whole):
    "Every file of the table, byte for byte; of meta.json all but the times and the pool's place."
    assert parts(out) == parts(whole)
    assert (out / 'noise.parquet').read_bytes() == (whole / 'noise.parquet').read_bytes()
    def known(m):
        left = {k: v for k, v in m.items() if k not in ('seconds', 'waiting')}
        return left | {'pool': {**m['pool'], 'source': ''}}
    assert known(meta(out)) == known(meta(whole))
    assert meta(out)['complete']

def assert_unfinished(out, whole):
    "Some parts are missing; those that are there are whole."
    there, all_ = parts(out), parts(whole)
    assert len(there) < len(all_) == PARTS
    assert all(there[k] == all_[k] for k in there)
    if (out / 'meta.json').exists(): assert not meta(out)['complete']

def assert_one_line(code, err, *words, status=2):
    assert code == status, err
    assert err.count('\n') == 1 and err.startswith('selectq: '), err
    for w in words: assert str(w) in err, err

@pytest.fixture(scope='session')
def whole(pool, tmp_path_factory):
    "The table of one process, not interrupted."
    out = tmp_path_factory.mktemp('processes') / 'whole'
    subprocess.run([*map(str, command(pool, out))], check=True, timeout=TIMEOUT)
    assert len(parts(out)) == PARTS and not asides(out)
    return out


# --- the same for any number of processes

def test_two_processes_equal_one(pool, whole, tmp_path):
    assert_same(succeed(pool, tmp_path / 'out', 2), whole)
    assert not asides(tmp_path / 'out')

def test_two_nodes_equal_one_process(pool, whole, tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    selectq = command(pool, tmp_path / 'out')[2:]  # what follows python -m
    nodes = [start([sys.executable, '-m', 'torch.distributed.run', '--nnodes', '2',
                    '--nproc-per-node', '1', '--node-rank', str(k),
                    '--master-addr', '127.0.0.1', '--master-port', str(port), '-m', *selectq])
             for k in range(2)]
    for n in nodes:
        code, err = finish(n)
        assert code == 0, err
    assert_same(tmp_path / 'out', whole)


# --- interrupted and resumed

def test_a_killed_process_then_resumed(pool, whole, tmp_path):
    out = tmp_path / 'out'
    launcher = start(command(pool, out, 2))
    first, second = stop_in_the_middle(launcher, out)
    os.kill(second, signal.SIGKILL)
    os.kill(first, signal.SIGCONT)
    code, _ = finish(launcher)
    assert code != 0 and not running(first)
    assert_unfinished(out, whole)
    kept = stamps(out)
    assert_same(succeed(pool, out, 2), whole)
    # whole parts are not written again
    assert kept == {k: v for k, v in stamps(out).items() if k in kept}

def test_ctrl_c_then_resumed_by_two(pool, whole, tmp_path):
    out = tmp_path / 'out'
    process = start(command(pool, out))
    await_first_part(process, out)
    process.send_signal(signal.SIGINT)
    assert_one_line(*finish(process), 'interrupted', 'run the same command again', status=130)
    assert not asides(out)
    assert_unfinished(out, whole)
    kept = stamps(out)
    assert_same(succeed(pool, out, 2), whole)
    assert kept == {k: v for k, v in stamps(out).items() if k in kept}

def test_ctrl_c_of_two_then_resumed_by_one(pool, whole, tmp_path):
    out = tmp_path / 'out'
    launcher = start(command(pool, out, 2))
    await_first_part(launcher, out)
    pids = workers(launcher)
    os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does
    code, err = finish(launcher)
    assert code != 0 and len(pids) == 2 and not any(map(running, pids))
    line = 'selectq: interrupted; what is whole is kept, run the same command again to go on'
    assert line in err, err
    assert_unfinished(out, whole)
    assert_same(succeed(pool, out), whole)

def test_damaged_parts_are_found_and_redone(pool, whole, tmp_path):
    from selectq.data import InputError
    from selectq.table import load_table
    out = Path(shutil.copytree(whole, tmp_path / 'out'))
    name = lambda c: out / f'part-{c:06d}.parquet'
    os.truncate(name(3), name(3).stat().st_size // 2)
    with pytest.raises(InputError, match='damaged .part-000003.parquet'): load_table(out)
    os.truncate(name(4), 0)
    os.truncate(name(5), name(5).stat().st_size - 1)
    name(6).unlink()
    shutil.copy(name(8), name(7))  # whole, but of another chunk
    os.truncate(out / 'noise.parquet', 5000)
    kept = {k: v for k, v in stamps(out).items() if not 3 <= int(k[5:11]) <= 7}
    with pytest.raises(InputError, match='damaged'): load_table(out)
    assert_same(succeed(pool, out), whole)
    assert kept == {k: v for k, v in stamps(out).items() if k in kept}
    load_table(out)

@pytest.mark.parametrize('damage', ['noise truncated', 'part missing', 'a byte of the data'])
def test_no_damage_is_loaded(whole, tmp_path, damage):
    from selectq.data import InputError
    from selectq.table import load_table
    out = Path(shutil.copytree(whole, tmp_path / 'out'))
    part = out / 'part-000003.parquet'
    if damage == 'noise truncated': os.truncate(out / 'noise.parquet', 5000)
    elif damage == 'part missing': part.unlink()
    else:
        data = bytearray(part.read_bytes())
        import pyarrow.parquet as pq
        data[pq.read_metadata(part).row_group(0).column(6).data_page_offset + 60] ^= 1
        part.write_bytes(data)
    with pytest.raises(InputError, match='damaged'): load_table(out)


# --- the disk full

def test_a_file_that_cannot_grow(pool, whole, tmp_path):
    "meta.json, then a part, meet a limit of the file size; without it the same command finishes."
    out = tmp_path / 'out'
    at = {p.name: p.stat().st_size for p in whole.iterdir()}
    between = (at['noise.parquet'] + at['part-000000.parquet']) // 2
    assert at['meta.json'] > 500 and at['noise.parquet'] < between < at['part-000000.parquet']
    for size in (500, between):
        assert_one_line(*run(pool, out, most=size), out, 'File too large')
        assert not out.exists() or asides(out) == []
        assert_unfinished(out, whole)
    assert (out / 'noise.parquet').exists() and not parts(out)
    assert_same(succeed(pool, out), whole)

@pytest.fixture
def small_disk(tmp_path):
    "A disk of 128 KB."
    d = tmp_path / 'disk'
    d.mkdir()
    try: done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=128k', 'selectq-test', d],
                               capture_output=True, text=True)
    except OSError as e: pytest.skip(f'no mount here ({e})')
    if done.returncode: pytest.skip(f'mounting is not permitted here ({done.stderr.strip()})')
    yield d
    subprocess.run(['umount', d], check=True)

def test_disk_full_then_resumed(pool, whole, small_disk):
    out = small_disk / 'out'
    assert_one_line(*run(pool, out), out, 'No space left on device', 'free space')
    assert parts(out) and asides(out) == []
    assert_unfinished(out, whole)
    kept = stamps(out)
    assert_one_line(*run(pool, out), out, 'No space left on device')  # still full: nothing is lost
    assert stamps(out) == kept and asides(out) == []
    subprocess.run(['mount', '-o', 'remount,size=8m', small_disk], check=True)
    assert_same(succeed(pool, out, 2), whole)
    assert kept == {k: v for k, v in stamps(out).items() if k in kept}


# --- two runs at once

def test_two_runs_at_once(pool, whole, tmp_path):
    out = tmp_path / 'out'
    for process in [start(command(pool, out)) for _ in range(2)]:
        code, err = finish(process)
        assert code == 0, err
    assert_same(out, whole)
    assert not asides(out)

def test_two_runs_at_once_with_other_settings(whole, tmp_path, monkeypatch):
    "Only one of them gets the folder, however close they come. Threads stand for two processes."
    monkeypatch.setattr(os, 'getpid', threading.get_ident)
    from selectq.data import InputError
    from selectq.engines import _open_folder
    ours = {**meta(whole), 'complete': False}
    metas = [ours, {**ours, 'batch_size': 8, 'settings': '0' * 64}]
    for k in range(100):
        gate, got = threading.Barrier(2), []
        def attempt(m):
            gate.wait()
            try: got.append((_open_folder(tmp_path / f'{k}', m), m))
            except InputError as e: assert 'batch_size' in str(e)
        threads = [threading.Thread(target=attempt, args=(m,)) for m in metas]
        for t in threads: t.start()
        for t in threads: t.join()
        assert len(got) == 1, f'round {k}: both runs took the folder'
        assert got[0][0] and meta(tmp_path / f'{k}') == got[0][1]

def test_what_was_in_the_folder_stays(tmp_path, monkeypatch):
    "A folder with hidden files only counts as empty; a refused run leaves it as it was."
    from selectq.data import InputError
    from selectq.models import load_network
    from selectq.traversal import traverse
    import torch
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home' / '.precious').write_text('x')
    images = write_images(tmp_path / 'pool', 4, side=16)
    net = load_network('digits')
    with torch.no_grad(): next(net.module.parameters()).fill_(float('nan'))
    with pytest.raises(InputError, match='NaN'):
        traverse(net, _open(images), 'activation', tmp_path / 'home', noise=2)
    assert (tmp_path / 'home' / '.precious').read_text() == 'x'

def _open(path):
    from selectq.data import open_pool
    return open_pool(path)


# --- refused

def refused(capsys, pool, out, settings, *words, model='digits'):
    "The command in this process: refused in one line that names `words`."
    from selectq.cli import main
    with pytest.raises(SystemExit) as e:
        main(['stats', model, str(pool), '--out', str(out), *map(str, settings)])
    assert_one_line(e.value.code, capsys.readouterr().err, out, *words)

def test_another_table_is_refused(pool, whole, tmp_path, capsys):
    import torch
    from selectq.models import build_network
    before = {p.name: p.read_bytes() for p in whole.iterdir()}
    alter = lambda option, value: [*SETTINGS[:SETTINGS.index(option) + 1], value,
                                   *SETTINGS[SETTINGS.index(option) + 2:]]
    refused(capsys, pool, whole, alter('--batch-size', 8), 'batch_size 16', 'not 8')
    refused(capsys, pool, whole, alter('--chunk', 64), 'chunk 32', 'not 64')
    refused(capsys, pool, whole, alter('--noise', 9), 'noise', '8', '9')
    refused(capsys, pool, whole, [*SETTINGS, '--sites', 'output'], '"activation"', 'not "output"')
    refused(capsys, pool, whole, [*SETTINGS, '--fast-decode'], 'preprocess')
    for model in ('digits', 'resnet20_cifar10'):
        torch.save(build_network(model).module.state_dict(), tmp_path / f'{model}.pth')
    refused(capsys, pool, whole, [*SETTINGS, '--weights', tmp_path / 'digits.pth'], 'weights')
    refused(capsys, pool, whole, [*SETTINGS, '--weights', tmp_path / 'resnet20_cifar10.pth'],
            'network "digits"', 'resnet20_cifar10', model='resnet20_cifar10')
    refused(capsys, write_images(tmp_path / 'other', 5, side=16), whole, SETTINGS, 'pool', '640',
            '5')
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == before

def test_another_table_is_refused_by_two(pool, whole, tmp_path):
    "Neither process waits for the other."
    before = stamps(whole)
    code, err = run(pool, whole, 2, [*SETTINGS, '--sites', 'input'])
    line = f'selectq: {whole} holds a table with kind "activation", not "input"'
    assert code != 0 and line in err, err
    assert stamps(whole) == before and meta(whole)['complete'] and not asides(whole)

def test_a_moved_pool_is_the_same_pool(pool, whole, own_pool, tmp_path):
    from selectq.cli import main
    out = Path(shutil.copytree(whole, tmp_path / 'out'))
    (out / 'part-000003.parquet').unlink()
    with pytest.raises(SystemExit) as e:
        main(['stats', 'digits', str(own_pool), '--out', str(out), *map(str, SETTINGS)])
    assert e.value.code == 0
    assert_same(out, whole)


# --- a pool that changes while it is read

def replace_image(path):
    path.unlink()  # it may be a link
    Image.new('RGB', (256, 256), 'red').save(path)

def vanish_image(path): path.unlink()

def replace_by_same_size(path):
    old = path.read_bytes()
    path.unlink()
    path.write_bytes(old[:-100] + bytes(100))

@pytest.mark.parametrize('change, number, word', [(replace_image, 0, 'changed'),
                                                  (vanish_image, N - 1, 'vanished'),
                                                  (replace_by_same_size, 0, 'changed'),
                                                  (replace_by_same_size, N - 1, 'changed')])
def test_a_changing_pool_is_noticed(own_pool, tmp_path, change, number, word):
    "Image 0 was read before it changes, the last one not yet."
    out = tmp_path / 'out'
    process = start(command(own_pool, out))
    stop_in_the_middle(process, out)
    change(own_pool / f'{number:04d}.png')
    os.kill(process.pid, signal.SIGCONT)
    assert_one_line(*finish(process), word, 'during the run')
    assert not meta(out)['complete'] and not asides(out)

def test_many_unreadable_images_are_refused_by_any_number_of_runs(tmp_path, capsys):
    "5 of 400 is more than 1 %, also when no single run or process meets more than 4 of them."
    from selectq.cli import main
    pool = write_images(tmp_path / 'pool', 400, side=16)
    for k in (3, 4, 40, 300, 390): (pool / f'{k:04d}.png').write_bytes(b'not an image')
    for _ in range(2):  # the second run resumes the first
        with pytest.raises(SystemExit) as e:
            main(['stats', 'digits', str(pool), '--out', str(tmp_path / 'one'),
                  *map(str, SETTINGS)])
        assert_one_line(e.value.code, capsys.readouterr().err, '5 of 400 images cannot be decoded')
    code, err = run(pool, tmp_path / 'two', 2)
    assert code != 0 and '5 of 400 images cannot be decoded' in err, err
    assert not (tmp_path / 'two').exists() or not meta(tmp_path / 'two')['complete']
