"""Calculator, engines and commands on a GPU beside the CPU, as users call them."""

from __future__ import annotations

import os
import subprocess
import sys

import ase.io
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from structures import salt_potential
from training_frames import metal_frames

from lrc_ase import LRCCalculator, save_potential
from lrc_ase.files.potential_file import load_potential


def salt(repeat=(1, 1, 1), seed=0):
    """A crystal within the training domain of the shipped potential."""
    atoms = bulk("NaCl", "rocksalt", a=5.7, cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=seed)
    return atoms


REHEARSAL = os.environ.get("LRC_ASE_REHEARSAL") == "1"
PROPERTIES = ["energy", "energies", "forces", "stress", "stresses", "charges", "polarization"]


@pytest.mark.parametrize("potential", ["shipped", "transfers"])
def test_a_calculator_gives_the_numbers_of_the_cpu(potential, device):
    potential = load_potential("nacl") if potential == "shipped" else salt_potential()
    results = []
    for where in ("cpu", device):
        atoms = salt(repeat=(2, 2, 1), seed=7)
        atoms.calc = LRCCalculator(potential, device=where)
        measured = {name: np.array(atoms.calc.get_property(name, atoms)) for name in PROPERTIES}
        measured["born"] = atoms.calc.get_born_effective_charges(atoms)
        measured["polarizability"] = atoms.calc.get_polarizability(atoms)
        atoms.rattle(0.1, seed=5)
        atoms.positions[0] += 0.4  # beyond the skin
        atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
        measured["forces elsewhere"] = atoms.get_forces()
        results.append(measured)
    for name, expected in results[0].items():
        np.testing.assert_allclose(results[1][name], expected, rtol=1e-8, atol=1e-8 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("field", [None, (0.0, 0.0, 0.02)])
def test_a_trajectory_follows_that_of_the_cpu(field, device):
    ends = []
    for where in ("cpu", device):
        atoms = salt(repeat=(2, 2, 2))
        atoms.calc = LRCCalculator(salt_potential(), device=where, electric_field=field)
        atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)))
        VelocityVerlet(atoms, timestep=2 * units.fs).run(50)
        ends.append(atoms.positions)
    np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=1e-8)


def test_torch_sim_on_the_device_gives_the_numbers_of_ase(device):
    torch_sim = pytest.importorskip("torch_sim")
    from lrc_ase.engines.torchsim import TorchSimModel

    frames = [salt(), salt(repeat=(2, 1, 1), seed=1)]
    model = TorchSimModel(salt_potential(), charge=0.0, device=device)
    results = model(torch_sim.io.atoms_to_state(frames, device, torch.float64))
    expected = []
    for atoms in frames:
        atoms.calc = LRCCalculator(salt_potential())
        expected.append(atoms.get_forces())
    np.testing.assert_allclose(results["forces"].cpu().numpy(), np.concatenate(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("strain", [0.0, 1e-3], ids=["fixed cells", "changing cells"])
def test_batches_of_torch_sim_are_recorded(strain, device):
    torch_sim = pytest.importorskip("torch_sim")
    from lrc_ase.engines.torchsim import TorchSimModel

    frames = [salt(seed=seed) for seed in range(3)]
    models = {where: TorchSimModel(salt_potential(), charge=0.0, device=where) for where in ("cpu", device.type)}
    for number in range(7):
        for seed, atoms in enumerate(frames):
            atoms.set_cell(atoms.cell * (1 + strain), scale_atoms=True)
            atoms.rattle(0.01, seed=10 * number + seed)
        results = {
            where: model(torch_sim.io.atoms_to_state(frames, torch.device(where), torch.float64))
            for where, model in models.items()
        }
        for name in ("energy", "forces", "stress", "charges"):
            expected = results["cpu"][name].numpy()
            np.testing.assert_allclose(results[device.type][name].cpu().numpy(), expected, rtol=0, atol=1e-8)
    assert (models[device.type]._evaluate._recorded is not None) == (device.type == "cuda")


def command(*arguments, folder):
    finished = subprocess.run(
        [sys.executable, "-m", "lrc_ase.cli", *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run that was trained on the device."""
    folder, device = tmp_path_factory.mktemp("runs"), "cpu" if REHEARSAL else "cuda"
    ase.io.write(folder / "train.extxyz", metal_frames(12))
    ase.io.write(folder / "test.extxyz", metal_frames(4, seed=1))
    ase.io.write(folder / "start.extxyz", metal_frames(1, seed=2))
    options = ("--epochs", 3, "--model", "accurate", "--ensemble", 2, "--device", device)
    command("train", "train.extxyz", "-o", "run", *options, folder=folder)
    return folder


def test_training_goes_on(trained):
    command("train", "-o", "run", "--resume", "--epochs", 5, folder=trained)


def test_errors_are_those_of_the_cpu(trained, device):
    errors = [
        command("evaluate", "run", "test.extxyz", "--device", where, "--dtype", "float64", folder=trained)
        for where in ("cpu", device.type)
    ]
    assert errors[0] == errors[1]


def test_commands_relax_and_simulate(trained, device):
    command("relax", "run", "start.extxyz", "--device", device.type, "--fmax", 1.0, folder=trained)
    options = ("--device", device.type, "--steps", 20, "--temperature", 300, "--output", "md.traj")
    command("md", "run", "start.extxyz", *options, folder=trained)
    assert len(ase.io.read(trained / "md.traj", ":")) > 1


def test_a_potential_saved_from_the_device_loads_on_the_cpu(tmp_path, device):
    potential = salt_potential()
    there = potential.for_evaluation(device, "float64")
    save_potential(tmp_path / "there.safetensors", there)
    atoms, energies = salt(), []
    for each in (potential, load_potential(tmp_path / "there.safetensors")):
        atoms.calc = LRCCalculator(each)
        energies.append(atoms.get_potential_energy())
    assert energies[1] == pytest.approx(energies[0], rel=1e-14)


def test_the_message_of_a_full_device_says_what_to_do(device):
    if device.type == "cpu":
        pytest.skip("for a GPU")
    from ase.calculators.calculator import CalculationFailed

    atoms = salt(repeat=(16, 16, 16))
    atoms.calc = LRCCalculator(load_potential("nacl"), device=device)
    # 1% of the memory for this process; others on the device do not notice
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        with pytest.raises(CalculationFailed, match="memory"):
            atoms.get_forces()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert np.isfinite(atoms.get_forces()).all()
