"""A descriptor of one's own, Gaussians of the distance per element: trained, written to a file, used in ASE."""

import tempfile
from pathlib import Path
from typing import Literal

import torch
from ase.build import bulk

from lrc_ase import DescriptorSettings, LRCCalculator
from lrc_ase.models.descriptors import Descriptor, register
from lrc_ase.training import parse_configuration, train


class GaussianSettings(DescriptorSettings):
    name: Literal["gaussians"] = "gaussians"
    n_gaussians: int = 12


@register
class Gaussians(Descriptor):
    settings_class = GaussianSettings

    def __init__(self, settings, *, n_elements, cutoff, average_neighbors, generator=None):
        super().__init__()
        self.cutoff, self.n_features = cutoff, n_elements * settings.n_gaussians
        self.centers, self.elements = torch.linspace(1, cutoff, settings.n_gaussians), torch.eye(n_elements)

    def forward(self, vectors, mask, species, neighbors):
        distances = torch.where(mask[..., None], vectors, self.cutoff).norm(dim=-1, keepdim=True)
        fade = (1 - (distances / self.cutoff) ** 2).clamp(min=0) ** 3  # smooth at the cutoff, zero for padding
        gaussians = fade * torch.exp(-3 * (distances - self.centers.to(vectors)) ** 2)
        return torch.einsum("ike,ikg->ieg", self.elements.to(vectors)[species[neighbors]], gaussians).flatten(1)


frames, model = Path(__file__).parent / "nacl/small.extxyz", {"descriptor": {"name": "gaussians", "n_gaussians": 16}}
content = {"data": {"small": {"train": f"{frames}@::8"}}, "model": model, "stages": [{"name": "only", "epochs": 5}]}
crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
crystal.calc = LRCCalculator(train(parse_configuration(content), tempfile.mkdtemp()))
print(f"energy {crystal.get_potential_energy():.3f} eV, charges {crystal.get_charges()[:2].round(2)} e")
