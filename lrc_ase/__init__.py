"""Full-range machine-learned force fields for ASE.

A short-range neural descriptor together with a long-range convolution on an FFT mesh with trainable Fourier
multipliers, after Peng, Lin, Ying and Zepeda-Nunez, *Efficient long-range convolutions for point clouds*
(arXiv:2010.05295).
"""

from __future__ import annotations

from .calculator import LRCCalculator, load
from .derivatives import Results, evaluate
from .domain import ExtrapolationWarning
from .lrc import LongRangeConvolution
from .model import FullRangeModel, ShortRangeModel, build_model
from .multipliers import Coulomb, Exponential, Yukawa
from .potential_file import Potential, load_potential, save_potential
from .settings import (
    DescriptorSettings,
    LongRangeSettings,
    ModelSettings,
    PaperSettings,
    PonitaSettings,
    SphereSettings,
)

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
