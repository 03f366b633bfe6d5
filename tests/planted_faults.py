"""Small faults for tests/mutants.py: where in a file of the library they can be planted, and their text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip

# without them a program does the same: where a warning points to, the usual encoding, a check of equal lengths
NEVER_DROPPED = {"stacklevel", "encoding", "strict"}


@dataclass(frozen=True)
class Mutant:
    """One fault: the text of a node of the syntax tree and what replaces it."""

    path: Path
    owner: str
    """Name of the class that the function belongs to, or of the function."""
    function: str
    """Name of the function or method whose body holds the fault."""
    function_line: int
    """First line of the function, decorators included."""
    first: tuple[int, int]
    last: tuple[int, int]
    before: str
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
        module = "/".join(self.path.parts[self.path.parts.index("lrc_ase") :])
        return f"{module}:{self.first[0]}: {self.before} -> {self.after}"


def mutants_of(path: Path, source: str, *, kernels: bool = False) -> list[Mutant]:
    """Return the faults of a file, in the functions that Python runs or in the kernels that Numba compiles."""
    tree, planted = ast.parse(source), []
    # in files that compile, nested functions are kernels, which their factories specialize
    compiles = any(isinstance(node, ast.ImportFrom) and node.module in _COMPILERS for node in tree.body)
    for owner, function in functions_of(tree, compiles=compiles, kernels=kernels):
        line = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        for node in nodes(function, nested=kernels or not compiles):
            if node.end_lineno - node.lineno > 8:  # type: ignore[attr-defined]
                continue
            first, last = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
            for after in faults(node):
                place = path, owner or function.name, function.name, line
                planted.append(Mutant(*place, first, last, ast.unparse(node), after))
    return planted


_COMPILERS = ("lrc_ase.compiled.compilation", "numba.extending", "triton")


def functions_of(
    tree: ast.AST, *, compiles: bool, kernels: bool, owner: str = ""
) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Return functions and methods that Python runs, or the kernels, with the name of their class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions_of(node, compiles=compiles, kernels=kernels, owner=node.name)
        elif isinstance(node, ast.FunctionDef):
            decorators = {
                word.id for each in node.decorator_list for word in ast.walk(each) if isinstance(word, ast.Name)
            }
            if decorators & {"inlined", "_intrinsic", "triton"}:
                if kernels:
                    yield owner, node
            elif not kernels:
                yield owner, node
            elif compiles:
                yield from ((node.name, each) for each in node.body if isinstance(each, ast.FunctionDef))


def faults(node: ast.AST) -> Iterator[str]:
    """Return the texts that may replace a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED:
        yield f"({ast.unparse(ast.Compare(node.left, [SWAPPED[type(node.ops[0])]()], node.comparators))})"
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
    elif isinstance(node, ast.Call):
        for dropped in node.keywords:
            if dropped.arg and dropped.arg not in NEVER_DROPPED:
                yield ast.unparse(
                    ast.Call(node.func, node.args, [word for word in node.keywords if word is not dropped])
                )
    elif isinstance(node, ast.IfExp):
        yield f"({ast.unparse(ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse))})"


def nodes(tree: ast.AST, *, nested: bool = True) -> Iterator[ast.AST]:
    """Return the expressions that can hold a fault: not annotations, defaults, decorators or messages of errors."""
    children = tree.body if isinstance(tree, ast.FunctionDef | ast.ClassDef) else ast.iter_child_nodes(tree)
    for node in children:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert | ast.arg):
            continue
        if isinstance(node, ast.keyword) and node.arg in NEVER_DROPPED:
            continue
        if isinstance(node, ast.FunctionDef) and not nested:
            continue
        if isinstance(node, ast.AnnAssign):
            yield from () if node.value is None else nodes(ast.Expression(node.value), nested=nested)
            continue
        if isinstance(node, ast.expr):
            yield node
        yield from nodes(node, nested=nested)
