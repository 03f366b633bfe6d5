"""Learning from a teacher: labels from any ASE calculator, and a calculator that asks it when the potential is unsure.

Importing the package is cheap: each public name loads its module when it is first used. Worker processes of the teacher
import it without PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrc_ase.learning.active_learning import LearnSummary, learn
    from lrc_ase.learning.label_store import LabelStore
    from lrc_ase.learning.labelling import LabelsNeeded
    from lrc_ase.learning.on_the_fly import OnTheFlyCalculator, TeacherCall
    from lrc_ase.learning.sampling import SampleSettings, SampleSummary, sample
    from lrc_ase.learning.settings import LearnSettings
    from lrc_ase.learning.teacher import TeacherError, TeacherSettings, make_calculator
    from lrc_ase.learning.teacher_pool import Failure, Labelled, TeacherPool

__all__ = [
    "Failure",
    "LabelStore",
    "Labelled",
    "LabelsNeeded",
    "LearnSettings",
    "LearnSummary",
    "OnTheFlyCalculator",
    "SampleSettings",
    "SampleSummary",
    "TeacherCall",
    "TeacherError",
    "TeacherPool",
    "TeacherSettings",
    "learn",
    "make_calculator",
    "sample",
]

_MODULES = {
    "lrc_ase.learning.active_learning": ("LearnSummary", "learn"),
    "lrc_ase.learning.labelling": ("LabelsNeeded",),
    "lrc_ase.learning.sampling": ("SampleSettings", "SampleSummary", "sample"),
    "lrc_ase.learning.settings": ("LearnSettings",),
    "lrc_ase.learning.label_store": ("LabelStore",),
    "lrc_ase.learning.on_the_fly": ("OnTheFlyCalculator", "TeacherCall"),
    "lrc_ase.learning.teacher": ("TeacherError", "TeacherSettings", "make_calculator"),
    "lrc_ase.learning.teacher_pool": ("Failure", "Labelled", "TeacherPool"),
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
