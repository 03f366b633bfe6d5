"""The model that a stage begins with: new, of the stage before, or from a potential that is to learn more."""

from __future__ import annotations

import torch

from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.model import ShortRangeModel, build_model, extend_to_full_range
from lrc_ase.models.settings import ModelSettings

__all__ = ["new_model", "next_model", "with_settings"]


def new_model(settings: ModelSettings, *, n_members: int, seed: int) -> ShortRangeModel:
    """Untrained model, or an ensemble of models with different initial weights."""
    members = [build_model(settings, generator=_generator(seed, member)) for member in range(n_members)]
    return members[0] if n_members == 1 else Ensemble(members)


def next_model(previous: ShortRangeModel, settings: ModelSettings, *, n_members: int, seed: int) -> ShortRangeModel:
    """Model with the weights of `previous` that has the elements and the parts that `settings` ask for.

    Elements that `previous` does not know must come last. What is new starts as in an untrained model; predictions for
    structures of the old elements stay as they are, unless a long-range part with electrostatics is added.
    """
    known = members_of(previous)
    members = [
        with_settings(known[member % len(known)].cpu(), settings, _generator(seed, member))
        for member in range(n_members)
    ]
    return members[0] if n_members == 1 else Ensemble(members)


@torch.no_grad()
def with_settings(
    model: ShortRangeModel, settings: ModelSettings, generator: torch.Generator | None = None
) -> ShortRangeModel:
    """Copy of `model` with more elements and a long-range part, where `settings` have them."""
    own = model.settings
    if settings.elements[: len(own.elements)] != own.elements:
        raise ValueError(f"`settings` must begin with the elements {own.elements}, got {settings.elements}")
    copied = own.model_copy(update={"elements": settings.elements})
    grown = build_model(copied, generator=generator).to(next(model.parameters()))
    weights = grown.state_dict()
    for name, old in model.state_dict().items():
        # whatever has a row for each element, or rows of each, has those of the first elements first
        weights[name][tuple(slice(size) for size in old.shape)] = old
    if settings.long_range is not None and own.long_range is None:
        grown = extend_to_full_range(grown, settings.long_range, generator=generator)
    if grown.settings != settings:
        raise ValueError("`settings` must differ from those of the model in new elements and the long-range part alone")
    return grown


def _generator(seed: int, member: int) -> torch.Generator:
    # far from the seeds of the following stages
    return torch.Generator().manual_seed(seed + 1_000_003 * member)
