"""The potential in torch-sim: its own contract, and the numbers of ASE for every system of a batch."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from structures import ELEMENTS, potential, rattled_crystal, settings, shaken_model, water

from lrc_ase import LongRangeSettings, LRCCalculator, Potential, save_potential

torch_sim = pytest.importorskip("torch_sim", reason="needs pip install 'lrc-ase[torchsim]'")
from torch_sim.models.interface import validate_model_outputs  # noqa: E402

from lrc_ase.engines.torchsim import TorchSimModel  # noqa: E402
from lrc_ase.models.baselines import ranges_from_data  # noqa: E402
from lrc_ase.models.settings import SphereSettings  # noqa: E402

CPU = torch.device("cpu")


def neutral(wrapped_potential, **options):
    return TorchSimModel(wrapped_potential, charge=0.0, **options)


def assert_as_ase(actual, frames, calculator):
    first = 0
    for index, atoms in enumerate(frames):
        rows = slice(first, first + len(atoms))
        first += len(atoms)
        atoms.calc = calculator
        assert float(actual["energy"][index]) == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(actual["forces"][rows], atoms.get_forces(), rtol=0, atol=1e-10)
        np.testing.assert_allclose(actual["charges"][rows], atoms.get_charges(), rtol=0, atol=1e-10)
        if atoms.pbc.all():
            np.testing.assert_allclose(actual["stress"][index], atoms.get_stress(voigt=False), rtol=0, atol=1e-12)


def test_it_keeps_the_contract_of_torch_sim():
    other_settings = settings(elements=("H", "C", "Mg", "Si", "Fe"))
    model = neutral(Potential(shaken_model(other_settings), torch.zeros(5, dtype=torch.float64)))
    validate_model_outputs(model, CPU, torch.float64)
    assert model.dtype == torch.float64
    assert model.compute_stress


def test_atoms_in_place_of_a_state_are_named():
    for strange in (water(), [water()]):
        with pytest.raises(TypeError, match=r"expected a SimState, got atoms of ASE: `torch_sim\.io\.atoms_to_state`"):
            neutral(potential())(strange)


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
    model = neutral(potential())
    assert_as_ase(model(state), frames, LRCCalculator(potential()))
    as_dictionary = {
        name: getattr(state, name) for name in ("positions", "cell", "pbc", "atomic_numbers", "system_idx")
    }
    torch.testing.assert_close(model(as_dictionary)["forces"], model(state)["forces"], rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"descriptor": SphereSettings(n_channels=18, n_blocks=2, neighbor_degree=1)},
        {"long_range": LongRangeSettings(polarizable=True, n_dipoles=2, n_tensors=1)},
        {"baseline": [{"zbl": {"ranges": ranges_from_data({"Na-Cl": 3.6}, ELEMENTS, {}, 4.5)}}]},
    ],
    ids=["two blocks", "dipoles and tensors", "core repulsion"],
)
def test_other_models_are_as_ase(changes):
    made = Potential(shaken_model(settings(**changes)), torch.zeros(4, dtype=torch.float64))
    frames = [rattled_crystal(), rattled_crystal(repeat=(2, 1, 1), seed=1)]
    actual = neutral(made)(torch_sim.io.atoms_to_state(frames, CPU, torch.float64))
    assert_as_ase(actual, frames, LRCCalculator(made))


def test_neighbors_follow_motion_cells_and_systems():
    model, calculator = neutral(potential(), skin=0.3), LRCCalculator(potential())
    frames = [rattled_crystal(), rattled_crystal(seed=4)]
    for change in range(4):
        if change == 1:
            frames[1].rattle(0.01, seed=1)
        elif change == 2:
            frames[0].positions[2] += [0.4, 0.1, -0.2]
        elif change == 3:
            frames[1].set_cell(frames[1].cell.array * 1.01, scale_atoms=True)
        actual = model(torch_sim.io.atoms_to_state(frames, CPU, torch.float64))
        assert_as_ase(actual, frames, calculator)
    actual = model(torch_sim.io.atoms_to_state(frames[1:], CPU, torch.float64))
    assert_as_ase(actual, frames[1:], calculator)


def test_a_field_acts_as_in_ase_and_wrapped_atoms_are_followed():
    field = (0.1, -0.2, 0.3)
    model, calculators = neutral(potential(), electric_field=field), []
    frames = [rattled_crystal(), rattled_crystal(repeat=(2, 1, 1), seed=1)]
    for step in range(3):
        if step == 1:
            frames[0].positions[1] += frames[0].cell[2] + [0.1, 0, 0]
        elif step == 2:
            frames[1].positions[5] -= 2 * frames[1].cell[0]
        actual = model(torch_sim.io.atoms_to_state(frames, CPU, torch.float64))
        calculators = calculators or [LRCCalculator(potential(), electric_field=field) for _ in frames]
        for index, (atoms, calculator) in enumerate(zip(frames, calculators, strict=True)):
            assert float(actual["energy"][index]) == pytest.approx(calculator.get_potential_energy(atoms), abs=1e-8)
        forces = [calculator.get_forces(atoms) for atoms, calculator in zip(frames, calculators, strict=True)]
        np.testing.assert_allclose(actual["forces"], np.concatenate(forces), rtol=0, atol=1e-9)
        stress = [calculator.get_stress(atoms) for atoms, calculator in zip(frames, calculators, strict=True)]
        np.testing.assert_allclose(actual["stress"][:, 0, 0], [each[0] for each in stress], rtol=0, atol=1e-11)
    plain = neutral(potential())(torch_sim.io.atoms_to_state(frames, CPU, torch.float64))
    assert (plain["forces"] - actual["forces"]).abs().max() > 0.01


def test_fields_that_cannot_act_are_refused():
    with pytest.raises(ValueError, match="acts on latent charges, and this model has none"):
        neutral(potential(settings(long_range=False)), electric_field=(0, 0, 0.1))
    with pytest.raises(ValueError, match="`electric_field` must be three numbers"):
        neutral(potential(), electric_field=0.1)
    charged = TorchSimModel(potential(), charge=1.0, electric_field=(0, 0, 0.1))
    with pytest.raises(ValueError, match=r"along a periodic direction .* needs a neutral cell"):
        charged(torch_sim.io.atoms_to_state([rattled_crystal()], CPU, torch.float64))


def test_charge_without_a_path_is_warned_of():
    shifted = settings(long_range=LongRangeSettings(n_channels=2, accuracy=1e-4, charges="shifted"))
    model = neutral(potential(shifted), electric_field=(0, 0, 0.1))
    state = torch_sim.io.atoms_to_state([rattled_crystal()], CPU, torch.float64)
    with pytest.warns(UserWarning, match="moves without a path between atoms: in a field along a periodic direction"):
        model(state)
    model(state)  # says it once


def test_precision_follows_the_state():
    state = torch_sim.io.atoms_to_state([rattled_crystal()], CPU, torch.float32)
    actual = neutral(potential(), dtype=torch.float32, compute_stress=False)(state)
    assert {value.dtype for value in actual.values()} == {torch.float32}
    assert "stress" not in actual


def test_its_own_dynamics_run():
    frames = [rattled_crystal(), rattled_crystal(repeat=(1, 2, 1), seed=3)]
    model = neutral(potential())
    final = torch_sim.integrate(
        system=frames,
        model=model,
        integrator=getattr(torch_sim, "Integrator", torch_sim).nve,
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


def charged_state(*charges):
    """As states of a torch-sim that carries charges."""
    state = torch_sim.io.atoms_to_state(
        [rattled_crystal(seed=seed) for seed, _ in enumerate(charges)], CPU, torch.float64
    )
    state.charge = torch.tensor(charges)
    return state


def charged_frames(*charges):
    frames = [rattled_crystal(seed=seed) for seed, _ in enumerate(charges)]
    for atoms, charge in zip(frames, charges, strict=True):
        atoms.info["charge"] = charge
    return frames


def test_charges_of_the_state_are_those_of_ase():
    model, calculator = TorchSimModel(potential()), LRCCalculator(potential())
    assert_as_ase(model(charged_state(1.0, -2.0)), charged_frames(1.0, -2.0), calculator)
    assert_as_ase(model(charged_state(0.0, 1.0)), charged_frames(0.0, 1.0), calculator)  # the list is searched anew
    state = charged_state(-1.0)
    as_dictionary = {name: getattr(state, name) for name in ("positions", "cell", "pbc", "atomic_numbers", "charge")}
    assert_as_ase(model(as_dictionary | {"system_idx": state.system_idx}), charged_frames(-1.0), calculator)


def test_the_charge_of_the_model_holds_for_all_systems():
    """torch-sim 0.3 drops the charges of ASE's atoms."""
    frames = charged_frames(1.0, 1.0)
    actual = TorchSimModel(potential(), charge=1.0)(torch_sim.io.atoms_to_state(frames, CPU, torch.float64))
    assert_as_ase(actual, frames, LRCCalculator(potential()))


def test_systems_without_a_charge_are_not_neutral_in_silence():
    frames = charged_frames(1.0)
    state = torch_sim.io.atoms_to_state(frames, CPU, torch.float64)
    model = TorchSimModel(potential())
    with pytest.warns(UserWarning, match=r"all systems count as neutral. Pass charge=0.0"):
        model(state)
    model(state)  # once
    model(charged_state(1.0, -2.0))  # the user said nothing that this state could contradict
    TorchSimModel(potential(settings(long_range=False)))(state)  # knows no charges


def test_charges_that_do_not_fit_are_refused():
    state = charged_state(1.0, 0.0)
    with pytest.raises(ValueError, match=r"the state has charges \[1.0, 0.0\], TorchSimModel was built with 1"):
        TorchSimModel(potential(), charge=1.0)(state)
    state.charge = torch.tensor([1.0])
    with pytest.raises(ValueError, match="`charge` of a state must hold one number for each of 2 systems"):
        TorchSimModel(potential())(state)
    state.charge = torch.tensor([1.0, float("nan")])
    with pytest.raises(ValueError, match="must be finite"):
        TorchSimModel(potential())(state)


@pytest.mark.parametrize("state_of_torch", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off(state_of_torch):
    frames, model = [rattled_crystal()], neutral(potential())
    with state_of_torch():
        state = torch_sim.io.atoms_to_state(frames, CPU, torch.float64)
        actual = model(state)
        made = neutral(potential())
        again = made(state)
    for results in (actual, again, made(state), model(state)):
        assert_as_ase(results, frames, LRCCalculator(potential()))


def test_mesh_is_held_for_the_same_systems_only():
    """A batch has the energies that ASE computes; earlier batches do not matter."""
    first, second = rattled_crystal(repeat=(2, 2, 2)), rattled_crystal(repeat=(2, 2, 2), seed=1)
    model = neutral(potential())
    for length in np.arange(1.0, 1.15, 0.015):
        first.set_cell(rattled_crystal(repeat=(2, 2, 2)).cell.array * length, scale_atoms=True)
        second.set_cell(first.cell.array * 0.93, scale_atoms=True)
        for atoms in (first, second):
            actual = model(torch_sim.io.atoms_to_state([atoms], CPU, torch.float64))
            assert_as_ase(actual, [atoms.copy()], LRCCalculator(potential()))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="`skin` must be zero or a positive length"):
        neutral(potential(), skin=-0.1)
    strange = rattled_crystal()
    strange.symbols[0] = "Au"
    with pytest.raises(ValueError, match="unknown element Au: this model knows"):
        neutral(potential())(torch_sim.io.atoms_to_state([strange], CPU, torch.float64))
