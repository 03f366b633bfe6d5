"""The many-body density on the sphere: one definition, an engine in plain torch and one compiled for the CPU."""

from __future__ import annotations

from lrc_ase.models.descriptors.sphere.descriptor import SphereDescriptor
from lrc_ase.models.descriptors.sphere.harmonics import real_spherical_harmonics

__all__ = ["SphereDescriptor", "real_spherical_harmonics"]
