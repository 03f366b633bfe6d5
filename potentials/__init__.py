"""NumPy oracles: the black-box potentials of the paper (doi:10.48550/arXiv.2010.05295, section 3.1).

They share no formula with the learned model, which is why they can test it. See README.md beside this file.
The calculator is in `lrc_ase.potentials.calculator`, the only module that needs ASE.
"""

from lrc_ase.potentials.images import KernelSum
from lrc_ase.potentials.kernels import Exponential, Kernel, Mixture, ScreenedCoulomb
from lrc_ase.potentials.pairs import PairSums, pair_sums
from lrc_ase.potentials.sampling import Snapshot, jittered, random_points, snapshots
from lrc_ase.potentials.split import SplitForces
from lrc_ase.potentials.torus import ewald_sum, image_sum, minimum_image, spectral_sum, torus_distance

__all__ = [
    "Exponential",
    "Kernel",
    "KernelSum",
    "Mixture",
    "PairSums",
    "ScreenedCoulomb",
    "Snapshot",
    "SplitForces",
    "ewald_sum",
    "image_sum",
    "jittered",
    "minimum_image",
    "pair_sums",
    "random_points",
    "snapshots",
    "spectral_sum",
    "torus_distance",
]
