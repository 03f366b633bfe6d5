"""A loaded potential owns its memory, and a file that changed after it was written is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rewriting import rewrite
from structures import potential, rattled_crystal, settings

from lrc_ase import LRCCalculator, Potential
from lrc_ase.files.errors import PotentialFileError
from lrc_ase.files.potential_file import load_potential, save_potential
from lrc_ase.files.pretrained import trained_potential
from lrc_ase.models.model import build_model


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "potential.safetensors"
    save_potential(path, potential())
    return path


@pytest.fixture
def truncated_afterwards(saved):
    """A loaded potential whose file is then cut to nothing: pages of a memory map would be gone."""
    loaded = load_potential(saved)
    with saved.open("r+b") as file:
        file.truncate(0)
    return loaded


def test_a_loaded_potential_survives_the_truncation_of_its_file(truncated_afterwards):
    expected = potential()
    assert torch.equal(truncated_afterwards.references, expected.references)
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(truncated_afterwards.model.state_dict()[name], tensor)


def test_a_calculator_keeps_its_energies_when_its_file_is_overwritten_in_place(saved, tmp_path):
    other = tmp_path / "other.safetensors"
    base = load_potential(saved)
    save_potential(other, Potential(base.model, base.references + 100.0))
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(saved)
    assert saved.stat().st_size == other.stat().st_size
    with saved.open("r+b") as file:
        file.write(other.read_bytes())
    expected = LRCCalculator(potential()).get_potential_energy(rattled_crystal())
    assert atoms.get_potential_energy() == expected
    assert LRCCalculator(saved).get_potential_energy(atoms) == pytest.approx(expected + 800.0)


def test_no_part_of_a_loaded_potential_is_mapped_to_its_file(saved):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    loaded = load_potential(saved)
    calculator = LRCCalculator(loaded)
    assert loaded is calculator.potential
    assert str(saved) not in maps.read_text()


def test_a_calculator_owns_its_references():
    shared = potential()
    calculator = LRCCalculator(shared)
    before = calculator.get_potential_energy(rattled_crystal())
    shared.references.add_(100.0)
    calculator.reset()
    assert calculator.get_potential_energy(rattled_crystal()) == before


@pytest.mark.parametrize("place", ["tensors", "references", "header", "description"])
def test_a_change_of_one_byte_is_seen(saved, place):
    content = bytearray(saved.read_bytes())
    if place == "tensors":
        content[-3] ^= 1
    elif place == "references":
        rewrite(saved, change_tensors=lambda tensors: tensors["references"].add_(1e-9), sign=False)
        content = bytearray(saved.read_bytes())
    elif place == "header":
        content[content.index(b'cutoff\\": 4.5') + 12] = ord("6")
    else:
        rewrite(saved, lambda header: header["description"].update(stage="other"), sign=False)
        content = bytearray(saved.read_bytes())
    saved.write_bytes(content)
    with pytest.raises(
        PotentialFileError, match=r"potential\.safetensors has changed since it was written: its digest"
    ):
        load_potential(saved)


def test_a_file_of_format_3_needs_no_digest_and_one_of_format_4_does(saved):
    expected = load_potential(saved).model.state_dict()
    rewrite(saved, lambda header: header.pop("digest"))
    with pytest.raises(PotentialFileError, match="header: digest: expected one since format version 4"):
        load_potential(saved)
    rewrite(saved, lambda header: header.update(format_version=4))
    with pytest.raises(PotentialFileError, match="header: digest: expected one"):
        load_potential(saved)
    rewrite(saved, lambda header: header.update(format_version=3))
    for name, tensor in load_potential(saved).model.state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_digests_of_potentials_tell_apart_what_predicts_differently():
    first, again = potential(), potential()
    assert first.digest() == again.digest()
    assert first.digest() != Potential(first.model, first.references + 1e-9).digest()
    assert first.digest() != potential(seed=1).digest()
    changed = Potential(build_model(settings(cutoff=4.6)), first.references)
    changed.model.load_state_dict(first.model.float().state_dict(), strict=False)
    assert first.digest() != changed.digest()


def test_the_shipped_potential_predicts_what_it_always_did(tmp_path):
    """Energy by lrc-ase 0.1.0, whose mesh gives other last digits."""
    copied = tmp_path / "nacl.safetensors"
    shutil.copy(trained_potential("nacl"), copied)
    loaded = load_potential(copied)
    save_potential(copied, loaded)
    atoms = rattled_crystal()
    first, again = (LRCCalculator(each).get_potential_energy(atoms) for each in (loaded, copied))
    assert first == again
    np.testing.assert_allclose(first, -508.312231, rtol=0, atol=1e-5)
