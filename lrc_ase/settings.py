"""What a model is made of, as plain validated values that travel in the potential file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LongRangeSettings", "ModelSettings", "Settings", "SphereSettings"]


class Settings(BaseModel):
    """Base of every settings class: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SphereSettings(Settings):
    """The many-body density on the sphere, `lrc_ase.descriptors.sphere`."""

    name: Literal["sphere"] = "sphere"
    n_radial: int = Field(8, ge=1)
    """Radial basis functions per neighbor element."""
    n_channels: int = Field(32, ge=1)
    """Channels of the density after mixing radial functions and elements."""
    degrees: tuple[Annotated[int, Field(ge=0, le=8)], ...] = Field((3, 3, 3, 2), min_length=1, max_length=6)
    """Highest degree l in each factor of the products averaged over the sphere. Their number is the body order minus
    one; the quadrature must be exact for their sum (11 for the default: 50 points)."""


class LongRangeSettings(Settings):
    """The long-range convolution on top of a short-range descriptor."""

    n_channels: int = Field(2, ge=0)
    """Latent channels convolved with trainable Yukawa kernels and read out non-linearly; 0 leaves them out."""
    electrostatics: bool = True
    """Whether the model has a latent charge with a Coulomb energy (1/2) k_e sum q_i u_i."""
    smearing: float = Field(1.25, gt=0)
    """Width s of the Gaussian charge clouds, Angstrom. At a quarter of the cutoff the short-range part, which learns
    the rest of the interaction, sees all of it: erfc(4 / sqrt 2) = 6e-5."""
    accuracy: float = Field(1e-4, ge=1e-10, le=1e-1)
    """Relative accuracy of the mesh; chooses mesh spacing and window order."""
    n_features: int = Field(16, ge=1)
    """Width of the long-range descriptor g(u, f u)."""


class ModelSettings(Settings):
    """Everything needed to build an untrained model."""

    elements: tuple[str, ...] = Field(min_length=1)
    """Chemical symbols that the model knows, by atomic number."""
    cutoff: float = Field(5.0, gt=0)
    """Range of the short-range part, Angstrom."""
    descriptor: SphereSettings = SphereSettings()
    long_range: LongRangeSettings | None = None
    """None: a short-range model."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the read-out network."""
    average_neighbors: float = Field(30.0, gt=0)
    """Mean number of neighbors within the cutoff in the training set; normalises the density."""
    energy_scale: float = Field(1.0, gt=0)
    """Multiplies the read-out, eV; set from the spread of the training forces."""
