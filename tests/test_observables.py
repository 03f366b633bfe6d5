"""Radial distributions and energy drift against cases that are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from lrc_ase.simulation import energy_drift, radial_distribution, read_reference_rdf


def test_radial_distribution_counts_the_shells_of_rock_salt():
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    density = 4 / 5.64**3
    for pair, shells in ((("Na", "Cl"), {2.82: 6, 4.8845: 8}), (("Na", "Na"), {3.988: 12, 5.64: 6})):
        r, g = radial_distribution([crystal, crystal], pair, cutoff=6.0, n_bins=600)
        width = r[1] - r[0]
        n_others = density * (1 if pair[0] != pair[1] else 3 / 4)  # four ions of each kind in this small cell
        counts = g * n_others * 4 * np.pi * (r**2 + width**2 / 12) * width
        for distance, expected in shells.items():
            near = np.abs(r - distance) < 0.05
            assert counts[near].sum() == pytest.approx(expected)


def test_radial_distribution_of_an_ideal_gas_is_one():
    rng = np.random.default_rng(0)
    frames = [Atoms("Ar200", positions=rng.uniform(0, 12, (200, 3)), cell=[12] * 3, pbc=True) for _ in range(20)]
    r, g = radial_distribution(frames, ("Ar", "Ar"), cutoff=8.0, n_bins=16)
    np.testing.assert_allclose(g[r > 2], 1.0, atol=0.06)


def test_radial_distribution_of_a_single_pair():
    """One ion of each kind, 2.2 Angstrom apart: the volume over that of the shell from 2 to 2.5 Angstrom."""
    atoms = Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2.2]], cell=[10, 10, 12], pbc=True)
    r, g = radial_distribution([atoms], ("Na", "Cl"), cutoff=4.5, n_bins=9)
    np.testing.assert_allclose(r, 0.25 + 0.5 * np.arange(9))
    expected = np.zeros(9)
    expected[4] = 1200 / (4 / 3 * np.pi * (2.5**3 - 2.0**3))
    np.testing.assert_allclose(g, expected)


def test_radial_distribution_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match="got none"):
        radial_distribution([], ("Na", "Cl"), cutoff=5.0)
    with pytest.raises(ValueError, match="must name elements"):
        radial_distribution([bulk("Cu", cubic=True)], ("Na", "Cl"), cutoff=5.0)
    for pair in (("Cu", "Cl"), ("Cl", "Cu")):
        with pytest.raises(ValueError, match=r"must name elements of the frames, got .* and Cu4"):
            radial_distribution([bulk("Cu", cubic=True)], pair, cutoff=5.0)
    with pytest.raises(ValueError, match="three directions"):
        radial_distribution([molecule("H2O")], ("O", "H"), cutoff=5.0)


def test_reference_rdf_table_is_read_with_comments(tmp_path):
    path = tmp_path / "rdf.csv"
    path.write_text("# made by hand\n# temperature_K: 1200.0\nr_A,g_NaNa,Na-Cl\n0.5,0.0,0.0\n1.5,0.25,1.5\n")
    reference = read_reference_rdf(path)
    np.testing.assert_array_equal(reference.r, [0.5, 1.5])
    np.testing.assert_array_equal(reference.g["NaNa"], [0.0, 0.25])
    np.testing.assert_array_equal(reference.g["NaCl"], [0.0, 1.5])
    assert reference.conditions == {"temperature_K": "1200.0"}
    (tmp_path / "empty.csv").write_text("# nothing\n")
    with pytest.raises(ValueError, match="expected a line of column names"):
        read_reference_rdf(tmp_path / "empty.csv")


def test_energy_drift_of_a_known_line():
    times = np.linspace(5, 15, 101)  # a run that continues another one
    drift = energy_drift(times, -100 + 0.002 * times * 8, 8)
    assert drift.slope == pytest.approx(0.002)
    assert drift.drift == pytest.approx(0.02)
    assert drift.max_deviation == pytest.approx(0.02)
    with pytest.raises(ValueError, match="at least two samples"):
        energy_drift(np.zeros(1), np.zeros(1), 8)
