"""Conversion of the tensors of earlier potential files to the current format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lrc_ase.models.descriptors.sphere.shape import smoothness
from lrc_ase.models.settings import ModelSettings, SphereSettings

__all__ = ["upgraded", "upgraded_settings"]


def upgraded_settings(model: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Convert the model settings of a file of format `version` to those of the current model.

    Until version 4 latent charges were shifted evenly to the total charge. Files of version 4 and before, and the first
    of version 5, hold no `compression` of the sphere descriptor: its features grew without limit. Nor do they hold the
    `wall` of the core repulsion: there was none.
    """
    new = dict(model)
    descriptor, long_range = model.get("descriptor"), model.get("long_range")
    if isinstance(descriptor, Mapping) and descriptor.get("name") == "sphere":
        new["descriptor"] = {"compression": None, **descriptor}
    if version <= 4 and isinstance(long_range, Mapping):
        new["long_range"] = {"charges": "shifted", **long_range}
    if isinstance(baselines := model.get("baseline"), Sequence):
        new["baseline"] = [
            {"wall": 0.0, **each} if isinstance(each, Mapping) and each.get("name") == "zbl" else each
            for each in baselines
        ]
    return new


def upgraded(tensors: Mapping[str, Tensor], version: int, settings: ModelSettings) -> dict[str, Tensor]:
    """Convert tensors of format `version` to those of the current model, with unchanged predictions.

    Until version 2 a sphere descriptor had one mixing matrix for all elements, multiplied by a scale per element, and
    radial functions of equal size. Now each element has a matrix and radial functions decrease in size.

    Raises
    ------
    ValueError
        A tensor has a shape that no file of that version has.
    """
    new = dict(tensors)
    if version > 2 or not isinstance(settings.descriptor, SphereSettings):
        return new
    sizes = torch.from_numpy(smoothness(settings.descriptor.n_radial))
    for name, scale in tensors.items():
        block = name.removesuffix("center_scale")
        if block != name and f"{block}mixing" in tensors:
            del new[name]
            mixing = tensors[f"{block}mixing"]  # (n_degrees, n_radial * n_weights, n_channels)
            # compared first: a product of mismatched shapes could be of any size
            if mixing.ndim != 3 or mixing.shape[1] % len(sizes):
                raise ValueError(
                    f"tensor '{block}mixing' has shape {list(mixing.shape)}, which no sphere descriptor has"
                )
            if scale.shape != (len(settings.elements), mixing.shape[2]):
                raise ValueError(
                    f"tensor '{name}' must have shape {[len(settings.elements), mixing.shape[2]]}, "
                    f"got {list(scale.shape)}"
                )
            mixing = mixing / sizes.to(mixing).repeat(mixing.shape[1] // len(sizes))[:, None]
            new[f"{block}mixing"] = mixing
            # the matrix of an element is `mixing` plus its own `element_mixing`: together the scaled matrix
            new[f"{block}element_mixing"] = mixing * (scale[:, None, None] - 1)
    return new
