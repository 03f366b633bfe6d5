"""Errors and warnings about potential files."""

from __future__ import annotations

__all__ = ["PotentialFileError", "ShadowedNameWarning"]


class PotentialFileError(ValueError):
    """A potential file that is missing, damaged, foreign or of a newer format."""


class ShadowedNameWarning(UserWarning):
    """A local file or folder has the name of a potential that is shipped."""
