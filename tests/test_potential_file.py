"""The potential file: what goes in comes out, and damaged or foreign files are refused."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from rewriting import rewrite

from lrc_ase.files.errors import PotentialFileError
from lrc_ase.files.header import FORMAT_VERSION
from lrc_ase.files.potential_file import Potential, load_potential, save_potential
from lrc_ase.files.tensors import read_tensors
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import LongRangeSettings, ModelSettings, SphereSettings


@pytest.fixture
def potential():
    settings = ModelSettings(
        elements=("H", "O"),
        cutoff=3.0,
        descriptor=SphereSettings(n_radial=3, n_channels=4, degrees=(1, 1)),
        long_range=LongRangeSettings(n_channels=2, n_features=3),
        hidden=(5,),
    )
    model = build_model(settings, generator=torch.Generator().manual_seed(7))
    references = torch.tensor([-13.6, -1.5e6 + 0.123456789], dtype=torch.float64)
    return Potential(model, references, {"frames": 12, "validation": {"forces_mae": 31.5}})


@pytest.fixture
def saved(potential, tmp_path):
    path = tmp_path / "potential.safetensors"
    save_potential(path, potential)
    return path


@pytest.mark.parametrize("prefixes", [("model.",), ("model.members.0.", "model.members.1.")], ids=["model", "ensemble"])
def test_scales_of_elements_and_radial_functions_until_version_2_become_mixing(potential, tmp_path, prefixes):
    descriptor = SphereSettings(degrees=(1, 1), n_radial=3, n_channels=4, n_blocks=2)
    settings = potential.settings.model_copy(update={"descriptor": descriptor})
    models = [build_model(settings) for _ in prefixes]
    path = tmp_path / "old.safetensors"
    save_potential(path, Potential(models[0] if len(models) == 1 else Ensemble(models), potential.references))
    expected, generator = {}, torch.Generator().manual_seed(0)

    def scale_instead(tensors):
        for name in [f"{prefix}descriptor.{block}" for prefix in prefixes for block in ("", "second_")]:
            del tensors[f"{name}element_mixing"]
            scale = tensors[f"{name}center_scale"] = torch.rand(2, 8, generator=generator)
            # radial functions count fastest: neighbors' elements, or weights, times (1, 1/2, 1/3) of mean square one
            sizes = torch.tensor([1, 1 / 2, 1 / 3]).repeat(tensors[f"{name}mixing"].shape[1] // 3) * (108 / 49) ** 0.5
            expected[name.removeprefix("model.")] = tensors[f"{name}mixing"] / sizes[:, None] * scale[:, None, None]

    rewrite(path, lambda header: header.update(format_version=2), scale_instead)
    actual = load_potential(path).model.state_dict()
    assert len(expected) == 2 * len(prefixes)
    for name, mixing in expected.items():
        torch.testing.assert_close(actual[f"{name}mixing"] + actual[f"{name}element_mixing"], mixing)


def test_saved_potential_comes_back_bit_equal(potential, saved):
    loaded = load_potential(saved)
    assert loaded.settings == potential.settings
    assert loaded.description == potential.description
    assert torch.equal(loaded.references, potential.references)
    assert loaded.references.dtype == torch.float64
    expected = potential.model.state_dict()
    actual = loaded.model.state_dict()
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor)
        assert actual[name].dtype == tensor.dtype
    assert not loaded.model.training


def test_files_without_compression_keep_features_that_grow_without_limit(saved):
    """As files were before the setting existed; new models compress from 4 on."""
    assert load_potential(saved).settings.descriptor.compression == 4.0
    rewrite(saved, lambda header: header["model"]["descriptor"].pop("compression"))
    assert load_potential(saved).settings.descriptor.compression is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_load_takes_the_dtype_asked_for(saved, dtype):
    loaded = load_potential(saved, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {dtype}


def test_header_is_readable_without_this_package(saved):
    header = json.loads(read_tensors(saved)[1]["lrc_ase"])
    assert header["format_version"] == FORMAT_VERSION
    assert header["model"]["elements"] == ["H", "O"]
    assert header["units"] == {"energy": "eV", "length": "Angstrom", "charge": "e"}
    assert header["versions"]["torch"] == torch.__version__


def test_missing_file_is_named(tmp_path):
    with pytest.raises(PotentialFileError, match=r"absent\.safetensors does not exist"):
        load_potential(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_file_is_refused(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(PotentialFileError, match="truncated or no safetensors file"):
        load_potential(saved)


def test_foreign_file_is_refused(tmp_path):
    text = tmp_path / "text"
    text.write_text("not a potential at all, but long enough to hold a header length")
    with pytest.raises(PotentialFileError, match="truncated or no safetensors file"):
        load_potential(text)
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(PotentialFileError, match="no potential of lrc-ase"):
        load_potential(other)


def test_newer_format_is_refused_with_a_remedy(saved):
    rewrite(saved, change_header=lambda header: header.update(format_version=FORMAT_VERSION + 1))
    with pytest.raises(PotentialFileError, match=r"format version 6.*upgrade with"):
        load_potential(saved)


def test_unknown_model_settings_are_refused(saved):
    rewrite(saved, change_header=lambda header: header["model"].update(flavor="strange"))
    with pytest.raises(PotentialFileError, match=r"does not know: model\.flavor: Extra inputs are not permitted$"):
        load_potential(saved)


def test_missing_surplus_and_misshaped_tensors_are_named(saved, potential):
    name = "model." + next(iter(potential.model.state_dict()))
    intact = saved.read_bytes()
    rewrite(saved, change_tensors=lambda tensors: tensors.pop(name))
    with pytest.raises(PotentialFileError, match="lacks the tensors"):
        load_potential(saved)
    saved.write_bytes(intact)
    rewrite(saved, change_tensors=lambda tensors: tensors.update({"model.surplus": torch.zeros(2)}))
    with pytest.raises(PotentialFileError, match=r"does not have: .*surplus"):
        load_potential(saved)
    saved.write_bytes(intact)
    rewrite(saved, change_tensors=lambda tensors: tensors.update({name: torch.zeros(2, 3, 5, 7)}))
    with pytest.raises(PotentialFileError, match=r"must have shape .* got \[2, 3, 5, 7\]"):
        load_potential(saved)
    saved.write_bytes(intact)
    rewrite(saved, change_tensors=lambda tensors: tensors.pop("references"))
    with pytest.raises(PotentialFileError, match="lacks the tensor 'references'"):
        load_potential(saved)


def test_references_must_fit_the_elements(potential, tmp_path):
    with pytest.raises(ValueError, match="one energy per element"):
        save_potential(tmp_path / "p", Potential(potential.model, torch.zeros(3)))
