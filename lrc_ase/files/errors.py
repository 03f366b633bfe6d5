"""Errors and warnings about potential files."""

from __future__ import annotations

__all__ = ["PotentialFileError", "ShadowedNameWarning"]


class PotentialFileError(ValueError):
    """Error about a potential file that is missing, damaged, foreign or of a newer format."""


class ShadowedNameWarning(UserWarning):
    """Warning about a local file or folder that has the name of a shipped potential."""
