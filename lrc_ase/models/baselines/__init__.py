"""Parts of the energy that are known before training; a model learns the rest.

`zbl` is the repulsion of atomic cores, `d3` the dispersion correction of a density functional. A model adds its
baselines to what it has learned, so that training, engines and evaluation treat both alike.
"""

from __future__ import annotations

from lrc_ase.models.baselines.d3 import Dispersion, damping_parameters
from lrc_ase.models.baselines.zbl import CoreRepulsion, ranges_from_data

__all__ = ["CoreRepulsion", "Dispersion", "damping_parameters", "ranges_from_data"]
