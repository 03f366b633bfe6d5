"""One calculator in several threads, and copies of it."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from structures import potential, rattled_crystal

from lrc_ase import LRCCalculator


@pytest.fixture(scope="module")
def own_potential():
    return potential()


def test_threads_that_share_a_calculator_get_their_own_results(own_potential):
    """Without turns one thread receives energy or forces of another one's atoms, or an error from within."""
    calculator = LRCCalculator(own_potential)
    structures = [rattled_crystal(seed=seed) for seed in range(4)]
    expected = []
    for atoms in structures:
        atoms.calc = LRCCalculator(own_potential)
        expected.append((atoms.get_potential_energy(), atoms.get_forces()))
        atoms.calc = calculator

    def repeated(atoms):
        return [(atoms.get_potential_energy(), atoms.get_forces()) for _ in range(10)]

    with ThreadPoolExecutor(4) as threads:
        for (energy, forces), results in zip(expected, threads.map(repeated, structures), strict=True):
            for threaded in results:
                assert threaded[0] == pytest.approx(energy, abs=1e-9)
                np.testing.assert_allclose(threaded[1], forces, atol=1e-9)


def test_copies_of_a_calculator_wait_for_nobody(own_potential):
    calculator = LRCCalculator(own_potential)
    for again in (copy.copy(calculator), copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        assert again._turn is not calculator._turn
        with calculator._turn, ThreadPoolExecutor(1) as thread:
            atoms = rattled_crystal()
            atoms.calc = again
            assert np.isfinite(thread.submit(atoms.get_potential_energy).result(timeout=60))
