"""Potential files that lie or change: one line that names file and key, no memory beyond the file's size."""

import json
import re
import tracemalloc

import pytest
import safetensors.torch
import torch
from rewriting import rewrite
from structures import potential

from lrc_ase import ModelSettings, Potential
from lrc_ase.files.errors import PotentialFileError
from lrc_ase.files.header import HEADER_KEY
from lrc_ase.files.limited_construction import LargerThanFileError, limited_construction
from lrc_ase.files.potential_file import load_potential, save_potential
from lrc_ase.files.tensors import TensorFileError, read_tensors
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import LongRangeSettings, PaperSettings, PonitaSettings, SphereSettings
from lrc_ase.structures.domain import TrainingDomain


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "potential.safetensors"
    save_potential(path, potential())
    return path


TOO_LARGE = {
    "hidden": {"hidden": [16000, 16000]},
    "channels": {"descriptor": {"name": "sphere", "n_channels": 4096, "n_radial": 256}},
    "second block": {"descriptor": {"name": "sphere", "n_channels": 4096, "n_radial": 256, "n_blocks": 2}},
    "layers": {"descriptor": {"name": "ponita", "n_layers": 64, "n_channels": 4096, "n_basis": 4096}},
    "widths": {"descriptor": {"name": "paper", "widths": [16000, 16000, 16000]}},
    "features": {"long_range": {"n_channels": 256, "n_features": 16000}, "hidden": [16000]},
}


@pytest.mark.parametrize("change", TOO_LARGE.values(), ids=TOO_LARGE)
def test_settings_larger_than_the_tensors_are_refused_before_they_allocate(saved, change, monkeypatch):
    rewrite(saved, lambda header: header["model"].update(change))
    largest = []
    original = torch.empty

    def watched(*size, **options):
        made = original(*size, **options)
        largest.append(made.numel())
        return made

    monkeypatch.setattr(torch, "empty", watched)
    with pytest.raises(PotentialFileError, match="has settings of a model that is larger than its tensors"):
        load_potential(saved)
    assert max(largest, default=0) < 2**23


def test_construction_is_stopped_before_the_allocation():
    with pytest.raises(LargerThanFileError, match="larger than the file"), limited_construction(10):
        torch.empty(10**6, 10**6)
    for allocate in (
        lambda: torch.zeros((10**9,)),
        lambda: torch.randn(size=(10**5, 10**5)),
        lambda: torch.ones(2).new_zeros(10**5, 10**5),
        lambda: torch.nn.Linear(10**5, 10**5),
        lambda: torch.nn.Embedding(10**5, 10**5),
    ):
        with pytest.raises(LargerThanFileError), limited_construction(10):
            allocate()
    with limited_construction(10):
        assert torch.arange(12).reshape(-1, 4).shape == (3, 4)


@pytest.mark.parametrize("long_range", [None, LongRangeSettings()], ids=["short", "full"])
@pytest.mark.parametrize(
    "descriptor",
    [
        SphereSettings(),
        SphereSettings(n_blocks=2),
        SphereSettings(n_blocks=2, neighbor_degree=1),
        PonitaSettings(),
        PaperSettings(),
    ],
    ids=lambda d: d.name,
)
@pytest.mark.parametrize("n_elements", [1, 12])
def test_every_honest_model_is_built_within_the_limit(descriptor, long_range, n_elements):
    elements = ("H", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl")[:n_elements]
    chosen = ModelSettings(elements=elements, descriptor=descriptor, long_range=long_range)
    n_numbers = sum(tensor.numel() for tensor in build_model(chosen).state_dict().values())
    with limited_construction(n_numbers), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrc_ase.files.limited_construction._SLACK", 0)
        build_model(chosen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(n_members=10**9), r"header: n_members: Input should be less than or equal to 64, got 10+$"),
        (lambda h: h.update(n_members=True), "header: n_members: Input should be a valid integer"),
        (lambda h: h.update(n_members=64), "lacks the tensors"),
        (lambda h: h["model"].update(cutoff=1e9), "model.cutoff: Input should be less than or equal to 100"),
        (lambda h: h["model"].update(cutoff=float("inf")), "model.cutoff: Input should be a finite number"),
        (lambda h: h["model"].update(hidden=[]), "model.hidden: Tuple should have at least 1 item"),
        (lambda h: h["model"].update(hidden=[10**9]), r"model.hidden.0: Input should be less than or equal to 16384"),
        (lambda h: h["model"].update(elements=["Na", "Na"]), "model.elements: the element Na occurs twice"),
        (lambda h: h["model"].update(elements=["Zz"]), r"model.elements: 'Zz' is no chemical symbol \(isotopes"),
        (
            lambda h: h["model"].update(elements=["na"]),
            r"model.elements: 'na' is no chemical symbol; did you mean Na\?",
        ),
        (lambda h: h["model"].update(descriptor={"name": "ponita", "n_layers": 10**7}), "model.descriptor.n_layers"),
        (lambda h: h["model"].update(descriptor=5), "model.descriptor"),
        (
            lambda h: h["model"].update(long_range={"n_channels": 0, "electrostatics": False}),
            "from which no model can be built",
        ),
        (lambda h: h.update(model=[1]), "header: model: Input should be a valid dictionary, got"),
        (lambda h: h.update(description=None), "header: description: Input should be a valid dictionary"),
        (
            lambda h: h["description"].update(remarks="text"),
            "header: description.remarks: Input should be a valid list",
        ),
        (
            lambda h: h["description"].update(remarks=[5]),
            "header: description.remarks.0: Input should be a valid string",
        ),
        (lambda h: h["units"].update(energy="Ha"), "header: units.energy: Input should be 'eV', got 'Ha'"),
        (lambda h: h.pop("units"), "header: units: Field required"),
        (lambda h: h.pop("format_version"), "header: format_version: Field required"),
        (lambda h: h.update(format_version="4"), "header: format_version: Input should be a valid integer"),
        (lambda h: h.update(surplus=1), "header: surplus: Extra inputs are not permitted"),
        (lambda h: h.update(versions=[]), "header: versions"),
    ],
)
def test_a_header_out_of_bounds_is_named_in_one_line(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(PotentialFileError, match=message) as raised:
        load_potential(saved)
    text = str(raised.value)
    assert text.startswith(str(saved))
    assert "\n" not in text
    assert len(text) < len(str(saved)) + 300


@pytest.mark.parametrize(
    "domain",
    [
        5,
        "text",
        [1],
        {"shortest_distances": 5},
        {"shortest_distances": {"Na": 1.0}},
        {"shortest_distances": {"Na-Xx": 1.0}},
        {"shortest_distances": {"Na-Cl-O": 1.0}},
        {"shortest_distances": {"Na-Cl": "near"}},
        {"shortest_distances": {"Na-Cl": None}},
        {"shortest_distances": {"Na-Cl": -1.0}},
        {"shortest_distances": {"Na-Cl": float("nan")}},
        {"total_charges": 0.0},
        {"total_charges": ["0"]},
        {"total_charges": [None]},
        {"neighbors": 5},
        {"neighbors": [1]},
        {"neighbors": [1, 2, 3]},
        {"neighbors": ["a", "b"]},
        {"neighbors": [9, 2]},
        {"neighbors": [1.5, 2]},
        {"neighbors": [-1, 2]},
        {"largest_force": "strong"},
        {"largest_force": [1.0]},
        {"largest_force": True},
        {"largest_farce": 1.0},
    ],
    ids=str,
)
def test_a_training_domain_of_bad_shape_is_named(saved, domain):
    with pytest.raises(ValueError, match=r"^training_domain"):
        TrainingDomain.from_description({"training_domain": domain}, ("Na", "Cl"))
    rewrite(saved, lambda header: header["description"].update(training_domain=domain))
    with pytest.raises(PotentialFileError, match=r"potential.safetensors: header: description\.training_domain"):
        load_potential(saved)
    with pytest.raises(ValueError, match=r"header: description\.training_domain"):
        save_potential(saved, Potential(potential().model, potential().references, {"training_domain": domain}))


@pytest.mark.parametrize("text", ["", "[]", "{", "5", '{"a": 1, "a": 2}', "[" * 100000, '{"a":' * 40 + "1" + "}" * 40])
def test_json_that_is_none_of_ours_is_named(saved, text):
    tensors, _ = read_tensors(saved)
    safetensors.torch.save_file(tensors, saved, {HEADER_KEY: text})
    with pytest.raises(PotentialFileError, match=r"potential\.safetensors: header: ") as raised:
        load_potential(saved)
    assert "\n" not in str(raised.value)


def test_weights_that_are_not_finite_are_refused_when_saved_and_loaded(saved, tmp_path):
    name = "model.readout.last.weight"
    rewrite(saved, change_tensors=lambda tensors: tensors[name].fill_(float("nan")))
    with pytest.raises(PotentialFileError, match=f"tensor '{name.removeprefix('model.')}' holds numbers that are not"):
        load_potential(saved)
    broken = potential()
    broken.references[0] = float("inf")
    with pytest.raises(ValueError, match="tensor 'references' holds numbers that are not finite"):
        save_potential(tmp_path / "new", broken)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.complex64])
def test_weights_of_another_type_are_refused(saved, dtype):
    name = "model.readout.last.weight"
    rewrite(saved, change_tensors=lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(PotentialFileError, match=r"must be torch.float32, got|is truncated or no safetensors file"):
        load_potential(saved)


@pytest.mark.parametrize("length", [2**63, 2**40, 10**9, 2**24 + 1])
def test_a_header_length_is_not_believed(saved, length):
    content = saved.read_bytes()
    saved.write_bytes(length.to_bytes(8, "little") + content[8:])
    tracemalloc.start()
    with pytest.raises(PotentialFileError, match="its header is longer than the file"):
        load_potential(saved)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e7


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "F128", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        [],
    ],
    ids=str,
)
def test_tensor_entries_that_do_not_fit_the_file_are_refused(tmp_path, entry):
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "t.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    with pytest.raises(TensorFileError, match=r"t\.safetensors is truncated or no safetensors file"):
        read_tensors(path)


def test_an_ensemble_with_misshaped_members_is_refused_before_all_are_built(tmp_path):
    path = tmp_path / "ensemble"
    members = [potential(seed=seed).model for seed in range(2)]
    save_potential(path, Potential(Ensemble(members), potential().references))
    assert load_potential(path).n_members == 2
    rewrite(path, lambda header: header.update(n_members=3))
    with pytest.raises(PotentialFileError, match=r"lacks the tensors members\.2\..* and \d+ more"):
        load_potential(path)


def test_old_files_with_misshaped_scales_are_refused(saved):
    def scale(tensors):
        del tensors["model.descriptor.element_mixing"]
        tensors["model.descriptor.center_scale"] = torch.ones(10**6)

    rewrite(saved, lambda header: (header.pop("digest"), header.update(format_version=2)), scale)
    with pytest.raises(
        PotentialFileError, match=r"tensor 'model.descriptor.center_scale' must have shape \[4, 128\], got"
    ):
        load_potential(saved)


@pytest.mark.parametrize("shape", [(4, 32), (4, 32, 128, 1), (4, 31, 128)], ids=str)
def test_old_files_with_misshaped_mixing_are_refused(saved, shape):
    """Eight radial functions of four elements: 32 rows, or another multiple of eight."""

    def mixing(tensors):
        del tensors["model.descriptor.element_mixing"]
        tensors["model.descriptor.center_scale"] = torch.ones(4, 128)
        tensors["model.descriptor.mixing"] = torch.zeros(shape)

    rewrite(saved, lambda header: (header.pop("digest"), header.update(format_version=2)), mixing)
    with pytest.raises(
        PotentialFileError, match=rf"tensor 'model.descriptor.mixing' has shape {re.escape(str(list(shape)))}, which no"
    ):
        load_potential(saved)
