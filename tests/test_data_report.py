"""The report on frames: what it counts, and the mistakes in data that it finds."""

from __future__ import annotations

import json
import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.units import Bohr, GPa, Hartree, Rydberg, kcal, kJ, mol
from rich.console import Console
from training_frames import metal_frames
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.dataset import LabelledFrame, inspect_frames, inspection, label_frame
from lrc_ase.dataset.outliers import force_noise


def trajectory(n_frames=12, *, energy=1.0, forces=1.0, positions=1.0, stress=1.0):
    """Frames along a random walk of one crystal, labels and positions times factors."""
    rng = np.random.default_rng(0)
    atoms = bulk("Cu", cubic=True)
    frames = []
    for number in range(n_frames):
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        labels = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
        scaled = atoms.copy()
        scaled.set_cell(positions * atoms.cell.array, scale_atoms=True)
        frames.append(
            LabelledFrame(scaled, energy * labels[0], forces * labels[1], stress * labels[2], f"walk@{number}")
        )
    return frames


def warnings_of(**factors):
    return " / ".join(inspect_frames({"walk": trajectory(**factors)}).warnings)


def test_sound_frames_raise_no_warning():
    report = inspect_frames({"walk": trajectory(), "metals": [label_frame(atoms) for atoms in metal_frames(20)]})
    assert report.warnings == ()
    assert report.sets == ("walk", "metals")
    assert report.rows["frames"] == ("12", "20")
    assert report.rows["atoms per frame"] == ("4", "4")
    assert report.rows["compositions"][0] == "Cu4 (12)"
    assert report.rows["boundaries"] == ("periodic (12)", "periodic (20)")
    assert report.rows["with stress"] == ("all", "all")


def test_numbers_are_those_of_the_frames():
    frames = trajectory()
    rows = inspect_frames({"walk": frames}).rows
    components = np.concatenate([frame.forces for frame in frames])
    assert float(rows["force: RMS of components (eV/Angstrom)"][0]) == pytest.approx(
        np.sqrt((components**2).mean()), rel=1e-3
    )
    largest = np.linalg.norm(components, axis=1).max()
    assert float(rows["force: median, 99%, largest (eV/Angstrom)"][0].split()[-1]) == pytest.approx(largest, rel=1e-2)
    pair, distance = rows["shortest distances (Angstrom)"][0].split()
    shortest = min(frame.atoms.get_all_distances(mic=True)[~np.eye(4, dtype=bool)].min() for frame in frames)
    assert (pair, float(distance)) == ("Cu-Cu", pytest.approx(shortest, abs=6e-3))


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"energy": mol / kcal}, r"energies change by 2[234]\S* times the work .* energies are in kcal/mol"),
        ({"forces": mol / kcal}, "the forces are in kcal/mol/Angstrom but the energies in eV"),
        ({"energy": 1 / Hartree}, "energies are in Hartree but the forces in eV/Angstrom"),
        ({"forces": Bohr / Hartree}, "forces are in Hartree/Bohr but the energies in eV"),
        ({"energy": 1 / Hartree, "forces": Bohr / Hartree}, "in atomic units .* but positions in Angstrom"),
        ({"forces": Bohr / Rydberg}, r"bonds are 0\.0\S+ times as stiff as usual: .* in Hartree/Bohr or Rydberg/Bohr"),
        ({"forces": Bohr / Rydberg}, "forces are in Rydberg/Bohr but the energies in eV"),
        ({"energy": 1 / Rydberg}, "energies are in Rydberg but the forces in eV/Angstrom"),
        ({"energy": mol / kJ}, "energies are in kJ/mol"),
        ({"forces": -1}, "stretched bonds are pushed apart: the forces are gradients"),
        ({"forces": -1}, "forces are gradients: their sign is wrong"),
        ({"energy": 0.25}, "energies are per atom"),
        ({"positions": 1 / Bohr}, "positions may be in Bohr"),
        ({"positions": 0.1}, "positions may be in nanometers"),
        ({"positions": Bohr}, "positions may be converted twice"),
        ({"energy": mol / kcal, "forces": mol / kcal}, r"bonds are \S+ times as stiff as usual: .* in kcal/mol"),
        ({"energy": 1e-4, "forces": 1e-4}, r"bonds are \S+ times as stiff as usual: .* in Hartree/Bohr"),
        ({"stress": 1 / GPa}, r"stress times volume is \S+ eV per atom: eV/Angstrom\^3 is expected, GPa"),
        ({"energy": 0.0}, "all energies are the same: they were filled in"),
    ],
)
def test_wrong_units_are_named(factors, message):
    assert re.search(message, warnings_of(**factors))


def test_all_electron_energies_in_hartree_are_named():
    # B3LYP energies of water, methane and benzene, Hartree
    frames = [
        LabelledFrame(molecule(name), energy, np.full((len(molecule(name)), 3), np.nan), np.full((3, 3), np.nan), name)
        for name, energy in (("H2O", -76.4), ("CH4", -40.5), ("C6H6", -232.2))
    ]
    assert "total energies are those of all electrons in Hartree" in inspect_frames({"m": frames}).warnings[0]
    in_ev = [LabelledFrame(f.atoms, Hartree * f.energy, f.forces, f.stress, f.name) for f in frames]
    assert inspect_frames({"m": in_ev}).warnings == ()


def test_outliers_are_named():
    frames = trajectory(40)
    frames[7].forces[1] *= 1000
    frames[7].forces[2] -= frames[7].forces.sum(axis=0)
    wrong = frames[9]
    frames[9] = LabelledFrame(wrong.atoms, wrong.energy + 1000.0, wrong.forces, wrong.stress, wrong.name)
    warnings = inspect_frames({"walk": frames}).warnings
    assert any("walk: forces far from the others" in text and "walk@7" in text for text in warnings)
    assert any("energies per atom far from others of their composition: walk@9" in text for text in warnings)


def test_duplicates_within_and_between_sets_are_found():
    frames = trajectory()
    warnings = inspect_frames({"train": [*frames, frames[3]], "test": frames[:2]}).warnings
    assert "2 frames occur more than once in both train and test, for example walk@0 and walk@0" in warnings
    assert "1 frame occurs more than once in train, for example walk@3 and walk@3" in warnings


def test_net_forces_are_reported():
    frames = trajectory()
    for frame in frames:
        frame.forces[0] += 1.0
    warning = inspect_frames({"walk": frames}).warnings[-1]
    assert "forces do not sum to zero in 12 of 12 frames" in warning
    assert f"no model has errors below {1e3 / np.sqrt(len(frames[0].atoms)):.3g} meV/Angstrom" in warning


def test_noise_of_forces_is_that_which_was_put_in():
    """On some atoms alone, as of a coarse grid around semicore states; the net forces tell its mean over all."""
    random, frames = np.random.default_rng(0), trajectory(400)
    noise = np.array([random.normal(scale=0.1, size=frame.forces.shape) for frame in frames])
    noise[:, 1:] = 0
    for frame, added in zip(frames, noise, strict=True):
        frame.forces[:] += added - frame.forces.mean(axis=0)
    assert force_noise(frames) == pytest.approx(np.sqrt(np.mean(noise**2)), rel=0.06)
    assert np.isnan(force_noise([]))


def test_a_frame_without_atoms_is_counted():
    empty = Atoms(pbc=True, cell=[3, 3, 3])
    empty.calc = SinglePointCalculator(empty, energy=0.0, forces=np.zeros((0, 3)))
    report = inspect_frames({"walk": [*trajectory(), label_frame(empty)]})
    assert "walk: 1 of 13 frames hold no atoms" in report.warnings
    assert (
        report.rows["shortest distances (Angstrom)"]
        == inspect_frames({"": trajectory()}).rows["shortest distances (Angstrom)"]
    )


def test_distances_are_measured_in_200_frames(monkeypatch):
    measured = []

    def summarized(graphs, elements):
        measured.append(len(graphs))
        return {"shortest_distances": {}}

    monkeypatch.setattr(inspection, "summarize", summarized)
    inspect_frames({"metals": [label_frame(atoms) for atoms in metal_frames(3)] * 133})
    assert measured == [200]


def test_nothing_to_inspect_is_an_error():
    with pytest.raises(ValueError, match="`sets` must hold at least one frame"):
        inspect_frames({"walk": []})


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_zeroed_forces_of_fixed_atoms_are_no_labels(tmp_path, suffix):
    atoms = metal_frames(1)[0]
    forces = atoms.calc.results["forces"].copy()
    forces[[0, 2]] = 0
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=forces)
    atoms.set_constraint(FixAtoms([0, 2]))
    ase.io.write(tmp_path / f"frames.{suffix}", atoms)
    frame = label_frame(ase.io.read(tmp_path / f"frames.{suffix}"))
    assert np.isnan(frame.forces[[0, 2]]).all()
    assert np.allclose(frame.forces[[1, 3]], forces[[1, 3]])
    report = inspect_frames({"slab": [frame]})
    assert report.rows["force components without label"] == ("6",)


def test_zeroed_components_of_fixed_directions_are_no_labels():
    atoms = metal_frames(1)[0]
    atoms.calc.results["forces"][1, 2] = 0
    atoms.set_constraint(FixCartesian([1], mask=[False, False, True]))
    assert np.argwhere(np.isnan(label_frame(atoms).forces)).tolist() == [[1, 2]]


def test_forces_of_a_frame_at_rest_stay_zero():
    atoms = bulk("Cu", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.zeros((4, 3)))
    atoms.set_constraint(FixAtoms([0]))
    assert (label_frame(atoms).forces == 0).all()


def test_command_prints_table_and_warnings(tmp_path):
    ase.io.write(tmp_path / "frames.extxyz", metal_frames(5))
    result = CliRunner().invoke(app, ["data", str(tmp_path / "frames.extxyz")])
    assert result.exit_code == 0, result.output
    assert "The checks that could be made found nothing wrong." in result.output
    assert "Checked: frames.extxyz: nearest-neighbor distances (20 atoms)" in result.output
    assert "Not checked: frames.extxyz: energies against isolated atoms (no frame is an isolated atom)" in result.output
    content = json.loads(CliRunner().invoke(app, ["data", str(tmp_path / "frames.extxyz"), "--json"]).output)
    assert content["sets"]["frames.extxyz"]["frames"] == "5"
    assert content["warnings"] == []
    frames = metal_frames(5)
    norms = np.linalg.norm([atoms.get_forces() for atoms in frames], axis=2)
    numbers = content["numbers"]["frames.extxyz"]
    assert {name: numbers[name] for name in ("n_frames", "n_energies", "n_forces", "n_stresses")} == {
        "n_frames": 5, "n_energies": 5, "n_forces": 5, "n_stresses": 5
    }  # fmt: skip
    assert (numbers["n_atoms"], numbers["charges"], sum(numbers["compositions"].values())) == ([4, 4], {"0": 5}, 5)
    energies = [atoms.get_potential_energy() / 4 for atoms in frames]
    np.testing.assert_allclose(numbers["energy_per_atom"], [min(energies), max(energies)], rtol=1e-6)
    assert numbers["force_rms"] == pytest.approx(np.sqrt((norms**2).mean() / 3), rel=1e-5)
    np.testing.assert_allclose(numbers["force_quantiles"], np.quantile(norms, [0.5, 0.99, 1]), rtol=1e-5)
    assert 0 <= numbers["net_force"][0] <= numbers["net_force"][1] < 1e-4
    assert 0 <= numbers["force_noise"] < 1e-4
    assert content["verdict"] == "The checks that could be made found nothing wrong."
    assert len(content["checked"]) == 1
    assert any("energies against isolated atoms" in line for line in content["unchecked"])
    unlabelled = [Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.4]])] * 2
    ase.io.write(tmp_path / "bare.xyz", unlabelled)
    result = CliRunner().invoke(app, ["data", str(tmp_path / "bare.xyz")])
    assert "Warning: 1 frame occurs more than once in bare.xyz" in result.output
    content = json.loads(CliRunner().invoke(app, ["data", str(tmp_path / "bare.xyz"), "--json"]).output)
    assert content["numbers"]["bare.xyz"]["n_forces"] == 0
    assert content["numbers"]["bare.xyz"]["force_quantiles"] == [None, None, None]
    assert "Warning: bare.xyz: no frame has an energy or forces under a known name" in result.output
    assert "nothing wrong" not in result.output
    assert CliRunner().invoke(app, ["data", str(tmp_path / "none.xyz")]).exit_code == 1


def test_isolated_atoms_and_charges_are_rows():
    frames = [
        LabelledFrame(Atoms(symbol), energy, np.zeros((1, 3)), np.full((3, 3), np.nan), "")
        for symbol, energy in [("Au", 3.8), ("Cu", 3.51), ("Cu", 3.6)]
    ]
    # a large box, or a name, makes a periodic atom isolated; an ion is none
    frames[0].atoms.set_cell([8, 8, 8])
    frames[0].atoms.pbc = True
    frames[1].atoms.info["config_type"] = "IsolatedAtom"
    ion = LabelledFrame(Atoms("Cu", info={"charge": 1}), 1.0, np.zeros((1, 3)), np.full((3, 3), np.nan), "")
    assert inspect_frames({"ion": [ion]}).rows["isolated atoms (eV)"] == ("none",)
    rows = inspect_frames({"atoms": frames, "walk": trajectory()}).rows
    assert rows["isolated atoms (eV)"] == ("Cu 3.5100, Au 3.8000", "none")
    assert rows["total charges (e)"] == ("0 (3)", "0 (12)")


@pytest.mark.parametrize("on_terminal", [True, False])
def test_lines_of_the_report_are_folded_on_a_terminal_alone(tmp_path, monkeypatch, on_terminal):
    ase.io.write(tmp_path / "walk.extxyz", [frame.atoms for frame in trajectory()])
    console = Console(width=80, force_terminal=on_terminal, color_system=None)
    monkeypatch.setattr("lrc_ase.cli.data.console", console)
    output = CliRunner().invoke(app, ["data", str(tmp_path / "walk.extxyz")]).output
    lines = output[output.index("Checked: ") :].splitlines()
    assert (max(map(len, lines)) <= 80) is on_terminal
