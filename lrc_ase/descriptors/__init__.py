"""Short-range descriptors: features of an atom from its neighbors within the cutoff."""

from __future__ import annotations

from .base import Descriptor
from .sphere import SphereDescriptor
from .vectors import neighbor_vectors

__all__ = ["Descriptor", "SphereDescriptor", "neighbor_vectors"]
