r"""From the accuracy asked for to a window and a mesh spacing.

A kernel smeared by :math:`e^{-s^2k^2/2}` needs waves up to some multiple of 1/s, and a window that keeps aliases of
those waves small. Both errors of the *forces* (relative l2, random charges) follow from the window's Fourier transform
alone, so a cheap pair (window points, spacing / s) for each decade of accuracy is a table, from
``tests/benchmarks/mesh_accuracy.py`` with a safety factor of 2 for about 0.1 atoms per cubic Angstrom; at 1e-6 to 1e-8
a stricter candidate, because in two dimensions the cheapest missed 1e-6 by 30% and 1e-8 by 15%. u itself is about ten
times more exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lrc_ase.layer.windows import Window, semicircle_window

__all__ = ["MeshQuality", "mesh_quality"]

# relative force error: (points of the semicircle window, its shape beta / P, mesh spacing / smearing)
_TABLE: dict[float, tuple[int, float, float]] = {
    1e-1: (4, 1.9, 1.3),
    1e-2: (5, 2.1, 0.95),
    1e-3: (6, 2.1, 0.8),
    1e-4: (7, 2.1, 0.7),
    1e-5: (8, 2.3, 0.6),
    1e-6: (9, 2.3, 0.55),
    1e-7: (10, 2.3, 0.5),
    1e-8: (12, 2.1, 0.5),
    1e-9: (11, 2.5, 0.4),
    1e-10: (13, 2.4, 0.4),
}


@dataclass(frozen=True, eq=False)
class MeshQuality:
    """Window and largest mesh spacing (Angstrom) that together reach an accuracy."""

    window: Window
    spacing: float


def mesh_quality(accuracy: float, smearing: float) -> MeshQuality:
    """Return window and spacing for a relative l2 error of the forces of at most `accuracy`.

    `smearing` is the width of the kernel's Gaussian in Angstrom.

    Raises
    ------
    ValueError
        An accuracy outside the table, or a smearing that is not a positive length.
    """
    if not 1e-10 <= accuracy <= 1e-1:
        raise ValueError(f"`accuracy` must lie between 1e-10 and 1e-1, got {accuracy}")
    if not smearing > 0 or math.isinf(smearing):
        raise ValueError(
            f"`smearing` must be a positive length so that a mesh can converge, got {smearing}; "
            "for a kernel without smearing give `mesh_shape` and `window` yourself"
        )
    # the next row that is at least as accurate; a hair of tolerance, so that 1e-4 computed as 0.1**4 takes its own row
    reached = max(level for level in _TABLE if level <= accuracy * (1 + 1e-9))
    n_points, shape, ratio = _TABLE[reached]
    return MeshQuality(semicircle_window(n_points, shape), ratio * smearing)
