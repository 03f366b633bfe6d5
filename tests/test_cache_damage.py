"""Damaged, interrupted and crowded caches: equal results, an entry made anew, or one clean line."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from structures import water
from test_cache import REQUIRED, assert_equal_graphs, labelled
from training_frames import metal_frames

from lrc_ase.dataset import cache as cache_module
from lrc_ase.dataset import cached_frames, entry_files, label_frame, labelled_graph, read_frames
from lrc_ase.dataset import entries as entries_module
from lrc_ase.dataset.entry_files import FIELDS, DamagedEntryError

resource = pytest.importorskip("resource")  # absent on Windows
ELEMENTS = ("H", "O", "Na", "Cl")
REFERENCES = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
OF_ATOMS_AND_PAIRS = [name for name in FIELDS if name not in entries_module._OF_FRAME]


def small_set(folder):
    """File of a small crystal, and of a molecule of other atoms."""
    salt = bulk("NaCl", "rocksalt", a=5.6)
    salt.rattle(0.1, seed=1)
    frames = [labelled(salt), labelled(water(), charge=1.0)]
    frames[0].calc.results["born_effective_charges"] = np.ones((2, 3, 3))
    ase.io.write(folder / "small.traj", frames)
    return folder / "small.traj"


def opened(file):
    (entry,) = cached_frames(str(file), file.parent / "cache", 4.0, required=REQUIRED, n_workers=1)
    return entry


def graphs_of(entry):
    return [entry.graph(index, ELEMENTS, REFERENCES) for index in range(len(entry))]


def expected_graphs(file):
    return [labelled_graph(label_frame(atoms), ELEMENTS, 4.0, REFERENCES) for atoms in read_frames(file)]


def flip(path, byte, bit=0):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("name", list(FIELDS))
@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "absent"])
def test_an_entry_with_a_damaged_file_is_made_anew(tmp_path, name, damage):
    file = small_set(tmp_path)
    path = opened(file).folder / name
    if damage == "flipped":
        flip(path, path.stat().st_size // 2, 6)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
    elif damage == "longer":
        path.write_bytes(path.read_bytes() * 2)
    else:
        path.unlink()
    with pytest.warns(UserWarning, match=rf"cache entry .* is damaged \(.*{name}.*\): it is made anew"):
        entry = opened(file)
    for actual, expected in zip(graphs_of(entry), expected_graphs(file), strict=True):
        assert_equal_graphs(actual, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(file)


@pytest.mark.parametrize("header", [None, b"", b"{", b"[1, 2]", b"\xff\xfe", b"{}"])
def test_an_entry_without_a_sound_header_is_made_anew(tmp_path, header):
    file = small_set(tmp_path)
    path = opened(file).folder / "header.json"
    if header is None:
        path.unlink()
    else:
        path.write_bytes(header)
    with pytest.warns(UserWarning, match=r"is damaged \(header.json.*\): it is made anew") as record:
        assert len(opened(file)) == 2
    assert "\n" not in str(record[0].message)


@pytest.mark.parametrize(("key", "value"), [("n_frames", 3), ("n_frames", 0), ("cutoff", 5.0), ("format_version", 9)])
def test_an_entry_with_the_header_of_another_is_made_anew(tmp_path, key, value):
    file = small_set(tmp_path)
    path = opened(file).folder / "header.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.warns(UserWarning, match="it is made anew"):
        assert len(opened(file)) == 2


@pytest.mark.parametrize("name", OF_ATOMS_AND_PAIRS)
@pytest.mark.parametrize("damage", ["flipped", "cut", "absent"])
def test_damage_after_opening_is_an_error_at_the_frame(tmp_path, name, damage):
    entry = opened(small_set(tmp_path))
    path = entry.folder / name
    if damage == "flipped":
        flip(path, 0)
    elif damage == "cut":
        os.truncate(path, 0)  # under a mapping this would end the process by SIGBUS
    else:
        path.unlink()
    with pytest.raises(DamagedEntryError, match=r"small\.traj@0 is damaged in the cache \(.*\): delete the folder"):
        entry.graph(0, ELEMENTS, REFERENCES)


@pytest.mark.parametrize("limit", [512, 0])
def test_files_stay_open_only_where_descriptors_are_left(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(entry_files, "_LARGEST_DESCRIPTOR", limit)
    file = small_set(tmp_path)
    entry = opened(file)
    for _ in range(2):
        for actual, expected in zip(graphs_of(entry), expected_graphs(file), strict=True):
            assert_equal_graphs(actual, expected)
    assert len(entry.files.descriptors) == (len(OF_ATOMS_AND_PAIRS) if limit else 0)


def test_large_entries_are_verified_by_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(entries_module, "_VERIFIED_AT_ONCE", 0)
    file = small_set(tmp_path)
    entry = opened(file)
    flip(entry.folder / "position", 0)
    entry = opened(file)
    with pytest.raises(DamagedEntryError, match=r"small\.traj@0 is damaged in the cache \(wrong checksum\)"):
        entry.frame(0)
    assert entry.frame(1).energy == label_frame(read_frames(file)[1]).energy


@pytest.mark.parametrize(("name", "value", "message"), [
    ("neighbor", 2, "a neighbor is not an atom of the frame"),
    ("neighbor", -1, "a neighbor is not an atom of the frame"),
    ("n_neighbors", 999, "numbers of neighbors do not add up"),
    ("n_neighbors", -1, "numbers of neighbors do not add up"),
])  # fmt: skip
def test_indices_out_of_bounds_are_refused_under_a_matching_checksum(tmp_path, monkeypatch, name, value, message):
    monkeypatch.setattr(entries_module, "_VERIFIED_AT_ONCE", 0)
    file = small_set(tmp_path)
    entry = opened(file)
    content = np.fromfile(entry.folder / name, "<i4")
    content[0] = value
    content.tofile(entry.folder / name)
    monkeypatch.setattr(entries_module.zlib, "crc32", lambda data, start=0: int(entry.arrays["pairs_checksum"][0]))
    monkeypatch.setitem(entry.arrays, "atoms_checksum", entry.arrays["pairs_checksum"])
    with pytest.raises(DamagedEntryError, match=message):
        entry.graph(0, ELEMENTS, REFERENCES)


def damage_at_random(folder, rng):
    """Change one file of an entry as failing disks, interrupted copies and other programs do."""
    path = folder / str(rng.choice([*FIELDS, "header.json"]))
    content = bytearray(path.read_bytes())
    kind = rng.integers(6)
    if kind == 0:
        path.unlink()
        return
    if kind == 1:
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    elif kind == 2:
        content = content[: rng.integers(len(content))]
    elif kind == 3:
        content += rng.bytes(rng.integers(1, 50))
    elif kind == 4:
        start = rng.integers(len(content))
        content[start : start + 16] = rng.bytes(len(content[start : start + 16]))
    else:
        content = bytearray((folder / str(rng.choice(list(FIELDS)))).read_bytes())
    path.write_bytes(content)


def test_fuzzed_entries_give_equal_results_or_one_line(tmp_path):
    """100 entries damaged before they are opened, 100 after."""
    file = small_set(tmp_path)
    expected = expected_graphs(file)
    rng = np.random.default_rng(0)
    errors, n_rebuilt = [], 0
    for number in range(200):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            entry = opened(file)
            damage_at_random(entry.folder, rng)
            if number % 2:
                entry = opened(file)
        n_rebuilt += len(record)
        try:
            actual = graphs_of(entry)
        except DamagedEntryError as error:
            errors.append(str(error))
            continue
        for one, other in zip(actual, expected, strict=True):
            assert_equal_graphs(one, other)
    assert len(errors) > 20
    assert n_rebuilt > 100
    assert not [message for message in errors if "\n" in message]


def test_atoms_far_outside_the_cell_keep_their_neighbors(tmp_path):
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    salt.positions[0] += 40_000 * salt.cell[0]
    salt.positions[3] -= 70_000 * salt.cell[1]
    ase.io.write(tmp_path / "far.traj", labelled(salt))
    (graph,) = graphs_of(opened(tmp_path / "far.traj"))
    (expected,) = expected_graphs(tmp_path / "far.traj")
    assert_equal_graphs(graph, expected)
    assert graph.graph.shifts.abs().max() >= 70_000


def test_atoms_beyond_the_precision_of_positions_are_refused(tmp_path):
    salt = bulk("NaCl", "rocksalt", a=5.6)
    salt.positions[0] += 1e17 * salt.cell[0]
    ase.io.write(tmp_path / "far.traj", labelled(salt))
    with pytest.raises(ValueError, match=r"far\.traj@0: ") as error:
        opened(tmp_path / "far.traj")
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    ase.io.write(tmp_path / "frames.extxyz", metal_frames(8))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # writes beyond it fail as on a full disk
    try:
        with pytest.raises(OSError, match="cache") as error:
            opened(tmp_path / "frames.extxyz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").iterdir())


def test_remains_of_killed_processes_are_swept_and_live_ones_kept(tmp_path):
    cache = tmp_path / "cache"
    for name in ("killed", "live"):
        (cache / f".unfinished-{name}").mkdir(parents=True)
        (cache / f".unfinished-{name}" / "energy").write_bytes(b"12345678")
    (cache / ".unfinished-alone.lock").touch()
    with cache_module.exclusive_use(cache / ".unfinished-live.lock", "the other"):
        entry = opened(small_set(tmp_path))
        remaining = {path.name for path in cache.iterdir()}
    assert remaining == {entry.folder.name, ".unfinished-live", ".unfinished-live.lock"}


def test_an_entry_that_another_process_finished_first_is_taken(tmp_path, monkeypatch):
    file = small_set(tmp_path)
    folder = opened(file).folder
    folder.rename(tmp_path / "aside")
    write = cache_module._write

    def slow_write(*arguments):
        header = write(*arguments)
        (tmp_path / "aside").rename(folder)
        return header

    monkeypatch.setattr(cache_module, "_write", slow_write)
    assert len(opened(file)) == 2
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_entries_follow_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        folder = opened(small_set(tmp_path)).folder
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700


FILL = """
import sys, time, multiprocessing
from lrc_ase.dataset import cached_frames, cache
cache._CHUNK, cache._FEWEST_FOR_WORKERS = 2, 4

def stop(count, file):
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(600)

if __name__ == "__main__":
    cached_frames(sys.argv[1], sys.argv[2], 4.0, required=("energy",), n_workers=2, report_progress=stop)
"""


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of processes from /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    ase.io.write(tmp_path / "frames.extxyz", metal_frames(12))
    (tmp_path / "fill.py").write_text(FILL)
    command = [sys.executable, str(tmp_path / "fill.py"), str(tmp_path / "frames.extxyz"), str(tmp_path / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    end = time.monotonic() + 60
    while any(is_running(worker) for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(is_running(worker) for worker in workers)
    assert list((tmp_path / "cache").glob(".unfinished-*"))
    ase.io.write(tmp_path / "other.extxyz", metal_frames(1))
    opened(tmp_path / "other.extxyz")
    assert not list((tmp_path / "cache").glob(".unfinished-*"))
