"""Full-range machine-learned force fields for ASE.

A short-range neural descriptor together with a long-range convolution on an FFT mesh with trainable Fourier
multipliers, after Peng, Lin, Ying and Zepeda-Nunez, *Efficient long-range convolutions for point clouds*
(arXiv:2010.05295).
"""

from __future__ import annotations

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
from lrc_ase.structures.domain import ExtrapolationWarning

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
    "build_model",
    "evaluate",
    "load",
    "load_potential",
    "save_potential",
]
