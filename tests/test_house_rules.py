"""The rules of the house, read off the syntax trees: who may import what, and what nobody may call.

ASE enters `lrc_ase` in the listed rooms only; ``simulation`` is one of them, as relaxation and dynamics are ASE's own.
Library code never touches global state of torch; ``lrc_ase.cli`` and ``lrc_ase.training`` may set the number of
threads, since there a user has asked for it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LARGEST_FILE = 350
FLOORS = (
    "compiled",
    "layer",
    "structures",
    "models",
    "files",
    "dataset",
    "simulation",
    "engines",
    "evaluation",
    "training",
    "report",
    "paper",
    "calculator",
    "__init__",
    "cli",
)
"""From the ground up: a room imports what stands below it, and itself."""
ASE_ROOMS = ("structures", "dataset", "calculator", "engines", "cli", "simulation")
AUTOGRAD_ROOMS = ("models", "structures", "layer")
ORACLE_ROOMS = ("paper",)
"""The paper's experiments train models on the oracles and test them by them; no other part may know of those."""
NOT_PYTHON = {"__pycache__", ".venv", "build", "demo-output"}


def python_files(*folders: str) -> list[Path]:
    """Python files below the folders, which may be absent."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if not NOT_PYTHON & set(path.relative_to(ROOT).parts)]


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names that a file imports; ``from a import b`` counts as ``a`` and ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative: count from the package that holds the file
                package = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                module = ".".join((*package, module)).rstrip(".")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def dotted_names(path: Path) -> Iterator[str]:
    """Every attribute chain in a file, as in ``torch.autograd.grad``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            parts, inner = [node.attr], node.value
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name):
                yield ".".join((inner.id, *reversed(parts)))


def room(path: Path) -> str:
    """First name below the package: ``dataset`` for lrc_ase/dataset.py, ``cli`` for lrc_ase/cli/md.py."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def uses(names: Iterator[str], *modules: str) -> list[str]:
    """Names that are one of the modules or lie in one."""
    return sorted(
        {name for name in names if any(name == module or name.startswith(f"{module}.") for module in modules)}
    )


def relative(path: Path) -> str:
    """Name of a test case."""
    return path.relative_to(ROOT).as_posix()


LIBRARY = python_files("lrc_ase")
ORACLES = python_files("potentials")
EVERYTHING = python_files("lrc_ase", "potentials", "tests", "examples")


@pytest.mark.parametrize("path", ORACLES, ids=relative)
def test_potentials_compute_with_numpy_and_scipy_alone(path):
    modules = [name for name in imported_modules(path) if not name.startswith("lrc_ase.potentials")]
    forbidden = ["torch", "matscipy", "pykeops", "lrc_ase", *(["ase"] if room(path) != "calculator" else [])]
    assert not uses(iter(modules), *forbidden)


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_library_keeps_to_its_rooms(path):
    modules = list(imported_modules(path))
    if room(path) not in ORACLE_ROOMS:
        assert not uses(iter(modules), "lrc_ase.potentials")
    above = FLOORS[FLOORS.index(room(path)) + 1 :]
    assert not uses(iter(modules), *(f"lrc_ase.{name}" for name in above if name != "__init__"))
    assert room(path) == "cli" or "lrc_ase" not in modules, "import from the room itself, not from the package's face"
    if room(path) not in ASE_ROOMS:
        assert not uses(iter(modules), "ase")
    if room(path) not in AUTOGRAD_ROOMS:
        assert not uses(iter(modules), "torch.autograd")
        assert not uses(dotted_names(path), "torch.autograd", "autograd")


@pytest.mark.parametrize("path", LIBRARY + ORACLES, ids=relative)
def test_nothing_is_pickled(path):
    assert not uses(imported_modules(path), "pickle", "dill", "cloudpickle", "joblib", "torch.save", "torch.load")
    assert not uses(dotted_names(path), "torch.save", "torch.load", "torch.serialization")


@pytest.mark.parametrize("path", LIBRARY + ORACLES, ids=relative)
def test_no_global_state_is_set(path):
    names = list(dotted_names(path))
    forbidden = ["torch.set_default_dtype", "torch.set_default_device", "torch.manual_seed", "numpy.random.seed"]
    forbidden += ["np.random.seed", "torch.use_deterministic_algorithms", "matplotlib.use", "matplotlib.pyplot"]
    if room(path) not in ("cli", "training"):
        forbidden.append("torch.set_num_threads")
    assert not uses(iter(names), *forbidden)
    assert not uses(imported_modules(path), "matplotlib.pyplot", *forbidden)


def test_no_file_is_a_drawer_of_odds_and_ends():
    assert not [relative(path) for path in EVERYTHING if path.stem in ("utils", "util", "helpers", "misc", "common")]


def test_no_file_outgrows_its_subject():
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYTHING}
    assert not {name: length for name, length in lengths.items() if length > LARGEST_FILE}


def test_every_folder_of_the_library_is_a_package():
    folders = {path.parent for path in LIBRARY + ORACLES}
    assert not [relative(folder) for folder in folders if not (folder / "__init__.py").exists()]
