"""Atoms to mesh, filter, mesh to atoms: the kernel of the long-range convolution.

`spreading` holds the differentiable pair spread and gather; `compiled` its fast form on the CPU, `reference` the one in
plain torch that runs everywhere; `filtering` what happens on the mesh between the two.
"""

from __future__ import annotations

from .filtering import deconvolution, paired_waves
from .reference import Stencil
from .spreading import gather, spread

__all__ = ["Stencil", "deconvolution", "gather", "paired_waves", "spread"]
