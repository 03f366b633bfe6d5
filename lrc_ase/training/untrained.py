"""Initial model of a stage: new, from the stage before, or from a potential that is trained further."""

from __future__ import annotations

import torch

from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.model import ShortRangeModel, build_model, extend_to_full_range
from lrc_ase.models.settings import ModelSettings
from lrc_ase.training.completion import complete_baselines
from lrc_ase.training.configuration import ModelConfiguration

__all__ = ["new_model", "next_model", "preset_model", "with_settings"]


def new_model(settings: ModelSettings, *, n_members: int, seed: int) -> ShortRangeModel:
    """Build an untrained model, or an ensemble of models with different initial weights."""
    members = [build_model(settings, generator=_generator(seed, member)) for member in range(n_members)]
    return members[0] if n_members == 1 else Ensemble(members)


def preset_model(name: str) -> ShortRangeModel:
    """Build an untrained model of the settings that a preset gives a training, for the elements Na and Cl."""
    chosen = ModelConfiguration.model_validate({"preset": name, "elements": ["Na", "Cl"]})
    known = {key: getattr(chosen, key) for key in ("elements", "cutoff", "descriptor", "long_range", "hidden")}
    baseline = complete_baselines(chosen, known["elements"], {})
    return build_model(ModelSettings(**known, baseline=baseline))


def next_model(previous: ShortRangeModel, settings: ModelSettings, *, n_members: int, seed: int) -> ShortRangeModel:
    """Build a model of `settings` with the weights of `previous`, which may lack elements and the long-range part.

    Elements that `previous` does not know must come last. New weights start as in an untrained model. Predictions for
    structures of the old elements do not change, unless a long-range part with electrostatics is added.
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
    """Return a copy of `model`, extended by the elements and the long-range part that only `settings` have."""
    old_settings = model.settings
    if settings.elements[: len(old_settings.elements)] != old_settings.elements:
        raise ValueError(f"`settings` must begin with the elements {old_settings.elements}, got {settings.elements}")
    # new elements bring pairs of their own into the baseline
    copied = old_settings.model_copy(update={"elements": settings.elements, "baseline": settings.baseline})
    grown = build_model(copied, generator=generator).to(next(model.parameters()))
    weights = grown.state_dict()
    for name, old in model.state_dict().items():
        # tensors with rows per element: the old elements come first, so that their rows do too
        weights[name][tuple(slice(size) for size in old.shape)] = old
    if settings.long_range is not None and old_settings.long_range is None:
        grown = extend_to_full_range(grown, settings.long_range, generator=generator)
    if grown.settings != settings:
        raise ValueError("`settings` must differ from those of the model in new elements and the long-range part alone")
    return grown


def _generator(seed: int, member: int) -> torch.Generator:
    """Return the generator of the initial weights of a member."""
    # far from the seeds of the following stages
    return torch.Generator().manual_seed(seed + 1_000_003 * member)
