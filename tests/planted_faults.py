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
    planted = []
    for owner, function in outermost_functions(ast.parse(source), kernels=kernels):
        line = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        for node in nodes(function):
            if node.end_lineno - node.lineno > 8:  # type: ignore[attr-defined]
                continue
            first, last = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
            for after in faults(node):
                place = path, owner or function.name, function.name, line
                planted.append(Mutant(*place, first, last, ast.unparse(node), after))
    return planted


def outermost_functions(tree: ast.AST, *, kernels: bool, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Return functions and methods that are compiled (`kernels`), or those that are not, with their class."""
    passed_to_compiler = {
        word.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("compiled", "inlined")
        for argument in call.args
        for word in ast.walk(argument)
        if isinstance(word, ast.Name)
    }
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from outermost_functions(node, kernels=kernels, owner=node.name)
        elif isinstance(node, ast.FunctionDef):
            names = {
                word.id
                for decorator in node.decorator_list
                for word in ast.walk(decorator)
                if isinstance(word, ast.Name)
            }
            compiled = bool(names & {"compiled", "inlined", "njit", "intrinsic"}) or node.name in passed_to_compiler
            if compiled == kernels:
                yield owner, node


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


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Return the expressions that can hold a fault: not annotations, defaults, decorators or messages of errors."""
    children = tree.body if isinstance(tree, ast.FunctionDef | ast.ClassDef) else ast.iter_child_nodes(tree)
    for node in children:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert | ast.arg):
            continue
        if isinstance(node, ast.keyword) and node.arg in NEVER_DROPPED:
            continue
        if isinstance(node, ast.AnnAssign):
            yield from () if node.value is None else nodes(ast.Expression(node.value))
            continue
        if isinstance(node, ast.expr):
            yield node
        yield from nodes(node)
