"""Imports run one way: capture and models know nothing of each other, and neither knows the pipeline."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNKNOWN = {
    "capture": {"models", "pipeline", "demo", "tests"},
    "models": {"capture", "pipeline", "demo", "tests"},
    "pipeline": {"demo", "tests"},
}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [one.name for one in node.names] if isinstance(node, ast.Import) else []


@pytest.mark.parametrize("room", UNKNOWN)
def test_a_room_imports_nothing_it_may_not_know(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _imported(node):
                assert name.split(".")[0] not in UNKNOWN[room], f"{path.relative_to(ROOT)} imports {name}"
