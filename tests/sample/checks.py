"""Python stages of the sample project."""

import ast
from pathlib import Path


def types() -> None:
    tree = ast.parse(Path(__file__).read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert all(function.returns is not None for function in functions)


def integration(size: str) -> None:
    assert sum(range(int(size))) == int(size) * (int(size) - 1) // 2
