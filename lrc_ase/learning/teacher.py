"""The teacher: the reference method that labels structures, any calculator of ASE.

A teacher is named on the command line, in a configuration of ``lrc-ase learn``, or in Python. A potential file never
names one, since building a teacher executes code.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from ase.calculators.calculator import BaseCalculator
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["TeacherError", "TeacherSettings", "make_calculator", "names_teacher", "parse_options"]

NEEDED = ("energy", "forces")
"""Properties without which a calculator is no teacher."""
METHODS = {
    method.lower(): ("tblite.ase:TBLite", {"method": method, "verbosity": 0}) for method in ("GFN1-xTB", "GFN2-xTB")
}
"""Semi-empirical methods that can be named without their calculator, in lower case: calculator and options."""
_FUNCTION = "calculator"
"""Name of the function in a file of the user that returns the teacher."""


class TeacherError(ValueError):
    """Error about a teacher that cannot be built, or whose labels cannot be trusted."""


class TeacherSettings(BaseModel):
    """Settings of a teacher: which calculator, and the processes that it runs in."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    calculator: str
    """Calculator of ASE as ``module:Class``, such as ``gpaw:GPAW``; a Python file with a function ``calculator()`` that
    returns one; or ``GFN1-xTB`` or ``GFN2-xTB``, which the package tblite computes."""
    options: dict[str, Any] = {}
    """Keyword arguments of the class, or of ``calculator()``."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Structures labelled at the same time, each in a process of its own."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of each process (OMP_NUM_THREADS and its like)."""
    timeout: Annotated[float, Field(gt=0)] | None = 3600.0
    """Seconds after which the calculation of a structure is given up; null waits without limit."""
    retries: Annotated[int, Field(ge=0)] = 1
    """Further attempts at a structure that failed."""
    environment: dict[str, str] = {}
    """Environment variables of the processes, such as ``ASE_VASP_COMMAND``."""
    check: bool = True
    """Compute the first structure twice, and with one thread if `threads` is larger, and compare the labels."""

    @model_validator(mode="before")
    @classmethod
    def _in_full(cls, values: Any) -> Any:
        """Replace the name of a method by its calculator and options, which others may change."""
        name = values.get("calculator") if isinstance(values, Mapping) else None
        if not isinstance(name, str) or name.lower() not in METHODS:
            return values
        calculator, options = METHODS[name.lower()]
        return {**values, "calculator": calculator, "options": {**options, **values.get("options", {})}}

    @field_validator("calculator")
    @classmethod
    def _names_a_calculator(cls, name: str) -> str:
        if is_file(name):
            return name
        module, _, attribute = name.partition(":")
        if not (attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise ValueError(
                f"expected 'module:Class', such as tblite.ase:TBLite, a Python file with a function {_FUNCTION}(), "
                f"such as teacher.py, or GFN1-xTB or GFN2-xTB, got {name[:80]!r}"
            )
        return name

    @field_validator("timeout")
    @classmethod
    def _is_finite(cls, seconds: float | None) -> float | None:
        if seconds is not None and not math.isfinite(seconds):
            raise ValueError("expected a number of seconds, or null to wait without limit")
        return seconds


def is_file(name: str) -> bool:
    """Return True if a teacher is named by a Python file."""
    return name.endswith(".py")


def names_teacher(text: str) -> bool:
    """Return True for what names a teacher rather than a file with frames.

    >>> [names_teacher(text) for text in ("GFN2-xTB", "ase.calculators.emt:EMT", "teacher.py", "frames.extxyz@:")]
    [True, True, True, False]
    """
    return text.lower() in METHODS or is_file(text) or re.fullmatch(r"[\w.]+:\w+", text) is not None


def parse_options(assignments: Sequence[str]) -> dict[str, Any]:
    """Return keyword arguments from ``NAME=VALUE``, the values in YAML.

    >>> parse_options(["method=GFN1-xTB", "accuracy=0.1", "kpts=[2, 2, 2]", "tolerance=1e-6"])
    {'method': 'GFN1-xTB', 'accuracy': 0.1, 'kpts': [2, 2, 2], 'tolerance': 1e-06}
    """
    options: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.isidentifier():
            raise TeacherError(f"a teacher's option needs NAME=VALUE, such as method=GFN1-xTB, got {assignment[:80]!r}")
        if name in options:
            raise TeacherError(f"the teacher's option '{name}' is given twice")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise TeacherError(f"the teacher's option {name}: {text[:80]!r} is no YAML value") from error
        options[name] = _number(value) if isinstance(value, str) else value
    return options


def _number(text: str) -> Any:
    """Return a number such as 1e-6, which YAML 1.1 takes for text; other text as it is."""
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def make_calculator(settings: TeacherSettings) -> Any:
    """Build the calculator of a teacher in this process.

    Raises
    ------
    TeacherError
        The module cannot be imported, the file cannot be executed, or it has no such class. The class does not accept
        the options, or the result is no calculator of ASE with energies and forces.
    """
    name = settings.calculator
    build = _function_of_file(Path(name)) if is_file(name) else _attribute(name)
    called = f"{_FUNCTION}()" if is_file(name) else name.partition(":")[2]
    try:
        calculator = build(**settings.options)
    except Exception as error:  # constructors of calculators raise anything
        options = ", ".join(f"{key}={value!r}" for key, value in settings.options.items()) or "none"
        raise TeacherError(
            f"teacher {name}: {called} fails with {described(error)}; its options: {options[:200]}"
        ) from error
    _check(calculator, name, called)
    return calculator


def described(error: BaseException) -> str:
    """Return type and message of an error in one line.

    >>> described(KeyError("Xx"))
    "KeyError: 'Xx'"
    """
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:500]}" if message else type(error).__name__


def _attribute(name: str) -> Callable[..., Any]:
    """Return the class or function that ``module:Class`` names."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise TeacherError(
            f"teacher {name}: there is no module '{error.name}': install it into this environment ({sys.prefix}), or "
            "check the name"
        ) from error
    except Exception as error:  # a module executes what it likes
        raise TeacherError(f"teacher {name}: importing {module_name} fails with {described(error)}") from error
    build = getattr(module, attribute, None)
    if build is None:
        names = [each for each in vars(module) if callable(vars(module)[each]) and not each.startswith("_")]
        near = difflib.get_close_matches(attribute, names, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(sorted(names)[:8]) or 'no class'}"
        raise TeacherError(f"teacher {name}: module {module_name} has no '{attribute}'{hint}")
    if not callable(build):
        raise TeacherError(f"teacher {name}: '{attribute}' is no class or function but {type(build).__name__}")
    return build


def _function_of_file(path: Path) -> Callable[..., Any]:
    """Return the function ``calculator`` of a Python file."""
    if not path.is_file():
        raise TeacherError(f"teacher {path}: there is no such file (working folder {os.getcwd()})")
    specification = importlib.util.spec_from_file_location("lrc_ase_teacher_file", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # classes of the file look for their module
    sys.path.append(str(path.resolve().parent))  # modules beside the file
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise TeacherError(f"teacher {path}: executing the file fails with {described(error)}") from error
    build = getattr(module, _FUNCTION, None)
    if not callable(build):
        raise TeacherError(f"teacher {path}: the file needs a function {_FUNCTION}() that returns a calculator of ASE")
    return build


def _check(calculator: Any, name: str, called: str) -> None:
    """Raise TeacherError if an object is no calculator with energies and forces."""
    # GPAW and others have the methods of a calculator without its base class
    methods = ("calculate", "get_property", "implemented_properties")
    is_calculator = isinstance(calculator, BaseCalculator) or all(hasattr(calculator, each) for each in methods)
    if not is_calculator or isinstance(calculator, type):
        raise TeacherError(f"teacher {name}: {called} gives {_kind(calculator)}, expected a calculator of ASE")
    missing = [each for each in NEEDED if each not in calculator.implemented_properties]
    if missing:
        raise TeacherError(
            f"teacher {name}: {type(calculator).__name__} computes no {' and no '.join(missing)} "
            f"(only {', '.join(calculator.implemented_properties) or 'nothing'}); a teacher needs energy and forces"
        )


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    return "nothing (None)" if value is None else f"an object of type {type(value).__name__}"
