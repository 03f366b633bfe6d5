"""NequIP, compiled by AOTInductor for ASE as `nequip-compile` does it: random weights.

`published` has the settings of the errors on acetylacetone, `small` is the package's preset S.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from nequip.data import AtomicDataDict, from_ase
from nequip.integrations.ase import NequIPCalculator
from nequip.integrations.utils import basic_transforms, handle_chemical_species_map
from nequip.model import NequIPGNNModel
from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
from nequip.utils.aot import aot_export_model
from nequip.utils.aoti_metadata import NEQUIP_AOTI_INPUTS_KEY, NEQUIP_AOTI_OUTPUTS_KEY, serialize_aoti_keys
from nequip.utils.global_state import get_latest_global_state, set_global_state

BOX = 20.0
"""Edge of the cell of a molecule, Angstrom, which stays without periodic images: stress needs a volume."""
SETTINGS = {
    "published": {
        "num_layers": 5, "l_max": 3, "num_features": 40, "parity": True, "radial_mlp_depth": 1, "radial_mlp_width": 64,
        "r_max": 4.0, "cutoff_power": 6,
    },
    "small": {
        "num_layers": 2, "l_max": 1, "num_features": [128, 64], "parity": False, "type_embed_num_features": 32,
        "radial_mlp_depth": 1, "radial_mlp_width": 128, "r_max": 5.0, "cutoff_power": 6,
    },
}  # fmt: skip
"""`published`: layers, degree and cutoff of arXiv:2206.07697, Appendix A.5.2, with as many channels as give about the
3,190,488 parameters of its Table 3. `small`: the preset S of the package, at 5 Angstrom."""


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator; without compilation for a name of settings that ends in `eager`."""
    torch.set_num_threads(1)
    if not atoms.pbc.any():
        atoms.set_cell(3 * [BOX])
    if model.endswith(" eager"):
        network, transforms = _network(atoms, model.removesuffix(" eager"), precision)
        return NequIPCalculator(network, device="cpu", transforms=transforms)
    elements = "".join(sorted(set(atoms.symbols)))
    path = folder.parents[1] / f"nequip-{model}-{precision}-{elements}.nequip.pt2"  # serves all sizes
    if not path.exists():
        _compile(atoms, model, precision, path)
    return NequIPCalculator.from_compiled_model(path, device="cpu", chemical_species_to_atom_type_map=True)


def _network(atoms: Atoms, model: str, precision: str) -> tuple[torch.nn.Module, list]:
    """Return the model and what prepares its input."""
    set_global_state(allow_tf32=False)
    settings = dict(SETTINGS[model])
    cutoff_power = settings.pop("cutoff_power")
    elements = sorted(set(atoms.symbols))
    network = NequIPGNNModel(
        seed=0,
        model_dtype=precision,
        type_names=elements,
        avg_num_neighbors=14.0 if len(atoms) == 15 else 50.0,
        num_bessels=8,
        polynomial_cutoff_p=cutoff_power,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
        **settings,
    )
    network.eval()
    modules = list(network.values()) if isinstance(network, torch.nn.ModuleDict) else [network]
    (network,) = modules
    species = handle_chemical_species_map(True, elements)
    return network, basic_transforms(network.metadata, settings["r_max"], elements, species)


def _compile(atoms: Atoms, model: str, precision: str, path: Path) -> None:
    """Build the model and compile it, as `nequip-compile --mode aotinductor --target ase` does with a trained one."""
    network, transforms = _network(atoms, model, precision)
    metadata = {**network.metadata, **get_latest_global_state(only_metadata_related=True)}
    metadata = {key: str(int(value)) if isinstance(value, bool) else str(value) for key, value in metadata.items()}
    data = from_ase(atoms)
    for transform in transforms:
        data = transform(data)
    target = COMPILE_TARGET_DICT["ase"]
    dimensions = {name: torch.export.dynamic_shapes.Dim(f"num_{name}", min=2) for name in ("graph", "node", "edge")}
    metadata[NEQUIP_AOTI_INPUTS_KEY] = serialize_aoti_keys(target["input"])
    metadata[NEQUIP_AOTI_OUTPUTS_KEY] = serialize_aoti_keys(target["output"])
    aot_export_model(
        model=network,
        device=torch.device("cpu"),
        input_fields=target["input"],
        output_fields=target["output"],
        data=AtomicDataDict.to_(target["data_settings"](data), torch.device("cpu")),
        batch_map=target["batch_map_settings"](dimensions),
        output_path=str(path),
        inductor_configs={"aot_inductor.metadata": metadata},
    )


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("nequip", "torch", "e3nn", "ase")}
