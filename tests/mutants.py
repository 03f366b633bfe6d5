"""Plant small faults in a copy of the library and count how many of them no test notices.

    python -m pytest -m "not slow" --cov --cov-context=test --cov-report=    # once: which test runs which line
    python tests/mutants.py training models --number 50

Each fault changes one comparison, operator, number, keyword argument or condition in a line that tests run. The tests
that run the line decide, or a random choice of `--tests` among them: a fault that none of them notices is a survivor
and is printed. Kernels that Numba compiles are left out, since coverage cannot see which test runs them.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One fault: the text of a node of the syntax tree and what replaces it."""

    path: Path
    line: int
    first: tuple[int, int]
    last: tuple[int, int]
    after: str

    def planted_in(self, source: str) -> str:
        """Return the source with the fault; columns of syntax trees count bytes."""
        lines = source.encode().splitlines(keepends=True)
        (first_line, first_column), (last_line, last_column) = self.first, self.last
        head = b"".join(lines[: first_line - 1]) + lines[first_line - 1][:first_column]
        tail = lines[last_line - 1][last_column:] + b"".join(lines[last_line:])
        return (head + self.after.encode() + tail).decode()

    def __str__(self) -> str:
        """Return place and fault."""
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.after}"


def faults(node: ast.AST) -> Iterator[str]:
    """Return the texts that may replace a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED:
        yield ast.unparse(ast.Compare(node.left, [SWAPPED[type(node.ops[0])]()], node.comparators))
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        yield f"({ast.unparse(ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right))})"
    elif isinstance(node, ast.BoolOp):
        yield f"({ast.unparse(ast.BoolOp(SWAPPED[type(node.op)](), node.values))})"
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield repr(node.value + 1 if isinstance(node.value, int) else node.value * 1.2 + (node.value == 0))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield repr(not node.value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Call) and any(keyword.arg for keyword in node.keywords):
        for dropped in node.keywords:
            yield ast.unparse(ast.Call(node.func, node.args, [word for word in node.keywords if word is not dropped]))
    elif isinstance(node, ast.IfExp):
        yield f"({ast.unparse(ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse))})"


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Return the expressions that can hold a fault: not annotations, messages of errors or decorators."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
            continue
        if isinstance(node, ast.arg):
            continue
        if isinstance(node, ast.AnnAssign):
            yield from () if node.value is None else nodes(ast.Expression(node.value))
            continue
        if isinstance(node, ast.FunctionDef):
            for part in (*node.args.defaults, *(value for value in node.args.kw_defaults if value), *node.body):
                yield part
                yield from nodes(part)
            continue
        yield node
        yield from nodes(node)


def mutants(room: str, contexts: CoverageData) -> list[tuple[Mutant, list[str]]]:
    """Return the faults of a room that lie in lines run by tests, each with these tests."""
    place = ROOT / "lrc_ase" / room
    found = []
    for path in [place.with_suffix(".py")] if place.with_suffix(".py").exists() else sorted(place.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "numba" in source or "compilation" in source or "triton" in source:
            continue
        by_line = contexts.contexts_by_lineno(str(path))
        for node in nodes(ast.parse(source)):
            line = getattr(node, "lineno", 0)
            tests = sorted({name.split("|")[0] for name in by_line.get(line, []) if name})
            if not tests or node.end_lineno - line > 8:  # type: ignore[attr-defined]
                continue
            for after in faults(node):
                first, last = (line, node.col_offset), (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
                found.append((Mutant(path, line, first, last, after), tests))
    return found


def survives(mutant: Mutant, tests: list[str], folder: Path, timeout: float) -> bool:
    """Return True if the tests pass with the fault planted in the copy `folder`."""
    target = folder / mutant.path.relative_to(ROOT)
    source = mutant.path.read_text(encoding="utf-8")
    target.write_text(mutant.planted_in(source), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", "--no-header", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=timeout)
        return ended.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        target.write_text(source, encoding="utf-8")


def main() -> None:
    """Print the survivors of each room, and how many of the faults they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="+", help="folders or files below lrc_ase, such as training or models")
    parser.add_argument("--number", type=int, default=50, help="faults per room")
    parser.add_argument("--tests", type=int, default=40, help="at most so many tests for each fault")
    parser.add_argument("--timeout", type=float, default=300, help="seconds; a fault that hangs counts as noticed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    contexts = CoverageData(str(ROOT / ".coverage"))
    contexts.read()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "copy"
        ignored = shutil.ignore_patterns(".git", ".venv*", "build", ".coverage", "demo-output")
        shutil.copytree(ROOT, folder, ignore=ignored, symlinks=True)
        for room in arguments.rooms:
            rng = random.Random(arguments.seed)
            everything = mutants(room, contexts)
            chosen = rng.sample(everything, min(arguments.number, len(everything)))
            n_survivors = 0
            for mutant, tests in chosen:
                if survives(mutant, rng.sample(tests, min(arguments.tests, len(tests))), folder, arguments.timeout):
                    n_survivors += 1
                    print(f"survived: {mutant}", flush=True)
            print(f"{room}: {n_survivors} of {len(chosen)} faults survived ({len(everything)} possible)", flush=True)


if __name__ == "__main__":
    main()
