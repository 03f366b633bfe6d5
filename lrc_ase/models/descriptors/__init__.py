"""Short-range descriptors: features of an atom from its neighbors within the cutoff."""

from __future__ import annotations

from lrc_ase.models.descriptors.base import Descriptor
from lrc_ase.models.descriptors.family import build_descriptor, register
from lrc_ase.models.descriptors.paper import PaperDescriptor
from lrc_ase.models.descriptors.ponita import PonitaDescriptor
from lrc_ase.models.descriptors.sphere import SphereDescriptor

__all__ = [
    "Descriptor",
    "PaperDescriptor",
    "PonitaDescriptor",
    "SphereDescriptor",
    "build_descriptor",
    "register",
]
