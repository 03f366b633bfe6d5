"""The many-body density on the sphere: one definition, an engine in plain torch and one compiled for the CPU."""

from __future__ import annotations

from .descriptor import SphereDescriptor
from .harmonics import real_spherical_harmonics

__all__ = ["SphereDescriptor", "real_spherical_harmonics"]
