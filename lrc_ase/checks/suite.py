"""Run of a suite of checks on systems, with results on disk after each check."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from pydantic import TypeAdapter

from lrc_ase.checks.plan import DynamicsPlan, dynamics_plan
from lrc_ase.checks.registry import CHECKS, FAILURES, SUITES, run_check
from lrc_ase.checks.results import CheckResult, NotApplicable, Verdict
from lrc_ase.checks.settings import CheckSettings
from lrc_ase.checks.subject import Candidate, Subject, kind_of
from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.counted import counted
from lrc_ase.files.strict_json import finite
from lrc_ase.structures.domain import ExtrapolationWarning

__all__ = ["RESULTS", "SUMMARY", "CheckReport", "SystemResults", "check", "chosen_checks", "load_report", "unused_name"]

RESULTS = "results.json"
"""File with everything that a page shows, curves included."""
SUMMARY = "summary.json"
"""File with verdicts and numbers alone, for the card of a potential."""
POTENTIAL = "potential"
"""Name of the group of checks that need no system."""


@dataclass
class SystemResults:
    """Results of the checks on one system."""

    name: str
    description: str
    """Kind, formula and conditions, in one line."""
    results: list[CheckResult] = field(default_factory=list)


@dataclass
class CheckReport:
    """Results of a suite."""

    potential: str
    """Name of what was checked."""
    settings: dict[str, Any]
    systems: list[SystemResults] = field(default_factory=list)

    def count(self, verdict: Verdict) -> int:
        """Return the number of results with a verdict."""
        return sum(result.verdict == verdict for system in self.systems for result in system.results)

    @property
    def has_failed(self) -> bool:
        """Return True if a check failed."""
        return self.count("failed") > 0

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; numbers that are not finite become None."""
        values: dict[str, Any] = finite(asdict(self))
        return values

    def summary(self) -> dict[str, Any]:
        """Return verdicts and numbers, without curves: system, then check, then quantity."""
        systems: dict[str, Any] = {}
        for system in self.systems:
            checks: dict[str, Any] = {}
            for result in system.results:
                values = result.to_json()
                quantities = {each.pop("name"): _present(each) for each in values["quantities"]}
                checks[result.name] = {
                    "verdict": result.verdict,
                    "sentence": result.sentence,
                    "quantities": quantities,
                }
            systems[system.name] = {"description": system.description, "checks": checks}
        return {
            "potential": self.potential,
            "failed": self.count("failed"),
            "settings": self.settings,
            "systems": systems,
        }


def load_report(folder: str | Path) -> CheckReport:
    """Read the results in a folder that `check` wrote."""
    return TypeAdapter(CheckReport).validate_json(Path(folder, RESULTS).read_bytes())


def check(
    calculator: Calculator,
    systems: Atoms | Sequence[Atoms] | Mapping[str, Atoms],
    *,
    suite: str = "all",
    only: Sequence[str] | None = None,
    single: Calculator | None = None,
    reference: Calculator | None = None,
    labels: Sequence[Atoms] = (),
    settings: CheckSettings | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    name: str | None = None,
    report: Callable[[str, str, CheckResult | None, str], None] | None = None,
    announce: Callable[[DynamicsPlan], None] | None = None,
) -> CheckReport:
    """Run a suite of checks on a calculator of ASE.

    Parameters
    ----------
    calculator
        Calculator to check, in double precision.
    systems
        Structures to run on, by name. ``atoms.info`` may name the `temperature` (K) and the `kind`: crystal, liquid or
        molecule; see `lrc_ase.checks.subject.kind_of` for structures that name none.
    suite
        ``crystal``, ``liquid`` or ``molecule`` takes the checks for such systems, and the systems for such; ``all``
        takes all checks, and those that do not apply to a system say so.
    only
        Names of checks to run out of the suite; all if None.
    single
        Calculator of the same potential in single precision.
    reference
        Calculator whose values stand beside those of checks with few evaluations.
    labels
        Labelled frames, for the check of errors.
    settings
        Conditions and lengths of runs.
    folder
        Folder for results and runs; a temporary one if None. `RESULTS` and `SUMMARY` are written after each check.
    resume
        True keeps the results in the folder and goes on with the runs there; False removes those runs.
    name
        Name of what is checked, for the report; the class of the calculator if None.
    report
        Called with system, check, result and message: without a result before and during a check, with it after.
    announce
        Called with the number of steps of molecular dynamics and their time, before the first run of each system.

    Raises
    ------
    ValueError
        No system, an unknown suite or check, labels without their check, or results of other systems or settings to
        resume.
    """
    settings = settings or CheckSettings()
    named = _named(systems)
    chosen = chosen_checks(suite, only)
    if len(labels) and "labelled errors" not in chosen:
        raise ValueError("`labels` serve the check 'labelled errors', which `only` leaves out: name it too")
    report = report or (lambda *_: None)
    candidate = Candidate.of(calculator, single)
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory())) if folder is None else Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        subjects = []
        for system, atoms in named.items():
            if not resume:
                shutil.rmtree(place / "runs" / system, ignore_errors=True)
            kind = kind_of(atoms, calculator) if suite == "all" else suite
            structure = Atoms(atoms)
            structure.info = dict(atoms.info)
            subjects.append(
                (
                    system,
                    Subject(
                        candidate,
                        structure,
                        kind,  # type: ignore[arg-type]
                        place / "runs" / system,
                        settings,
                        labels=labels,
                        reference=reference,
                    ),
                )
            )
        identity = _settings(settings, suite, subjects, calculator, reference, labels)
        results = _results_before(place, identity) if resume else {}
        groups = {POTENTIAL: subjects[0][1], **dict(subjects)}

        def collected() -> CheckReport:
            """Return all results so far, in the order of systems and checks."""
            systems = []
            for group, subject in groups.items():
                description = "without a system" if group == POTENTIAL else _description(subject)
                of_group = [results[group, each] for each in CHECKS if (group, each) in results]
                systems += [SystemResults(group, description, of_group)] if of_group else []
            return CheckReport(name or type(calculator).__name__, identity, systems)

        for group, subject in groups.items():
            is_announced = announce is None
            for each in chosen:
                if CHECKS[each].of_potential != (group == POTENTIAL):
                    continue
                report(group, each, None, "")
                if (group, each) not in results:
                    if announce is not None and not is_announced and CHECKS[each].runs:
                        is_announced = True
                        if (plan := _plan(subject, chosen)) is not None and plan.n_steps:
                            announce(plan)
                    results[group, each] = run_check(each, _showing(subject, group, each, report))
                    _write(place, collected())
                report(group, each, results[group, each], "")
        return collected()


def _plan(subject: Subject, chosen: Sequence[str]) -> DynamicsPlan | None:
    """Return the plan of all runs of a system; None where its calculator fails, which the checks will report."""
    names = {run for each in chosen if subject.kind in CHECKS[each].kinds for run in CHECKS[each].runs}
    with suppress(NotApplicable, PropertyNotImplementedError, *FAILURES), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        return dynamics_plan(subject, names)
    return None


def _named(systems: Atoms | Sequence[Atoms] | Mapping[str, Atoms]) -> dict[str, Atoms]:
    """Return the systems by name; single ones are named after their ``info["name"]`` or formula."""
    if isinstance(systems, Mapping):
        named = dict(systems)
    else:
        listed = [systems] if isinstance(systems, Atoms) else list(systems)
        named = {}
        for atoms in listed:
            named[unused_name(str(atoms.info.get("name", atoms.get_chemical_formula())), named)] = atoms
    if not named:
        raise ValueError("`systems` must hold at least one structure, got none")
    for name, atoms in named.items():
        if len(atoms) == 0:
            raise ValueError(f"the system {name!r} holds no atoms")
        if name == POTENTIAL or Path(name).name != name or name.startswith("."):
            raise ValueError(f"the name of a system must be that of a folder other than {POTENTIAL!r}, got {name!r}")
    return named


def unused_name(base: str, taken: Container[str]) -> str:
    """Return `base`, with the first number from 2 on behind it that makes a name of its own.

    >>> unused_name("a", ["a", "a-2"])
    'a-3'
    """
    names = chain([base], (f"{base}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def chosen_checks(suite: str, only: Sequence[str] | None) -> list[str]:
    """Return the names of the checks to run, in the order of `CHECKS`; ValueError for an unknown suite or check."""
    if suite not in SUITES:
        raise ValueError(f"`suite` must be one of {', '.join(SUITES)}, got {suite!r}")
    if unknown := [each for each in only or () if each not in CHECKS]:
        raise ValueError(f"no check is named {unknown[0]!r}; there are: {', '.join(CHECKS)}")
    chosen = [each for each in SUITES[suite] if only is None or each in only]
    if not chosen:
        raise ValueError(f"the suite {suite!r} has none of the checks {', '.join(only or ())}")
    return chosen


def _description(subject: Subject) -> str:
    """Return kind, formula and conditions of a system in one line."""
    atoms = subject.structure
    return f"{subject.kind}, {atoms.get_chemical_formula()}, {counted(len(atoms), 'atom')}, {subject.temperature:g} K"


def _settings(
    settings: CheckSettings,
    suite: str,
    subjects: Sequence[tuple[str, Subject]],
    calculator: Calculator,
    reference: Calculator | None,
    labels: Sequence[Atoms],
) -> dict[str, Any]:
    """Return settings and digests of potentials and structures, which results to resume must have in common."""
    return {
        "suite": suite,
        **asdict(settings),
        "calculator": _fingerprint(calculator),
        "reference": None if reference is None else _fingerprint(reference),
        "labels": _digest(*labels) if labels else None,
        "systems": {
            name: f"{subject.kind}, {subject.temperature:g} K, {_digest(subject.structure)}"
            for name, subject in subjects
        },
    }


def _fingerprint(calculator: Calculator) -> Any:
    """Return what tells a calculator from another one: its `fingerprint` or else its class."""
    return dict(getattr(calculator, "fingerprint", {})) or type(calculator).__name__


def _digest(*frames: Atoms) -> str:
    """Return a digest of elements, positions, cells and boundaries."""
    digest = hashlib.sha256()
    for atoms in frames:
        for each in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()


def _results_before(folder: Path, settings: Mapping[str, Any]) -> dict[tuple[str, str], CheckResult]:
    """Return the results in the folder by system and check, empty without any."""
    if not (folder / RESULTS).exists():
        return {}
    before = load_report(folder)
    for name, value in settings.items():
        if before.settings.get(name) != json.loads(json.dumps(value)):
            raise ValueError(
                f"{folder / RESULTS} holds results of other settings ({name}): give the same ones, or another folder"
            )
    return {(system.name, result.name): result for system in before.systems for result in system.results}


def _write(folder: Path, report: CheckReport) -> None:
    """Write results and summary."""
    for name, values in ((RESULTS, report.to_json()), (SUMMARY, report.summary())):
        indent = 1 if name == SUMMARY else None
        write_atomically(folder / name, (json.dumps(values, indent=indent, allow_nan=False) + "\n").encode())


def _showing(
    subject: Subject, group: str, check: str, report: Callable[[str, str, CheckResult | None, str], None]
) -> Subject:
    """Return the subject with messages that name system and check."""
    return replace(subject, progress=lambda message: report(group, check, None, message))


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are not None; the value is kept, as None stands for one that is not finite."""
    return {key: value for key, value in values.items() if key == "value" or value is not None}
