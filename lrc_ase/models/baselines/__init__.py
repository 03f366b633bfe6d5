"""Parts of the energy that are known before training; a model learns the rest.

`zbl` is the repulsion of atomic cores. A model adds its baselines to what it has learned, so that training, engines and
evaluation treat both alike.
"""

from __future__ import annotations

from lrc_ase.models.baselines.zbl import CoreRepulsion, ranges_from_data

__all__ = ["CoreRepulsion", "ranges_from_data"]
