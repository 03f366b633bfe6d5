"""The black box of the paper as an ASE calculator, and its snapshots as ASE frames.

The one module here that imports ASE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, InputError, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import ArrayLike

from lrc_ase.potentials.kernels import Array, Kernel, Mixture
from lrc_ase.potentials.pairs import Method, PairSums, check_options, pair_sums
from lrc_ase.potentials.sampling import Snapshot

# A periodic vector may lean out of the space of its kernel by this fraction: enough for finite strains, no more.
_LEAN = 1e-3

_PROPERTIES = ["energy", "free_energy", "energies", "forces", "stress"]
_DEFAULTS = {"method": "images", "smoothing": 0.0, "tolerance": 1e-12, "self_images": False}


class KernelCalculator(Calculator):
    r"""Energy, forces and stress of atoms that interact through a periodic pair kernel, blind to their species.

    The dimension d is the number of periodic directions, which must be the leading ones: `pbc` of (1, 0, 0),
    (1, 1, 0) or (1, 1, 1). The kernel sees the first d coordinates; the forces along the others are zero.
    Conventions of the sum as in `lrc_ase.potentials.pairs.pair_sums`: in particular a supercell has a multiple of the
    cell's energy only with `self_images`.

    `stress` is the analytic strain derivative over the volume. It is offered for the full periodic sums, whose strain
    derivative exists everywhere, not for "minimum_image", and where the cell has three vectors.

    Parameters
    ----------
    kernel : free-space kernel (eV, Angstrom) or a `Mixture`.
    method, smoothing, tolerance, self_images : as in `pair_sums`.

    Raises ASE's InputError for atoms it cannot treat, ValueError or TypeError for malformed options.

    >>> from lrc_ase.potentials.kernels import Exponential
    >>> atoms = Atoms("H2", positions=[[0, 0, 0], [1, 0, 0]], cell=[4, 0, 0], pbc=[True, False, False])
    >>> atoms.calc = KernelCalculator(Exponential(mu=1.0))
    >>> atoms.get_forces()[:, 0].round(4).tolist()
    [-0.324, 0.324]
    """

    implemented_properties = _PROPERTIES
    default_parameters = _DEFAULTS

    def __init__(
        self,
        kernel: Kernel | Mixture,
        *,
        method: Method = "images",
        smoothing: float = 0.0,
        tolerance: float = 1e-12,
        self_images: bool = False,
    ) -> None:
        super().__init__(
            kernel=kernel, method=method, smoothing=smoothing, tolerance=tolerance, self_images=self_images
        )

    def set(self, **options: Any) -> dict[str, Any]:
        """Change options by keyword and discard earlier results."""
        if unknown := sorted(set(options) - {"kernel", *_DEFAULTS}):
            known = ", ".join(["kernel", *_DEFAULTS])
            raise TypeError(f"unknown option {unknown[0]!r} of KernelCalculator; the options are {known}")
        merged = {**self.parameters, **options}
        check_options(
            merged["kernel"],
            merged["method"],
            merged["smoothing"],
            merged["tolerance"],
            self_images=merged["self_images"],
        )
        changed: dict[str, Any] = super().set(**options)
        if changed:
            self.reset()
        # Two images of equal distance leave the strain derivative of their minimum undefined.
        with_stress = merged["method"] != "minimum_image"
        self.implemented_properties = [name for name in _PROPERTIES if name != "stress" or with_stress]
        return changed

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """Return the options as plain values, the kernel as text, so that trajectories can store them."""
        options: dict[str, Any] = super().todict(skip_default)
        return {**options, "kernel": repr(self.parameters["kernel"])}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill every result at once."""
        super().calculate(atoms, properties, system_changes)
        if atoms is None:
            raise InputError("KernelCalculator needs atoms, got None; set atoms.calc and ask the atoms")
        dimension = periodic_dimension(atoms)
        positions, cell = atoms.positions, atoms.cell.array
        options = {name: self.parameters[name] for name in _DEFAULTS}
        try:
            sums = pair_sums(
                positions[:, :dimension], cell[:dimension, :dimension], self.parameters["kernel"], **options
            )
        except ValueError as error:
            raise InputError(f"KernelCalculator cannot treat these atoms: {error}") from error
        forces = np.zeros_like(positions)
        forces[:, :dimension] = sums.forces
        self.results = {
            "energy": sums.energy,
            "free_energy": sums.energy,
            "energies": 0.5 * sums.local_potentials,
            "forces": forces,
        }
        if "stress" in self.implemented_properties and atoms.cell.rank == 3:
            virial = _full_virial(sums, positions, cell)
            # averages the mirrored components, which differ: a rotation of a projected system costs energy
            self.results["stress"] = full_3x3_to_voigt_6_stress(virial / atoms.cell.volume)


def periodic_dimension(atoms: Atoms) -> int:
    """Return the number of periodic directions; raise InputError if a kernel cannot treat them (KernelCalculator)."""
    if len(atoms) == 0:
        raise InputError("KernelCalculator needs at least one atom, got an empty Atoms object")
    if not np.all(np.isfinite(atoms.positions)):
        atom = int(np.argmax(~np.isfinite(atoms.positions).all(axis=1)))
        raise InputError(f"positions must be finite, got {atoms.positions[atom]} for atom {atom}")
    dimension = int(atoms.pbc.sum())
    if dimension == 0 or not atoms.pbc[:dimension].all():
        raise InputError(
            f"the leading directions must be periodic, pbc (T, F, F), (T, T, F) or (T, T, T), got {atoms.pbc.tolist()}"
        )
    vectors = atoms.cell.array[:dimension]
    if not np.all(np.isfinite(vectors)):
        raise InputError(f"cell vectors must be finite, got {vectors.tolist()}")
    lengths = np.linalg.norm(vectors, axis=1)
    if np.any(lengths == 0.0):
        raise InputError(f"cell vector {int(np.argmin(lengths))} is periodic but zero; set atoms.cell")
    if np.any(np.abs(vectors[:, dimension:]) > _LEAN * lengths[:, None]):
        raise InputError(
            f"the {dimension} periodic cell vectors must lie along the first {dimension} Cartesian axes, "
            f"got {vectors.tolist()}; rotate the atoms with their cell"
        )
    return dimension


def _full_virial(sums: PairSums, positions: Array, cell: Array) -> Array:
    r"""Return the derivative (3, 3) of the energy by a deformation, from that in the d dimensions of the kernel.

    The energy depends on the first d coordinates of the points and cell vectors. Its derivative by the latter, S,
    follows from the virial in d dimensions less the part of the points; then points and vectors are strained in 3D.
    """
    d = len(sums.virial)
    by_points = -sums.forces.T  # (d, n_points)
    by_vectors = (sums.virial - by_points @ positions[:, :d]) @ np.linalg.inv(cell[:d, :d])
    virial = np.zeros((3, 3))
    virial[:d] = by_points @ positions + by_vectors @ cell[:d]
    return virial


def frames(snapshots: Iterable[Snapshot], lengths: ArrayLike, *, symbol: str = "H") -> list[Atoms]:
    """Build ASE frames of `snapshots` on a torus of `lengths` (d,), with energy and forces attached.

    The missing coordinates are zero, the missing directions not periodic and without a cell vector.

    >>> snapshot = Snapshot(np.zeros((1, 2)), 0.0, np.zeros((1, 2)))
    >>> frames([snapshot], [5.0, 5.0])[0].pbc.tolist()
    [True, True, False]
    """
    lengths = np.asarray(lengths, dtype=float)
    if lengths.ndim != 1 or len(lengths) not in (1, 2, 3):
        raise ValueError(f"`lengths` must have shape (d,) with d = 1, 2 or 3, got {lengths.shape}")
    dimension = len(lengths)
    cell = np.zeros(3)
    cell[:dimension] = lengths
    result = []
    for snapshot in snapshots:
        if snapshot.positions.shape[1] != dimension:
            raise ValueError(
                f"`lengths` must match the snapshots' dimension {snapshot.positions.shape[1]}, got {dimension} lengths"
            )
        padding = ((0, 0), (0, 3 - dimension))
        positions, forces = np.pad(snapshot.positions, padding), np.pad(snapshot.forces, padding)
        atoms = Atoms([symbol] * len(positions), positions, cell=cell, pbc=np.arange(3) < dimension)
        atoms.calc = SinglePointCalculator(atoms, energy=snapshot.energy, free_energy=snapshot.energy, forces=forces)
        result.append(atoms)
    return result
