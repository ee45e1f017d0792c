"""The docstrings of attributes, which Python itself does not keep: a string right after an assignment."""

import ast
import inspect
import textwrap
from itertools import pairwise
from types import ModuleType


def attribute_docstrings(owner: type | ModuleType) -> dict[str, str]:
    """By name, the docstrings of a module's constants or of a class's fields, inherited ones included."""
    if isinstance(owner, ModuleType):
        return _in(ast.parse(inspect.getsource(owner)).body)
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if base.__module__ == owner.__module__:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            found |= _in(definition.body) if isinstance(definition, ast.ClassDef) else {}
    return found


def _in(statements: list[ast.stmt]) -> dict[str, str]:
    found = {}
    for statement, following in pairwise(statements):
        match statement, following:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found
