"""Configuration of the loss of a stage: weights of the labels, and the function of an error."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lrc_ase.models.settings import Settings

__all__ = ["LossConfiguration"]


class LossConfiguration(Settings):
    """Weights of the errors. Those of energies, forces and stress are measured in root mean squares of the training
    forces (times 1 Angstrom), the others in the units that they name."""

    energy: float = Field(20.0, ge=0)
    """Weight of the energy error per atom; 20 makes forces a few percent less accurate and energies more accurate,
    see docs/notebook/accuracy.md. 0 with force weight 1: the paper's force-only loss."""
    forces: float = Field(1.0, ge=0)
    """Weight of the force error."""
    stress: float | None = Field(None, ge=0)
    """Weight of the error of stress times volume per atom. Null: 1 where the stage's frames have stress
    and energies are trained on, else 0."""
    dipole: float = Field(0.0, ge=0)
    """Weight of the error of dipoles in e Angstrom, where frames have them; 0.1 is a good start. Like the next weight,
    it needs a model with latent charges."""
    born_effective_charges: float = Field(0.0, ge=0)
    """Weight of the error of Born effective charges in e, where frames have them; 1 is a good start. A step takes one
    of the three components of the polarization of a frame, another one in each epoch."""
    function: Literal["mse", "huber"] = "mse"
    """Squared errors, or errors that grow linearly beyond `huber_delta`."""
    huber_delta: float = Field(1.0, gt=0)
    """Error at which the Huber loss turns linear, in the unit of the error."""

    @property
    def weighs_charges(self) -> bool:
        """Return True if the loss needs latent charges."""
        return bool(self.dipole or self.born_effective_charges)
