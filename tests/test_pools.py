"""The same images as a folder, tar shards, Parquet shards, a `datasets.Dataset` and a torch `DataLoader`: the same numbers."""
import io, os, tarfile, tempfile
from pathlib import Path

os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # idle threads sleep

import numpy as np
import pytest
import torch
from PIL import Image

from selectq.data import DatasetPool, FolderPool, InputError, ParquetPool, TarPool, decode_image, load_batches, open_pool
from selectq.models import load_network
from selectq.traversal import collect

N, CUTS = 60, (0, 25, 45, 60)  # shards that do not fall on batches
MODES = ('RGB', 'L', 'RGBA', 'P', '1', 'LA', 'I;16', 'RGB')
LABELS = np.arange(N) % 10
SETTINGS = dict(batch_size=16, chunk=32, noise=4)


def encoded(img, kind='PNG', **kw):
    f = io.BytesIO()
    img.save(f, kind, **kw)
    return f.getvalue()

def picture(i, side=48):
    "An image in one of the modes that PNG holds."
    rng, mode = np.random.default_rng(i), MODES[i % len(MODES)]
    if mode == 'I;16': return Image.fromarray(rng.integers(0, 65536, (side, side + 7), dtype=np.uint16))
    img = Image.fromarray(rng.integers(0, 256, (6, 7, 4), dtype=np.uint8), 'RGBA').resize((side + 7, side), Image.Resampling.BICUBIC)
    return img.convert('RGB').quantize(16) if mode == 'P' else img.convert(mode)

@pytest.fixture(scope='module')
def images(): return {f'{i:04d}.png': encoded(picture(i)) for i in range(N)}

@pytest.fixture(scope='module')
def net(): return load_network('digits')

@pytest.fixture(scope='module')
def folder(images, tmp_path_factory):
    d = tmp_path_factory.mktemp('pools') / 'folder'
    d.mkdir()
    for name, data in images.items(): (d / name).write_bytes(data)
    return d

@pytest.fixture(scope='module')
def expected(net, folder): return collect(net, FolderPool(folder), **SETTINGS)

def assert_equal(table, expected, noise=True):
    "Equal bit for bit: the same batches went through the network."
    assert np.array_equal(table.index, expected.index)
    assert np.array_equal(table.stats, expected.stats)
    if noise: assert np.array_equal(table.noise, expected.noise)


# --- tar shards

def add(tar, name, data):
    m = tarfile.TarInfo(name)
    m.size = len(data)
    tar.addfile(m, io.BytesIO(data))

def write_tars(d, images, labels=LABELS, inside=lambda k: f'train/{k}/deep' + '/long' * 30):
    "WebDataset shards of unequal size: an image, its .cls and a .json under one key."
    items = list(images.items())
    for k, (a, b) in enumerate(zip(CUTS, CUTS[1:])):
        sub = d / 'sub' if k == 2 else d  # shards may lie in folders
        sub.mkdir(parents=True, exist_ok=True)
        with tarfile.open(sub / f'shard-{k:06d}.tar', 'w') as tar:
            for i, (name, data) in enumerate(items[a:b], a):
                add(tar, f'{inside(k)}/{name}', data)
                add(tar, f'{inside(k)}/{name[:-4]}.json', b'{}')
                if labels is not None and labels[i] is not None: add(tar, f'{inside(k)}/{name[:-4]}.cls', str(labels[i]).encode())
    return d

def files(d): return sorted(p.relative_to(d).as_posix() for p in Path(d).rglob('*'))

def test_tar_shards(net, images, expected, tmp_path, monkeypatch):
    d, scratch, work = write_tars(tmp_path / 'tars', images), tmp_path / 'scratch', tmp_path / 'work'
    before = files(d)
    for p in (scratch, work): p.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(scratch))
    monkeypatch.chdir(work)
    for name in ('extract', 'extractall'):
        monkeypatch.setattr(tarfile.TarFile, name, lambda *a, **k: pytest.fail('a tar was unpacked'))
    pool = open_pool(d)
    assert isinstance(pool, TarPool) and len(pool) == N
    assert np.array_equal(pool.labels, LABELS)
    assert len({pool.name(i) for i in range(N)}) == N and pool.name(0).endswith('/0000.png')
    assert [pool.name(i).rsplit('/', 1)[-1] for i in range(N)] == list(images)
    table = collect(net, pool, out=tmp_path / 'table', **SETTINGS)
    assert_equal(table, expected)
    assert np.array_equal(table.labels, LABELS)
    assert table.digests.to_pylist() == expected.digests.to_pylist()
    assert files(d) == before and not files(scratch) and not files(work)  # nothing was unpacked

@pytest.mark.parametrize('kind', ['tar', 'parquet'])
def test_shards_through_worker_processes(net, images, folder, tmp_path, kind):
    write = dict(tar=write_tars, parquet=write_parquets)[kind]
    pools = FolderPool(folder), open_pool(write(tmp_path / 'shards', images))
    whole = [list(load_batches(p, net.preprocess, None, 16, w, 32)) for p, w in zip(pools, (0, 2))]
    for a, b in zip(*whole, strict=True):
        assert torch.equal(a.images, b.images) and a.digests == b.digests

def test_one_tar_file_is_a_pool(net, images, expected, tmp_path):
    d = write_tars(tmp_path, images)
    table = collect(net, open_pool(d / 'shard-000000.tar'), **SETTINGS)
    assert len(table) == 25 and np.allclose(table.stats, expected.stats[:25], rtol=1e-4, atol=1e-5)  # the last batch is smaller

@pytest.mark.parametrize('labels', [None, [None, *LABELS[1:]]], ids=['none', 'one missing'])
def test_tar_without_all_labels_has_none(images, tmp_path, labels):
    assert open_pool(write_tars(tmp_path, images, labels)).labels is None

def test_a_label_that_is_no_number_is_named(images, tmp_path):
    with pytest.raises(InputError, match=r'0003\.cls'): open_pool(write_tars(tmp_path, images, [*LABELS[:3], 'cat', *LABELS[4:]]))

@pytest.mark.parametrize('where', ['data', 'header', 'between', 'nowhere'])
def test_truncated_tar_is_refused(images, tmp_path, where):
    "At any place, also between two images; and one whose second half is something else."
    d = write_tars(tmp_path, images, inside=lambda k: 'train')
    shard = d / 'shard-000001.tar'
    with tarfile.open(shard) as tar: middle = [m for m in tar if m.name.endswith('.png')][10]
    if where == 'nowhere':
        data = shard.read_bytes()
        shard.write_bytes(data[:middle.offset] + b'\xff' * (len(data) - middle.offset))
    else: os.truncate(shard, dict(data=middle.offset_data + middle.size // 2, header=middle.offset + 100, between=middle.offset)[where])
    with pytest.raises(InputError, match=r'shard-000001\.tar cannot be read'): open_pool(d)

def test_compressed_tar_is_refused(images, tmp_path):
    for name in ('a.tar', 'b.tar.gz'):
        with tarfile.open(tmp_path / name, 'w:gz') as tar: add(tar, '0000.png', images['0000.png'])
    with pytest.raises(InputError, match=r'a\.tar cannot be read as an uncompressed tar'): open_pool(tmp_path / 'a.tar')
    with pytest.raises(InputError, match=r'b\.tar\.gz'): open_pool(tmp_path / 'b.tar.gz')

def test_tar_without_images_is_refused(tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar: add(tar, 'read.me', b'x')
    with pytest.raises(InputError, match='no images'): open_pool(tmp_path / 'a.tar')


# --- Parquet shards

def write_parquets(d, images, group=7):
    "Shards of unequal size in the Hugging Face layout, several row groups each."
    import pyarrow as pa, pyarrow.parquet as pq
    d.mkdir(parents=True, exist_ok=True)
    items = list(images.items())
    for k, (a, b) in enumerate(zip(CUTS, CUTS[1:])):
        t = pa.table({'image': [{'bytes': data, 'path': name} for name, data in items[a:b]], 'label': pa.array(LABELS[a:b])})
        pq.write_table(t, d / f'train-{k:05d}-of-00003.parquet', row_group_size=group)
    return d

def test_parquet_shards(net, images, expected, tmp_path, monkeypatch):
    import pyarrow.parquet as pq
    read, original = [], pq.ParquetFile.read_row_group
    def count(self, k, *a, **kw):
        read.append(k)
        return original(self, k, *a, **kw)
    monkeypatch.setattr(pq.ParquetFile, 'read_row_group', count)
    pool = open_pool(write_parquets(tmp_path / 'shards', images))
    assert isinstance(pool, ParquetPool) and len(pool) == N
    assert pool.fingerprint and not read  # no image is read to open the pool
    assert np.array_equal(pool.labels, LABELS)
    table = collect(net, pool, **SETTINGS)
    assert len(read) == sum(-(-(b - a) // 7) for a, b in zip(CUTS, CUTS[1:]))  # each row group once, one at a time
    assert_equal(table, expected)
    assert np.array_equal(table.labels, LABELS)
    assert table.digests.to_pylist() == expected.digests.to_pylist()
    assert table.names.to_pylist() == list(images)


# --- objects of Python

def test_hugging_face_dataset(net, images, folder, expected):
    datasets = pytest.importorskip('datasets')
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=[f'class {k}' for k in range(10)]))
    byte, path = ([{'bytes': b, 'path': None} for b in images.values()], [str(folder / n) for n in images])
    for rows in (byte, path):  # images inside the table, and files beside it
        dataset = datasets.Dataset.from_dict({'image': rows, 'label': LABELS.tolist()}, features=features)
        pool = open_pool(dataset)
        assert isinstance(pool, DatasetPool) and len(pool) == N and pool.classes[3] == 'class 3'
        table = collect(net, dataset, **SETTINGS)
        assert np.array_equal(table.labels, LABELS)
        assert_equal(table, expected)

def test_hugging_face_dataset_of_ordinary_images(net, tmp_path):
    "As above, for 8-bit RGB and grey alone."
    datasets = pytest.importorskip('datasets')
    items = [encoded(picture(i)) for i in range(N) if picture(i).mode in ('RGB', 'L')]
    for k, data in enumerate(items): (tmp_path / f'{k:04d}.png').write_bytes(data)
    dataset = datasets.Dataset.from_dict({'img': [{'bytes': b, 'path': None} for b in items]}).cast_column('img', datasets.Image())
    table = collect(net, dataset, **SETTINGS)
    assert_equal(table, collect(net, FolderPool(tmp_path), **SETTINGS))
    assert table.labels is None

def test_datasets_without_rows_by_number_are_refused(net):
    datasets = pytest.importorskip('datasets')
    dataset = datasets.Dataset.from_dict({'image': [{'bytes': encoded(picture(0)), 'path': None}]}).cast_column('image', datasets.Image())
    with pytest.raises(InputError, match='IterableDataset'): collect(net, dataset.to_iterable_dataset(), **SETTINGS)
    with pytest.raises(InputError, match='DatasetDict'): collect(net, datasets.DatasetDict(train=dataset), **SETTINGS)

def test_torch_data_loader(net, folder, expected):
    from torch.utils.data import DataLoader, TensorDataset
    pool = FolderPool(folder)
    x = torch.stack([net.preprocess(pool.image(i)) for i in range(N)])
    loader = DataLoader(TensorDataset(x, torch.from_numpy(LABELS)), batch_size=16)
    table = collect(net, loader, noise=4, chunk=32)
    assert_equal(table, expected, noise=False)  # its noise has the range of its own images
    assert np.array_equal(table.labels, LABELS) and table.meta['pool']['source'] == 'DataLoader'
    only = collect(net, DataLoader(TensorDataset(x), batch_size=16), noise=4, chunk=32)
    assert_equal(only, table)
    assert only.labels is None
    other = collect(net, DataLoader(x, batch_size=50), noise=4, chunk=32)  # other batches: equal but for rounding
    assert len(other) == N and np.allclose(other.stats, expected.stats, rtol=1e-4, atol=1e-5)


# --- shards that change while they are read

@pytest.mark.parametrize('kind', ['tar', 'parquet'])
@pytest.mark.parametrize('change, word', [('another', 'changed'), ('same size', 'changed'), ('gone', 'vanished')])
def test_changing_shards_are_noticed(net, images, tmp_path, kind, change, word):
    write = dict(tar=write_tars, parquet=write_parquets)[kind]
    pool, seen = open_pool(write(tmp_path / 'shards', images)), []
    last = pool.files[-1]
    def alter(*_):
        seen.append(1)
        if len(seen) != 4: return  # sites, layout, noise, then the first batch
        if change == 'gone': last.unlink()
        elif change == 'another': write(tmp_path / 'shards', {n: encoded(picture(i, 40)) for i, n in enumerate(images)})
        else:
            data = bytearray(last.read_bytes())
            data[len(data) // 3] ^= 1
            last.write_bytes(data)
    handle = net.module.register_forward_pre_hook(alter)
    try:
        with pytest.raises(InputError, match=f'{word} during the run'): collect(net, pool, **SETTINGS)
    finally: handle.remove()
    assert len(seen) >= 4

@pytest.mark.parametrize('workers', [0, 2])
def test_a_damaged_parquet_shard_is_refused_by_name(net, images, tmp_path, workers):
    import pyarrow.parquet as pq
    d = write_parquets(tmp_path / 'shards', images)
    shard = d / 'train-00001-of-00003.parquet'
    start = pq.read_metadata(shard).row_group(1).column(0).data_page_offset
    data = bytearray(shard.read_bytes())
    data[start:start + 8] = b'\xff' * 8  # the page header
    shard.write_bytes(data)
    with pytest.raises(InputError, match='train-00001-of-00003') as e: collect(net, open_pool(d), workers=workers, **SETTINGS)
    assert 'Traceback' not in str(e.value)  # one line, also from a worker process


# --- fast decoding

def photograph(w, h, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((w, h), Image.Resampling.BICUBIC)

@pytest.mark.parametrize('w, h', [(63, 63), (63, 500), (500, 40), (32, 32), (20, 20)])
def test_fast_decode_leaves_small_images_as_they_are(w, h):
    data = encoded(photograph(w, h), 'JPEG')
    assert np.array_equal(np.asarray(decode_image(data, 32)), np.asarray(decode_image(data)))

@pytest.mark.parametrize('w, h', [(64, 64), (64, 90), (129, 128), (300, 200), (257, 511), (1000, 600)])
@pytest.mark.parametrize('turned', [False, True])
def test_fast_decode_shrinks_large_jpegs_not_below_the_target(w, h, turned):
    exif = Image.Exif()
    if turned: exif[0x0112] = 6
    data = encoded(photograph(w, h), 'JPEG', exif=exif)
    full, fast = decode_image(data).size, decode_image(data, 32).size
    assert full == ((h, w) if turned else (w, h))
    assert 32 <= min(fast) < 2 * 32 or fast[0] == -(-full[0] // 8)  # 1/8 is the least there is
    assert fast[0] < full[0] and fast[1] < full[1]
    assert abs(fast[0] / fast[1] - full[0] / full[1]) < .1 * full[0] / full[1]

def test_fast_decode_leaves_other_formats_as_they_are():
    for kind in ('PNG', 'BMP', 'TIFF', 'GIF', 'PPM'):
        data = encoded(photograph(400, 300), kind)
        assert np.array_equal(np.asarray(decode_image(data, 32)), np.asarray(decode_image(data)))

def test_fast_decode_on_the_command_line(tmp_path, capsys):
    from selectq.cli import main
    from selectq.table import load_table
    tables = {}
    for name, side in (('small', 60), ('large', 400)):
        (tmp_path / name).mkdir()
        for i in range(6): photograph(side, side + 3, i).save(tmp_path / name / f'{i}.jpg', quality=95)
        for fast in (False, True):
            out = tmp_path / f'{name}-{fast}'
            with pytest.raises(SystemExit) as e:
                main(['stats', 'digits', str(tmp_path / name), '--out', str(out), '--workers', '0', '--noise', '4', '--device', 'cpu', *['--fast-decode'] * fast])
            assert e.value.code == 0
            tables[name, fast] = load_table(out)
            assert tables[name, fast].meta['preprocess']['draft'] is fast
    assert np.array_equal(tables['small', True].stats, tables['small', False].stats)
    a, b = (tables['large', f].stats.ravel() for f in (True, False))
    assert not np.array_equal(a, b) and np.corrcoef(a, b)[0, 1] > .99
