"""From frames to a calculator in Python: train on the NaCl set for a minute, then relax a crystal.

Run: python examples/02_train_from_python.py
"""

import tempfile
from pathlib import Path

from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from lrc_ase import LRCCalculator
from lrc_ase.training import parse_configuration, train

frames = Path(__file__).parent / "nacl" / "small.extxyz"
configuration = parse_configuration(
    {
        "data": {"small": {"train": f"{frames}@::8"}},
        "stages": [{"name": "full-range", "epochs": 15}],
    }
)
with tempfile.TemporaryDirectory() as folder:
    potential = train(configuration, Path(folder) / "run")
    crystal = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    crystal.rattle(0.05, seed=0)
    crystal.calc = LRCCalculator(potential)
    FIRE(FrechetCellFilter(crystal), logfile=None).run(fmax=0.02, steps=200)
    print(f"lattice constant {crystal.get_volume() ** (1 / 3):.3f} Angstrom")
    charges = crystal.get_charges()
    print("charges in e:", *(f"{crystal.symbols[index]} {charges[index]:+.2f}" for index in (0, 1)))
