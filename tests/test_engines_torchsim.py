"""The potential in torch-sim: its own contract, and the numbers of ASE for every system of a batch."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from structures import potential, rattled_crystal, settings, shaken_model, water

from lrc_ase import LRCCalculator, Potential, save_potential

torch_sim = pytest.importorskip("torch_sim", reason="needs pip install 'lrc-ase[torchsim]'")
from torch_sim.models.interface import validate_model_outputs  # noqa: E402

from lrc_ase.engines.torchsim import TorchSimModel  # noqa: E402

CPU = torch.device("cpu")


def assert_as_ase(found, frames, calculator):
    first = 0
    for index, atoms in enumerate(frames):
        own = slice(first, first + len(atoms))
        first += len(atoms)
        atoms.calc = calculator
        assert float(found["energy"][index]) == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(found["forces"][own], atoms.get_forces(), rtol=0, atol=1e-10)
        np.testing.assert_allclose(found["charges"][own], atoms.get_charges(), rtol=0, atol=1e-10)
        if atoms.pbc.all():
            np.testing.assert_allclose(found["stress"][index], atoms.get_stress(voigt=False), rtol=0, atol=1e-12)


def test_it_keeps_the_contract_of_torch_sim():
    own = settings(elements=("Si", "Fe"))
    model = TorchSimModel(Potential(shaken_model(own), torch.zeros(2, dtype=torch.float64)))
    validate_model_outputs(model, CPU, torch.float64)
    assert model.dtype == torch.float64
    assert model.compute_stress


@pytest.mark.parametrize(
    "frames",
    [
        [rattled_crystal(), rattled_crystal(repeat=(2, 1, 1), seed=1), rattled_crystal(seed=2)[:5]],
        [water(), water()[:1]],
    ],
    ids=["periodic", "open"],
)
def test_a_batch_of_different_sizes_is_as_ase_one_by_one(frames):
    state = torch_sim.io.atoms_to_state(frames, CPU, torch.float64)
    model = TorchSimModel(potential())
    assert_as_ase(model(state), frames, LRCCalculator(potential()))
    as_dictionary = {
        name: getattr(state, name) for name in ("positions", "cell", "pbc", "atomic_numbers", "system_idx")
    }
    torch.testing.assert_close(model(as_dictionary)["forces"], model(state)["forces"], rtol=0, atol=0)


def test_neighbors_follow_motion_cells_and_systems():
    model, calculator = TorchSimModel(potential(), skin=0.3), LRCCalculator(potential())
    frames = [rattled_crystal(), rattled_crystal(seed=4)]
    for change in range(4):
        if change == 1:
            frames[1].rattle(0.01, seed=1)
        elif change == 2:
            frames[0].positions[2] += [0.4, 0.1, -0.2]
        elif change == 3:
            frames[1].set_cell(frames[1].cell.array * 1.01, scale_atoms=True)
        found = model(torch_sim.io.atoms_to_state(frames, CPU, torch.float64))
        assert_as_ase(found, frames, calculator)
    found = model(torch_sim.io.atoms_to_state(frames[1:], CPU, torch.float64))
    assert_as_ase(found, frames[1:], calculator)


def test_precision_follows_the_state():
    state = torch_sim.io.atoms_to_state([rattled_crystal()], CPU, torch.float32)
    found = TorchSimModel(potential(), dtype=torch.float32, compute_stress=False)(state)
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert "stress" not in found


def test_its_own_dynamics_run():
    frames = [rattled_crystal(), rattled_crystal(repeat=(1, 2, 1), seed=3)]
    model = TorchSimModel(potential())
    final = torch_sim.integrate(
        system=frames,
        model=model,
        integrator=torch_sim.nve,
        n_steps=5,
        temperature=300,
        timestep=0.001,
        pbar=False,
    )
    assert final.n_systems == 2
    assert torch.isfinite(final.positions).all()


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    save_potential(tmp_path / "potential.safetensors", potential())
    example = Path(__file__).parents[1] / "examples" / "engines" / "many_systems.py"
    monkeypatch.setattr(sys, "argv", [str(example), str(tmp_path / "potential.safetensors")])
    runpy.run_path(str(example), run_name="__main__")
    assert "64 systems, 1016 atoms; lowest energy" in capsys.readouterr().out


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="`skin` must be zero or a positive length"):
        TorchSimModel(potential(), skin=-0.1)
    strange = rattled_crystal()
    strange.symbols[0] = "Au"
    with pytest.raises(ValueError, match="unknown element Au: this model knows"):
        TorchSimModel(potential())(torch_sim.io.atoms_to_state([strange], CPU, torch.float64))
