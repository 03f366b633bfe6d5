"""Small structures and untrained models that several test files share."""

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

from lrc_ase import LongRangeSettings, ModelSettings, Potential, build_model
from lrc_ase.files.potential_file import load_potential

ELEMENTS = ("H", "O", "Na", "Cl")


def settings(*, long_range=True, **changes):
    chosen = {"elements": ELEMENTS, "cutoff": 4.5, "average_neighbors": 20.0, "hidden": (16, 16)}
    standard = LongRangeSettings(n_channels=2, accuracy=1e-6, compositions={"NaCl": 0, "H2O": 0})
    chosen["long_range"] = standard if long_range is True else long_range or None
    return ModelSettings(**(chosen | changes))


def shaken_model(model_settings=None, *, seed=0, dtype=torch.float64):
    """A model in the middle of training: every parameter, zeros too, moved at random."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(model_settings or settings(), generator=generator).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=dtype)
    return model


def potential(model_settings=None, *, seed=0):
    references = torch.tensor([-13.6, -2000.5, -4400.25, -12500.125], dtype=torch.float64)
    return Potential(shaken_model(model_settings, seed=seed), references)


def random_walk(atoms, *, n_steps, size, strain=0.0):
    """Yield the atoms at positions, and in cells, of a random walk with steps of `size` in Angstrom."""
    random = np.random.default_rng(3)
    for _ in range(n_steps):
        atoms.positions += random.normal(scale=size, size=atoms.positions.shape)
        if strain:
            atoms.set_cell(atoms.cell @ (np.eye(3) + random.normal(scale=strain, size=(3, 3))), scale_atoms=True)
        yield atoms


def rattled_crystal(*, seed=0, repeat=(1, 1, 1)):
    """Eight atoms of NaCl in a slanted cell smaller than the cutoff."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(repeat)
    slant = np.eye(3) + np.array([[0.02, 0.1, -0.05], [0.0, -0.03, 0.15], [0.04, 0.0, 0.05]])
    atoms.set_cell(atoms.cell.array @ slant, scale_atoms=True)
    atoms.rattle(0.2, seed=seed)
    return atoms


def water():
    """One molecule without a cell."""
    return molecule("H2O")


def salt_water_slab():
    """Ions and water on a surface, open along z."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=3)
    atoms += Atoms("OH2", positions=[[2, 2, 8.0], [2.7, 2.1, 8.6], [1.4, 2.3, 8.6]])
    atoms.pbc = (True, True, False)
    return atoms


def surroundings(seed=0, *, n_atoms=3, n_neighbors=9):
    """Arguments of a descriptor: vectors, mask, species, neighbors, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_atoms, n_neighbors, 3, dtype=torch.float64, generator=generator)
    lengths = 1 + 3 * torch.rand(n_atoms, n_neighbors, 1, dtype=torch.float64, generator=generator)
    vectors = lengths * directions / directions.norm(dim=-1, keepdim=True)
    mask = torch.rand(n_atoms, n_neighbors, generator=generator) < 0.8
    species = torch.randint(4, (n_atoms,), generator=generator)
    neighbors = torch.randint(n_atoms, (n_atoms, n_neighbors), generator=generator)
    return vectors, mask, species, neighbors


def salt_potential():
    """The shipped potential of NaCl with charges that move between neighbors; stable in dynamics.

    Ions have the mean charge of the shipped potential; transfers at random are small.
    """
    shipped = load_potential("nacl")
    long_range = shipped.settings.long_range.model_copy(update={"charges": "transfers", "compositions": {"NaCl": 0}})
    model = build_model(shipped.settings.model_copy(update={"long_range": long_range}))
    part, old = model.long_range, shipped.model.long_range
    _, surplus = model.load_state_dict(
        {name: value for name, value in shipped.model.state_dict().items() if "weights" not in name}, strict=False
    )
    assert not surplus
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in old.weights.state_dict().items():
            tensor = part.weights.state_dict()[name]
            if tensor.shape == value.shape:
                tensor.copy_(value)
            else:  # the charge has one output, transfers have several
                rows = tensor.mT if name == "element_bias.weight" else tensor
                rows[part.n_charges :] = (value.mT if name == "element_bias.weight" else value)[1:]
        part.transfers.element_charges.copy_(torch.tensor([0.53, -0.53]))
        amounts = part.weights.last.weight[: part.n_charges]
        amounts.copy_(0.01 * torch.randn(amounts.shape, generator=generator))
        part.weights.element_bias.weight[:, : part.n_charges] = 0.01
    return Potential(model, shipped.references)


def salt_with_terms(*, n_tensors=1):
    """`salt_potential` with dipoles and latent tensors, whose networks have small random weights."""
    plain = salt_potential()
    terms = {"polarizable": True, "n_dipoles": 2, "n_tensors": n_tensors}
    long_range = plain.settings.long_range.model_copy(update=terms)
    model = build_model(
        plain.settings.model_copy(update={"long_range": long_range}), generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        for name, value in plain.model.state_dict().items():
            tensor = model.state_dict()[name]
            # more outputs of the network of weights, and more inputs of the network that mixes fields
            tensor[tuple(map(slice, value.shape))] = value
        first = plain.model.long_range.weights.last.out_features
        # small ones: a network at random is no potential to run dynamics with
        model.long_range.weights.last.weight[first:] *= 0.3
        if n_tensors:
            model.long_range.weights.element_bias.weight[:, -model.long_range.n_amounts :] = 0.1
    return Potential(model, plain.references)


def salt_with_repulsion():
    """`salt_potential` with a core repulsion that neighbors in the crystal feel."""
    plain = salt_potential()
    ranges = {"Na-Na": 3.0, "Na-Cl": 3.0, "Cl-Cl": 3.0}
    model = build_model(plain.settings.model_copy(update={"baseline": [{"zbl": {"ranges": ranges}}]}))
    model.load_state_dict(plain.model.state_dict())
    return Potential(model.to(next(plain.model.parameters())), plain.references)


def salt_with_two_blocks(**descriptor):
    """`salt_potential` with a second block, whose features have small random weights in the networks."""
    one = salt_potential()
    settings_of_two = one.settings.descriptor.model_copy(update={"n_blocks": 2} | descriptor)
    generator = torch.Generator().manual_seed(1)
    model = build_model(one.settings.model_copy(update={"descriptor": settings_of_two}), generator=generator)
    with torch.no_grad():
        for name, value in one.model.state_dict().items():
            tensor = model.state_dict()[name]
            if tensor.shape == value.shape:
                tensor.copy_(value)
            else:  # the first layer of a network, which has columns for features of both blocks
                n_features = value.shape[1]
                tensor[:, :n_features] = value
                tensor[:, n_features:] = 0.02 * torch.randn(value.shape, generator=generator)
    return Potential(model, one.references)
