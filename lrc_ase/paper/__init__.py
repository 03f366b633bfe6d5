"""The experiments of the paper (doi:10.48550/arXiv.2010.05295), reproduced with its recipe and with ours.

The one room of `lrc_ase` that imports `potentials`: learning from the oracles and being tested by them is its subject.
"""

from lrc_ase.paper.report import write_page, write_reports
from lrc_ase.paper.run import experiment_names, run_experiment
from lrc_ase.paper.run_folder import PaperRun

__all__ = ["PaperRun", "experiment_names", "run_experiment", "write_page", "write_reports"]
