"""Rules of the house, read off the syntax trees: what nobody may import or call.

Which room may import which is checked by import-linter (``pyproject.toml``, run by ``make lint``). Library code never
touches global state of torch; ``lrc_ase.cli`` and ``lrc_ase.training`` may set the number of threads, since there a
user has asked for it, and ``lrc_ase.compiled.threads`` in forked processes, which hang otherwise.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST_FILE = 350
WRITERS = ("open", "write_text", "write_bytes", "savefig")
AUTOGRAD_ROOMS = ("models", "structures", "layer")
NOT_PYTHON = {"__pycache__", ".venv", "build", "demo-output"}


def python_files(*folders: str) -> list[Path]:
    """Python files below the folders, which may be absent."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in files if not NOT_PYTHON & set(path.relative_to(ROOT).parts)]


@dataclass(frozen=True)
class Source:
    """Parts of a file that the rules look at, parsed once."""

    imports: list[str]
    """Dotted names that the file imports; ``from a import b`` counts as ``a`` and ``a.b``."""
    attributes: list[str]
    """Every attribute chain, as in ``torch.autograd.grad``."""
    variables: set[str]
    writes: list[ast.Call]
    """Calls of functions that can write a file."""
    docstrings: dict[str, str]
    """First line of the docstring of each function that has one, by file, line and name."""


@cache
def source(path: Path) -> Source:
    """Parse a file, once for all rules."""
    content = Source([], [], set(), [], {})
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            content.imports.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            content.imports.extend(modules_of(node, path))
        elif isinstance(node, ast.Attribute):
            content.attributes.extend(attribute_chain(node))
        elif isinstance(node, ast.Name | ast.arg):
            content.variables.add(node.id if isinstance(node, ast.Name) else node.arg)
        elif isinstance(node, ast.Call) and name_of(node) in WRITERS:
            content.writes.append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            content.docstrings[f"{relative(path)}:{node.lineno} {node.name}"] = text.splitlines()[0]
    return content


def name_of(call: ast.Call) -> str:
    """Return the name of the function or method called, without the object that it belongs to."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def modules_of(node: ast.ImportFrom, path: Path) -> Iterator[str]:
    """Return the names that ``from a import b`` imports."""
    module = node.module or ""
    if node.level:  # relative: count from the package that holds the file
        package = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
        module = ".".join((*package, module)).rstrip(".")
    yield module
    yield from (f"{module}.{alias.name}" for alias in node.names)


def attribute_chain(node: ast.Attribute) -> Iterator[str]:
    """Return the chain that ends in an attribute, unless it starts from a call or an index."""
    parts, inner = [node.attr], node.value
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        yield ".".join((inner.id, *reversed(parts)))


def room(path: Path) -> str:
    """First name below the package: ``dataset`` for lrc_ase/dataset.py, ``cli`` for lrc_ase/cli/md.py."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def uses(names: list[str], *modules: str) -> list[str]:
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


def broken(rule: Callable[[Path], object], files: list[Path]) -> dict[str, object]:
    """Return what a rule objects to, by file."""
    assert files
    objections = {relative(path): rule(path) for path in files}
    return {name: objection for name, objection in objections.items() if objection}


def test_derivatives_are_made_where_the_mathematics_is():
    def differentiates(path):
        return uses(source(path).imports, "torch.autograd") + uses(
            source(path).attributes, "torch.autograd", "autograd"
        )

    assert not broken(differentiates, [path for path in LIBRARY if room(path) not in AUTOGRAD_ROOMS])


def test_nothing_is_pickled():
    def pickles(path):
        return uses(source(path).imports, "pickle", "dill", "cloudpickle", "joblib", "torch.save", "torch.load") + uses(
            source(path).attributes, "torch.save", "torch.load", "torch.serialization"
        )

    assert not broken(pickles, LIBRARY + ORACLES)


def test_no_global_state_is_set():
    def sets_state(path):
        forbidden = ["torch.set_default_dtype", "torch.set_default_device", "torch.manual_seed", "numpy.random.seed"]
        forbidden += ["np.random.seed", "torch.use_deterministic_algorithms", "matplotlib.use", "matplotlib.pyplot"]
        if room(path) not in ("cli", "training") and relative(path) != "lrc_ase/compiled/threads.py":
            forbidden.append("torch.set_num_threads")
        return uses(source(path).attributes, *forbidden) + uses(source(path).imports, *forbidden)

    assert not broken(sets_state, LIBRARY + ORACLES)


def test_no_file_is_a_drawer_of_odds_and_ends():
    assert not [relative(path) for path in EVERYTHING if path.stem in ("utils", "util", "helpers", "misc", "common")]


WITHOUT_NOUN = {"found", "given", "own"}


def test_names_of_variables_hold_a_noun():
    files = [path for path in EVERYTHING if path.parent.name not in ("benchmarks", "gpu")]
    assert not broken(lambda path: source(path).variables & WITHOUT_NOUN, files)


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


def written_in_place(path: Path) -> list[int]:
    """Return the lines that write a file elsewhere than in a temporary place."""
    lines = []
    for call in source(path).writes:
        name = name_of(call)
        modes = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        in_place = name in ("write_text", "write_bytes") or (name == "open" and modes and modes[-1][:1] in ("w", "x"))
        saves = name == "savefig" and getattr(call.args[0], "id", "") != "temporary"
        if saves or (in_place and relative(path) not in WRITE_IN_PLACE):
            lines.append(call.lineno)
    return lines


def test_files_are_written_through_one_atomic_write():
    """Appending to logs and trajectories is allowed."""
    assert not broken(written_in_place, LIBRARY)


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
IMPERATIVES = frozenset(VERBS.split())


def opens_with_verb(line: str) -> bool:
    """Return True for "Sum the weights"; False for "Weights" and for "Sum of the weights", which is a noun."""
    first, _, rest = line.partition(" ")
    return first.rstrip(".,:;") in IMPERATIVES and not rest.startswith("of ")


def test_docstrings_of_functions_start_with_a_verb():
    def without_verb(path):
        return {name: line for name, line in source(path).docstrings.items() if not opens_with_verb(line)}

    assert not broken(without_verb, LIBRARY + ORACLES)


def test_rule_on_verbs_tells_verbs_from_nouns():
    assert opens_with_verb("Sum the weights")
    assert not opens_with_verb("Sum of the weights")
    assert not opens_with_verb("Weights of all points")
