"""Short-range descriptors: features of an atom from its neighbors within the cutoff."""

from __future__ import annotations

from .base import Descriptor
from .family import build_descriptor, descriptor_class, register
from .paper import PaperDescriptor
from .ponita import PonitaDescriptor
from .sphere import SphereDescriptor
from .vectors import neighbor_vectors

__all__ = [
    "Descriptor",
    "PaperDescriptor",
    "PonitaDescriptor",
    "SphereDescriptor",
    "build_descriptor",
    "descriptor_class",
    "neighbor_vectors",
    "register",
]
