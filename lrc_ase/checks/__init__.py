"""Physics checks of a potential, for any calculator of ASE: `check`, the function behind ``lrc-ase check``.

Each check is a function that takes a `Subject` (system, calculators, settings) and a random generator, and returns a
`CheckResult` with quantities, limits, figures and a verdict. `CHECKS` lists them by name, `SUITES` by kind of system.
"""

from lrc_ase.checks.registry import CHECKS, SUITES, Check, run_check
from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.settings import CheckSettings
from lrc_ase.checks.subject import Candidate, Subject, kind_of
from lrc_ase.checks.suite import CheckReport, SystemResults, check, load_report

__all__ = [
    "CHECKS",
    "SUITES",
    "Candidate",
    "Check",
    "CheckReport",
    "CheckResult",
    "CheckSettings",
    "Curve",
    "Figure",
    "NotApplicable",
    "Quantity",
    "Subject",
    "SystemResults",
    "check",
    "kind_of",
    "load_report",
    "run_check",
]
