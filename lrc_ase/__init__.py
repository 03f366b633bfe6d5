"""Full-range machine-learned force fields for ASE.

A short-range neural descriptor together with a long-range convolution on an FFT mesh with trainable Fourier
multipliers, after Peng, Lin, Ying and Zepeda-Nunez, *Efficient long-range convolutions for point clouds*
(arXiv:2010.05295).

Importing the package is cheap: each public name loads its module, and with it PyTorch, when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrc_ase.calculator import LRCCalculator, load
    from lrc_ase.files.potential_file import Potential, load_potential, save_potential
    from lrc_ase.layer.convolution import LongRangeConvolution
    from lrc_ase.layer.kernels import Coulomb, Exponential, Yukawa
    from lrc_ase.models.derivatives import Results, evaluate
    from lrc_ase.models.model import FullRangeModel, ShortRangeModel, build_model
    from lrc_ase.models.settings import (
        DescriptorSettings,
        LongRangeSettings,
        ModelSettings,
        PaperSettings,
        PonitaSettings,
        SphereSettings,
    )
    from lrc_ase.simulation.starts import start_structure
    from lrc_ase.structures.domain import ExtrapolationWarning
    from lrc_ase.training import train

__all__ = [
    "Coulomb",
    "DescriptorSettings",
    "Exponential",
    "ExtrapolationWarning",
    "FullRangeModel",
    "LRCCalculator",
    "LongRangeConvolution",
    "LongRangeSettings",
    "ModelSettings",
    "PaperSettings",
    "PonitaSettings",
    "Potential",
    "Results",
    "ShortRangeModel",
    "SphereSettings",
    "Yukawa",
    "__version__",
    "build_model",
    "evaluate",
    "load",
    "load_potential",
    "save_potential",
    "start_structure",
    "train",
]

try:
    __version__ = version("lrc-ase")
except PackageNotFoundError:  # the sources, on a path of Python's and not installed
    __version__ = "unknown"

_MODULES = {
    "lrc_ase.calculator": ("LRCCalculator", "load"),
    "lrc_ase.files.potential_file": ("Potential", "load_potential", "save_potential"),
    "lrc_ase.layer.convolution": ("LongRangeConvolution",),
    "lrc_ase.layer.kernels": ("Coulomb", "Exponential", "Yukawa"),
    "lrc_ase.models.derivatives": ("Results", "evaluate"),
    "lrc_ase.models.model": ("FullRangeModel", "ShortRangeModel", "build_model"),
    "lrc_ase.models.settings": (
        "DescriptorSettings",
        "LongRangeSettings",
        "ModelSettings",
        "PaperSettings",
        "PonitaSettings",
        "SphereSettings",
    ),
    "lrc_ase.simulation.starts": ("start_structure",),
    "lrc_ase.structures.domain": ("ExtrapolationWarning",),
    "lrc_ase.training": ("train",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
