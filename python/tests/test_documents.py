"""The tables of outcomes in the manual name tests that are there, and leave out none of the tests of surroundings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent.parent / "docs" / "src" / "python-outcomes.md"


def names_of_tests(path: Path) -> set[str]:
    """The names of the tests in a file, those of classes too."""
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def named(text: str) -> list[tuple[str, str]]:
    """The tests that a document names, by file and name."""
    return re.findall(r"`(test_\w+)\.py` `(test_\w+)`", text)


def test_every_outcome_names_a_test_that_is_there() -> None:
    found = named(PAGE.read_text())
    assert len(found) > 40
    missing = [(file, name) for file, name in found if name not in names_of_tests(TESTS / f"{file}.py")]
    assert missing == []


def test_every_row_of_an_outcome_names_a_test() -> None:
    rows, is_table = [], False
    for line in PAGE.read_text().splitlines():
        is_table = line.startswith("|") and (is_table or line.endswith("| test |"))
        if is_table and not line.startswith("|---") and not line.endswith("| test |"):
            rows.append(line)
    assert [row for row in rows if not named(row)] == []


def test_every_test_of_surroundings_is_in_the_table() -> None:
    listed = {name for file, name in named(PAGE.read_text()) if file == "test_surroundings"}
    assert listed == names_of_tests(TESTS / "test_surroundings.py")
