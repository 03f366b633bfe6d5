"""Loaded before any test: asserts of the contract suite explain themselves as those of tests do."""

import gc

import pytest

pytest.register_assert_rewrite("contract")
# collecting tests makes half a million objects that live to the end: the garbage collector need not visit them
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from now on, among the objects that tests create."""
    gc.freeze()
    gc.enable()
