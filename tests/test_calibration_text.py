"""The log tells how an ensemble was calibrated, in words and with units."""

from __future__ import annotations

from lrc_ase.training.members import calibration_text


def test_calibration_is_a_sentence_with_units():
    text = calibration_text(
        {
            "energy_scale": 1.5,
            "forces_scale": 0.6,
            "forces_floor": 0.2,
            "energy_coverage": 0.5,
            "forces_coverage": 0.914,
        }
    )
    assert "times 1.5 (energy) and 0.6 (forces, at least 0.2 eV/Angstrom)" in text
    assert text.endswith(
        "; 50% of the energy errors and 91% of the force errors on validation frames lie in the predicted 90% intervals"
    )
