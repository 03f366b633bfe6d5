"""The potential as a client of programs that move the atoms: over ASE's socket server, and with i-PI."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.calculators.socketio import SocketIOCalculator, actualunixsocketname
from structures import potential, rattled_crystal, water

from lrc_ase import LRCCalculator, save_potential

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "engines"
I_PI = Path(sys.executable).with_name("i-pi")
needs_ipi = pytest.mark.skipif(find_spec("ipi") is None or not I_PI.exists(), reason="needs pip install 'lrc-ase[ipi]'")


def started(*command, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([str(word) for word in command], cwd=folder, env=environment, **pipes)


def client(file, structure, name, folder):
    command = [sys.executable, "-m", "lrc_ase.cli", "serve", file, structure, "--unix", name, "--threads", "1"]
    return started(*command, folder=folder)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "potential.safetensors"
    save_potential(path, potential())
    return path


@pytest.mark.parametrize("make", [rattled_crystal, water])
def test_ase_moves_atoms_and_asks_over_a_socket(file, tmp_path, make):
    atoms, name = make(), f"lrc-{os.getpid()}-{make.__name__}"
    ase.io.write(tmp_path / "start.extxyz", atoms)
    with SocketIOCalculator(unixsocket=name, timeout=120) as server:
        running = client(file, tmp_path / "start.extxyz", name, tmp_path)
        atoms.calc = server
        expected = LRCCalculator(file)
        for _ in range(3):
            atoms.rattle(0.02, seed=1)
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            alone = atoms.copy()
            alone.calc = expected
            assert energy == pytest.approx(alone.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(forces, alone.get_forces(), rtol=0, atol=1e-9)
            if atoms.pbc.all():
                np.testing.assert_allclose(atoms.get_stress(), alone.get_stress(), rtol=0, atol=1e-10)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 0, output


def test_nobody_listens(file, tmp_path):
    ase.io.write(tmp_path / "start.extxyz", water())
    for options, where in [
        (["--unix", "nobody-there"], "the Unix socket nobody-there"),
        (["--port", "1"], "localhost:1"),
    ]:
        command = [sys.executable, "-m", "lrc_ase.cli", "serve", file, "start.extxyz", *options]
        running = started(*command, folder=tmp_path)
        output, _ = running.communicate(timeout=120)
        assert running.returncode == 1
        assert f"no server listens at {where}: start i-PI (or the server) first" in output


@needs_ipi
@pytest.mark.parametrize("name", ["pimd", "replica_exchange"])
def test_ipi_deals_beads_and_replicas_among_two_clients(file, tmp_path, name):
    socket = f"lrc-{os.getpid()}-{name}"
    text = (EXAMPLES / f"{name}.xml").read_text().replace("<address> lrc </address>", f"<address> {socket} </address>")
    (tmp_path / "input.xml").write_text(text)
    script = EXAMPLES / "make_start.py"
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, capture_output=True)
    server = started(I_PI, "input.xml", folder=tmp_path)
    path = Path(actualunixsocketname(socket))
    limit = time.monotonic() + 120
    while not path.exists() and server.poll() is None and time.monotonic() < limit:
        time.sleep(0.2)
    clients = [client(file, "start.extxyz", socket, tmp_path) for _ in range(2)]
    output, _ = server.communicate(timeout=300)
    assert server.returncode == 0, output
    for running in clients:
        said, _ = running.communicate(timeout=60)
        assert running.returncode == 0, said
    results = sorted(tmp_path.glob("*.out"))
    assert len(results) == (1 if name == "pimd" else 4)
    for result in results:
        table = np.loadtxt(result)
        assert table.shape[0] == 11
        assert np.isfinite(table).all()
    if name == "pimd":
        # that of a real step is checked against ASE: the first potential energy, averaged over equal beads
        atoms = ase.io.read(tmp_path / "start.extxyz")
        atoms.calc = LRCCalculator(file)
        assert table[0, -1] == pytest.approx(atoms.get_potential_energy(), rel=1e-7)
