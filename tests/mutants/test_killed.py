"""No mutant survives its tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.copy import copy_tree, run_tests
from tests.mutants.mutants import MUTANTS, Mutant

SOME_TEST_FAILED = 1  # pytest's exit code; 2 and more: it did not come so far


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mutant")
    copy_tree(made)
    return made


@pytest.mark.parametrize("mutant", MUTANTS, ids=[one.name for one in MUTANTS])
def test_a_mutant_is_killed(tree: Path, mutant: Mutant) -> None:
    path = tree / mutant.file
    whole = path.read_text()
    path.write_text(whole.replace(mutant.old, mutant.new))
    try:
        done = run_tests(tree, mutant.tests.split())
    finally:
        path.write_text(whole)
    assert done.returncode == SOME_TEST_FAILED, done.stdout[-2000:] + done.stderr[-500:]


@pytest.mark.timeout(700)  # the tests of all mutants, one after the other
def test_without_a_mutant_the_same_tests_pass(tree: Path) -> None:
    paths = sorted({path for one in MUTANTS for path in one.tests.split()})
    done = run_tests(tree, paths, 660)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-500:]
