"""Loaded before any test: asserts of the contract suite explain themselves as those of tests do."""

import pytest

pytest.register_assert_rewrite("contract")
