"""Which libraries a stage imports: those at the head of its modules, and those inside the functions it can reach.

A function is reached if its name stands anywhere in code that is reached: as a name, an attribute, or a word in
quotes. So a call through a plugin counts, whichever plugin it is, and a function that nobody names does not.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from components.requirements_lock import canonical

CALLED = {"torch.onnx": "onnxscript"}
"""What a library loads for us only where this is called: too much to be counted for all who import that library."""
OURS = {"components", "pipelines", "preprocessing"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Piece:
    """A function, or all that runs when a module is loaded."""

    name: str
    """Of the function; "" for what always runs: heads of modules, bodies of classes, what Python calls by itself."""
    names: frozenset[str]
    """Every name, attribute and quoted word in it."""
    imports: frozenset[str]


def libraries_of(texts: list[str]) -> set[str]:
    """The libraries that modules with these texts import, starting from the function `run` and what always runs."""
    pieces = [piece for text in texts for piece in pieces_of(text)]
    known = {"", "run"}
    reached: set[str] = set()
    while known - reached:
        reached |= known
        known = known.union(*(p.names for p in pieces if p.name in reached))
    found = set[str]().union(*(p.imports for p in pieces if p.name in reached))
    tops = {name.split(".")[0] for name in found} - OURS - sys.stdlib_module_names
    return {distribution(top, found) for top in tops}


@cache
def pieces_of(text: str) -> tuple[Piece, ...]:
    """The functions of a module, and its head; names for annotations alone do not count."""
    return tuple(_piece(name, nodes) for name, nodes in _parts(ast.parse(text)))


def _parts(tree: ast.Module) -> list[tuple[str, list[ast.AST]]]:
    functions: list[tuple[str, list[ast.AST]]] = []

    def outside(node: ast.AST) -> Iterator[ast.AST]:
        """The nodes that run when this one does; functions in it are set aside."""
        yield node
        for child in _children(node):
            if isinstance(child, Function):
                by_itself = child.name.startswith("__") or bool(child.decorator_list)
                functions.append(("" if by_itself else child.name, [n for c in _children(child) for n in outside(c)]))
            else:
                yield from outside(child)

    head = list(outside(tree))
    return [("", head), *functions]


def _children(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return list(node.orelse)
    return list(ast.iter_child_nodes(node))


def _piece(name: str, nodes: list[ast.AST]) -> Piece:
    names: set[str] = set()
    imports: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
            imports |= {CALLED[told] for told in (ast.unparse(node),) if told in CALLED}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names.add(node.value)
        elif isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            names |= {alias.name for alias in node.names}
    return Piece(name, frozenset(names), frozenset(imports | {CALLED[i] for i in imports if i in CALLED}))


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def distribution(top: str, names: set[str]) -> str:
    """The library that a module comes from; where several share its first name, the one that is called like it."""
    found = sorted({canonical(d) for d in _distributions().get(top, [])})
    if not found:
        raise LookupError(f"the module {top} is of no installed library")
    called = {canonical(".".join(n.split(".")[:2])) for n in names if n.split(".")[0] == top}
    return next((f for f in found if f in called), found[0])
