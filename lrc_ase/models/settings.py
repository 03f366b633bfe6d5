"""Settings of a model: plain validated values, stored in the potential file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    model_validator,
)

from lrc_ase.models import registry
from lrc_ase.models.baseline_settings import Baselines, BaselineSettings, D3Settings, ZBLSettings
from lrc_ase.models.compositions import counts_of
from lrc_ase.models.elements import check_elements
from lrc_ase.models.strict_settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "MOST_MEMBERS",
    "BaselineSettings",
    "Baselines",
    "D3Settings",
    "DescriptorSettings",
    "LongRangeSettings",
    "ModelSettings",
    "PaperSettings",
    "PonitaSettings",
    "Settings",
    "SphereSettings",
    "ZBLSettings",
    "descriptor_settings_class",
    "descriptor_settings_classes",
]


MOST_MEMBERS = 64
"""Members of an ensemble."""
_MOST_CHANNELS = 4096
_WIDEST_LAYER = 16384
_LONGEST = 100.0
"""Largest cutoff and smearing, Angstrom: beyond, a few atoms fill the memory with neighbors."""
_LARGEST = 1e9
"""Of numbers that have no bound by their nature."""


class DescriptorSettings(Settings):
    """Base of the settings of a short-range descriptor. Each subclass fixes `name` to one word."""

    name: str
    """Which descriptor."""


class SphereSettings(DescriptorSettings):
    """Settings of the many-body density on the sphere, `lrc_ase.models.descriptors.sphere`."""

    name: Literal["sphere"] = "sphere"
    n_radial: int = Field(8, ge=1, le=256)
    """Radial basis functions per neighbor element."""
    n_channels: int = Field(32, ge=1, le=_MOST_CHANNELS)
    """Channels of the density after mixing radial functions and elements."""
    degrees: tuple[Annotated[int, Field(ge=0, le=8)], ...] = Field((3, 3, 3, 2), min_length=1, max_length=6)
    """Highest degree l in each factor of the products averaged over the sphere. Their number is the body order minus
    one; the quadrature must be exact for their sum (11 for the default: 50 points)."""
    n_blocks: int = Field(1, ge=1, le=2)
    """1: strictly local, with a range of one cutoff. 2: a second density, in which neighbors are weighed by features of
    their own surroundings; the range is then twice the cutoff."""
    n_neighbor_features: int = Field(8, ge=1, le=_MOST_CHANNELS)
    """Features that weigh neighbors in the second block: scalars, and as many vectors if `neighbor_degree` is 1."""
    neighbor_degree: int = Field(0, ge=0, le=1)
    """Highest degree of the features that neighbors pass on to the second block. 0: scalars. 1: also vectors,
    which tell an atom how the surroundings of its neighbors are oriented; more accurate at equal cost."""

    compression: float | None = Field(4.0, ge=1e-3, le=_LARGEST)
    """Size beyond which features grow as a square root, in units of their typical size before training. It keeps
    energies and forces bounded far from the training set. Null: features grow without limit."""

    @model_validator(mode="after")
    def _check_vectors(self) -> Self:
        if self.neighbor_degree and (len(self.degrees) < 2 or sum(self.degrees[1:]) == 0):
            raise ValueError(
                f"`neighbor_degree: 1` needs two or more factors, one after the first of degree 1 or more, to make "
                f"vectors from; `degrees` are {self.degrees}: take (3, 3, 3, 2), or `neighbor_degree: 0`"
            )
        return self


class PonitaSettings(DescriptorSettings):
    """Settings of convolutions over positions and orientations, see `lrc_ase.models.descriptors.ponita`."""

    name: Literal["ponita"] = "ponita"
    n_orientations: int = Field(20, ge=4, le=200)
    """Directions at which features on the sphere are kept. Cost grows in proportion, the error under rotation falls."""
    n_layers: int = Field(3, ge=1, le=64)
    """ConvNeXt blocks. Each reaches one cutoff further: the features of an atom see `n_layers` times the cutoff."""
    n_channels: int = Field(32, ge=1, le=_MOST_CHANNELS)
    """Channels of the features at each orientation, and width of the output."""
    n_basis: int = Field(32, ge=1, le=_MOST_CHANNELS)
    """Functions of the pair invariants from which the kernels of all blocks are mixed."""
    degree: int = Field(3, ge=1, le=8)
    """Degree of the polynomial embedding of the invariants."""
    widening: int = Field(4, ge=1, le=64)
    """Hidden width of the channel mixing in units of `n_channels`."""
    rotate_grid: bool = False
    """Turn the orientations at random in each step of the training, so that the model learns to ignore them."""


class PaperSettings(DescriptorSettings):
    """Settings of the paper's networks, `lrc_ase.models.descriptors.paper`. Not invariant under rotation."""

    name: Literal["paper"] = "paper"
    widths: tuple[Annotated[int, Field(ge=1, le=_WIDEST_LAYER)], ...] = Field(
        (2, 4, 8, 16, 32), min_length=1, max_length=32
    )
    """Units in the layers of either network; the last is half the number of features."""
    envelope: bool = True
    """Let contributions fade smoothly at the cutoff. False: as printed in the paper, with a jump in energy when a
    neighbor crosses the cutoff."""
    inverse_mean: float | None = Field(None, ge=-_LARGEST, le=_LARGEST)
    """Mean of 1/r over neighbors, 1/Angstrom. Null: that of the training frames, or of evenly spread neighbors."""
    inverse_deviation: float | None = Field(None, gt=0, le=_LARGEST)
    """Standard deviation of 1/r, 1/Angstrom. Null: as for the mean."""
    distance_mean: float | None = Field(None, ge=-_LARGEST, le=_LARGEST)
    """Mean of r, Angstrom, used in one dimension only. Null: as for the mean of 1/r."""
    distance_deviation: float | None = Field(None, gt=0, le=_LARGEST)
    """Standard deviation of r, Angstrom, used in one dimension only. Null: as for the mean of 1/r."""


def descriptor_settings_class(name: str) -> type[DescriptorSettings]:
    """Return the settings class of a descriptor: built in, registered, or of an installed plug-in."""
    settings_class: type[DescriptorSettings] = registry.descriptor_class(name).settings_class
    return settings_class


def descriptor_settings_classes() -> Iterator[type[DescriptorSettings]]:
    """Yield the settings classes of all descriptors except plug-ins that are installed and broken."""
    for name in registry.names():
        with suppress(ValueError):
            yield descriptor_settings_class(name)


def _choose_descriptor(value: Any) -> Any:
    """Validate a mapping with the settings class of the descriptor that its entry `name` selects."""
    if not isinstance(value, Mapping):
        return value
    name = value.get("name", "sphere")
    if not isinstance(name, str):
        raise ValueError(f"`name` of a descriptor must be one of {registry.names()}, got {name!r}")
    return descriptor_settings_class(name).model_validate(value)


def _check_compositions(compositions: dict[str, float] | None) -> dict[str, float] | None:
    for formula, charge in (compositions or {}).items():
        check_elements(tuple(counts_of(formula)))
        if abs(charge) > _LARGEST:
            raise ValueError(f"the charge of {formula} must be a number of e, got {charge:g}")
    return compositions


class LongRangeSettings(Settings):
    """Settings of the long-range convolution on top of a short-range descriptor."""

    n_channels: int = Field(2, ge=0, le=256)
    """Latent channels convolved with trainable Yukawa kernels and read out non-linearly; 0 leaves them out."""
    electrostatics: bool = True
    """Give each atom a latent charge, with the Coulomb energy (1/2) k_e sum q_i u_i."""
    charges: Literal["transfers", "shifted"] | None = None
    """Rule by which latent charges sum to the total charge. 'transfers': neighbors exchange charge, and every
    fragment keeps its total. 'shifted': all charges are shifted evenly, as in potentials of lrc-ase 0.2 and before.
    Null: transfers, unless training frames hold molecules farther apart than the cutoff whose charges `compositions`
    fix."""
    n_transfers: int = Field(4, ge=1, le=256)
    """Amounts of charge that an atom computes from its descriptor and takes from its neighbors, each with its own
    weights."""
    polarizable: bool = False
    """Give each atom a learned polarizability alpha and the energy -1/2 alpha |E|^2 in the electric field E of the
    latent charges and of an external field."""
    n_dipoles: int = Field(0, ge=0, le=256)
    """Amounts of charge by which an atom has a permanent dipole p along the vectors to its neighbors, and the energy
    -p E; 0 leaves dipoles out."""
    n_tensors: int = Field(0, ge=0, le=64)
    """Latent tensors, convolved like the channels and read out by their products with tensors of an atom's own edges:
    they tell how far groups are oriented. Each takes five channels on the mesh; 0 leaves them out."""
    compositions: Annotated[dict[str, float] | None, AfterValidator(_check_compositions)] = None
    """Formulas and their total charges in e, which the charges of the elements sum to: {NaCl: 0}, or {Na: 1, Cl: -1} to
    fix the ions. Null: compositions of the training frames."""
    eps_inf: float = Field(1.0, ge=1, le=1e3)
    """Electronic permittivity of a periodic insulator. Latent charges learned from forces are true ones over its root:
    polarization, Born charges and forces in a field are multiplied by the root where all directions are periodic."""
    smearing: float = Field(1.25, ge=1e-3, le=_LONGEST)
    """Width s of the Gaussian charge clouds, Angstrom. At a quarter of the cutoff the short-range part, which learns
    the rest of the interaction, sees all of it: erfc(4 / sqrt 2) = 6e-5."""
    accuracy: float = Field(1e-4, ge=1e-10, le=1e-1)
    """Relative accuracy of the mesh; chooses mesh spacing and window order."""
    n_features: int = Field(16, ge=1, le=_WIDEST_LAYER)
    """Width of the long-range descriptor g(u, f u)."""

    @model_validator(mode="after")
    def _check_response(self) -> Self:
        if (self.polarizable or self.n_dipoles) and not self.electrostatics:
            raise ValueError("dipoles act on latent charges: set `electrostatics: true`, or leave dipoles out")
        if self.polarizable and self.eps_inf != 1:
            raise ValueError("`eps_inf` and `polarizable` both stand for the electrons: set one of them")
        return self


class ModelSettings(Settings):
    """Settings from which `build_model` makes an untrained model."""

    elements: Annotated[tuple[str, ...], AfterValidator(check_elements)] = Field(min_length=1)
    """Chemical symbols that the model knows, by atomic number."""
    cutoff: float = Field(5.0, ge=1e-2, le=_LONGEST)
    """Range of the short-range part, Angstrom."""
    descriptor: Annotated[SerializeAsAny[DescriptorSettings], BeforeValidator(_choose_descriptor)] = SphereSettings()
    """Short-range descriptor, chosen by its `name`."""
    long_range: LongRangeSettings | None = None
    """None: a short-range model."""
    baseline: Baselines = ()
    """Parts of the energy that are known and not learned, such as `[zbl]`: every evaluation adds them, so that training
    learns the rest of the labels."""
    hidden: tuple[Annotated[int, Field(ge=1, le=_WIDEST_LAYER)], ...] = Field((128, 128), min_length=1, max_length=32)
    """Widths of the hidden layers of the read-out network."""
    average_neighbors: float = Field(30.0, gt=0, le=_LARGEST)
    """Mean number of neighbors within the cutoff in the training set; normalises the density."""
    energy_scale: float = Field(1.0, gt=0, le=_LARGEST)
    """Multiplies the read-out, eV; set from the spread of the training forces."""

    @property
    def zbl(self) -> ZBLSettings | None:
        """Return the settings of the core repulsion, None without."""
        return next((each for each in self.baseline if isinstance(each, ZBLSettings)), None)

    @property
    def d3(self) -> D3Settings | None:
        """Return the settings of the dispersion correction, None without."""
        return next((each for each in self.baseline if isinstance(each, D3Settings)), None)
