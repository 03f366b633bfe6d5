"""Loaded before any test: asserts of the contract suite explain themselves as those of tests do."""

import gc
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("contract")
# collecting tests makes half a million objects that live to the end: the garbage collector need not visit them
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from now on, among the objects that tests create, and less often than by default."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.fixture(scope="module")
def plain_descriptor() -> Iterator[None]:
    """Evaluate descriptors in plain torch in tests that would compile kernels for the sizes of nearly every case."""
    from lrc_ase.models.descriptors import SphereDescriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SphereDescriptor, "engine", "reference")
        yield
