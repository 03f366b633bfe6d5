"""Rules of the house, read off the syntax trees: what nobody may import or call.

Which room may import which is checked by import-linter (``pyproject.toml``, run by ``make lint``). Library code never
touches global state of torch; ``lrc_ase.cli`` and ``lrc_ase.training`` may set the number of threads, since there a
user has asked for it, and ``lrc_ase.compiled.threads`` in forked processes, which hang otherwise.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LARGEST_FILE = 350
AUTOGRAD_ROOMS = ("models", "structures", "layer")
NOT_PYTHON = {"__pycache__", ".venv", "build", "demo-output"}


def python_files(*folders: str) -> list[Path]:
    """Python files below the folders, which may be absent."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in files if not NOT_PYTHON & set(path.relative_to(ROOT).parts)]


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


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_derivatives_are_made_where_the_mathematics_is(path):
    if room(path) not in AUTOGRAD_ROOMS:
        assert not uses(imported_modules(path), "torch.autograd")
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
    if room(path) not in ("cli", "training") and relative(path) != "lrc_ase/compiled/threads.py":
        forbidden.append("torch.set_num_threads")
    assert not uses(iter(names), *forbidden)
    assert not uses(imported_modules(path), "matplotlib.pyplot", *forbidden)


def test_no_file_is_a_drawer_of_odds_and_ends():
    assert not [relative(path) for path in EVERYTHING if path.stem in ("utils", "util", "helpers", "misc", "common")]


WITHOUT_NOUN = {"found", "given", "own"}


@pytest.mark.parametrize(
    "path", [path for path in EVERYTHING if path.parent.name not in ("benchmarks", "gpu")], ids=relative
)
def test_names_of_variables_hold_a_noun(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.arg for node in nodes if isinstance(node, ast.arg)
    }
    assert not names & WITHOUT_NOUN


def test_no_file_outgrows_its_subject():
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYTHING}
    assert not {name: length for name, length in lengths.items() if length > LARGEST_FILE}


def test_every_folder_of_the_library_is_a_package():
    folders = {path.parent for path in LIBRARY + ORACLES}
    assert not [relative(folder) for folder in folders if not (folder / "__init__.py").exists()]


WRITE_IN_PLACE = {
    "lrc_ase/files/atomic.py",
    "lrc_ase/files/lock.py",
    "lrc_ase/dataset/cache.py",  # into a folder that gets its name when it is complete
    "lrc_ase/cli/lammps.py",  # into a temporary folder
}


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_files_are_written_through_one_atomic_write(path):
    """Appending to logs and trajectories is allowed."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    for call in calls:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        modes = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        in_place = name in ("write_text", "write_bytes") or (name == "open" and modes and modes[-1][:1] in ("w", "x"))
        assert relative(path) in WRITE_IN_PLACE or not in_place, f"line {call.lineno}"
        assert name != "savefig" or getattr(call.args[0], "id", "") == "temporary", f"line {call.lineno}"


VERBS = """
Accept Add Advance Aggregate Allocate Allow Annotate Answer Append Apply Approximate Ask Assemble Assert Assign Attach
Average Begin Bin Bind Bring Broadcast Build Cache Calibrate Call Cast Center Change Check Choose Classify Clear Clip
Close Collect Combine Compare Compile Complete Compute Configure Connect Continue Contract Convert Convolve Copy
Correct Count Cover Create Cut Decide Declare Decode Decorate Define Delay Delete Derive Describe Detect Determine
Differentiate Disable Discard Display Distribute Divide Download Draw Drop Emit Enable Encode End Enlarge Enter
Enumerate Escape Estimate Evaluate Evict Exchange Exclude Exit Expand Explain Explore Export Express Extend Extract
Fetch Fill Filter Find Finish Fit Flag Flatten Flush Fold Follow Forget Format Forward Free Freeze Gather Generate Get
Give Group Guard Guess Halve Handle Hash Hold Identify Ignore Import Include Increase Infer Initialize Insert Install
Integrate Interpolate Invert Issue Iterate Join Judge Keep Label Lay Learn Leave Let Limit List Load Locate Lock Log
Look Lower Make Map Mark Mask Match Measure Merge Migrate Minimize Mix Move Multiply Normalize Note Notice Observe
Offer Open Optimize Order Pack Parse Partition Pass Perform Pick Place Plot Precompute Predict Prepare Print Produce
Project Propagate Prune Pull Put Quote Raise Randomize Rank Read Rebuild Receive Record Recover Reduce Refuse Register
Reject Relax Release Reload Remember Remove Rename Render Reorder Repeat Replace Report Represent Reproduce Require
Rescale Reset Reshape Resolve Restore Restrict Resume Return Reuse Reverse Rewrite Rotate Round Run Sample Save Scale
Scan Scatter Search Select Send Separate Serialize Serve Set Shift Show Shrink Shuffle Silence Simulate Skip Smear
Smooth Solve Sort Split Spread Square Stack Start Step Stop Store Subtract Sum Suppress Swap Symmetrize Synchronize
Tabulate Take Tell Track Train Transfer Transform Translate Transpose Truncate Try Turn Undo Unfold Unpack Update
Upgrade Use Validate Verify Visit Wait Walk Warn Weigh Widen Wrap Write Yield
"""
"""First words of docstrings of functions; a verb in the imperative that is missing may be added."""


def first_lines(path: Path) -> dict[str, str]:
    """Return the first line of the docstring of each function in a file that has one, by line and name."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    docstrings = {f"{relative(path)}:{each.lineno} {each.name}": ast.get_docstring(each) for each in functions}
    return {name: text.splitlines()[0] for name, text in docstrings.items() if text}


def opens_with_verb(line: str) -> bool:
    """Return True for "Sum the weights"; False for "Weights" and for "Sum of the weights", which is a noun."""
    first, _, rest = line.partition(" ")
    return first.rstrip(".,:;") in VERBS.split() and not rest.startswith("of ")


def without_verb(path: Path) -> dict[str, str]:
    """Return the first lines of docstrings that do not open with a verb."""
    return {name: line for name, line in first_lines(path).items() if not opens_with_verb(line)}


@pytest.mark.parametrize("path", LIBRARY + ORACLES, ids=relative)
def test_docstrings_of_functions_start_with_a_verb(path):
    assert not without_verb(path)


def test_rule_on_verbs_tells_verbs_from_nouns():
    assert opens_with_verb("Sum the weights")
    assert not opens_with_verb("Sum of the weights")
    assert not opens_with_verb("Weights of all points")
