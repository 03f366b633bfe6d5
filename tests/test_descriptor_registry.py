"""Descriptors from outside: registered, installed, missing, broken; and how a configuration names any of them."""

from __future__ import annotations

import sys
from typing import Literal

import pytest
import torch
from rewriting import rewrite
from structures import ELEMENTS, potential, rattled_crystal, settings
from test_training_configuration import changed
from training_frames import TINY_MODEL, two_stage_configuration, write_frames

from lrc_ase.files.errors import PotentialFileError
from lrc_ase.files.potential_file import load_potential, save_potential
from lrc_ase.models import registry
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.descriptors import Descriptor, PonitaDescriptor, build_descriptor, register
from lrc_ase.models.settings import DescriptorSettings, PaperSettings, PonitaSettings, SphereSettings
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.training import ConfigurationError, load_configuration, parse_configuration, train, write_configuration

MODULE = """
from typing import Literal
import torch
from lrc_ase.models.descriptors import Descriptor
from lrc_ase.models.settings import DescriptorSettings

class CountSettings(DescriptorSettings):
    name: Literal["count"] = "count"
    power: int = 2
    "Steepness."

class Count(Descriptor):
    settings_class = CountSettings

    def __init__(self, settings, *, n_elements, cutoff, average_neighbors, generator=None):
        super().__init__()
        self.cutoff, self.power, self.n_features = cutoff, settings.power, 1

    def forward(self, vectors, mask, species, neighbors):
        squares = torch.where(mask[..., None], vectors, self.cutoff).square().sum(-1, keepdim=True)
        return (1 - squares / self.cutoff**2).clamp(min=0).pow(3 * self.power).sum(1)
"""


def install(folder, *, name="count", value="counting:Count", module=MODULE):
    """Create the files that pip installs for a package with one descriptor."""
    (folder / "counting.py").write_text(module)
    information = folder / "counting_descriptor-1.5.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-descriptor\nVersion: 1.5\n")
    (information / "entry_points.txt").write_text(f"[lrc_ase.descriptors]\n{name} = {value}\n")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    yield
    sys.modules.pop("counting", None)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def own_class():
    class OwnSettings(DescriptorSettings):
        name: Literal["own"] = "own"
        width: int = 3

    class Own(Descriptor):
        settings_class = OwnSettings

        def __init__(self, settings, *, n_elements, cutoff, average_neighbors, generator=None):
            super().__init__()
            self.n_features = settings.width

    return Own


def test_installed_descriptor_trains_and_its_potential_reloads(installed, tmp_path):
    write_frames(tmp_path)
    assert registry.names() == ["sphere", "ponita", "paper", "count"]
    model = {**TINY_MODEL, "descriptor": {"name": "count", "power": 3}}
    configuration = two_stage_configuration(tmp_path, epochs=1, model=model)
    path = train(configuration, tmp_path / "run", quiet=True)
    assert load_configuration(tmp_path / "run" / "configuration.yaml").model.descriptor.power == 3
    loaded = load_potential(path)
    assert "rotation_error" not in loaded.description
    assert loaded.settings.descriptor.model_dump() == {"name": "count", "power": 3}
    assert type(loaded.model.descriptor).__module__ == "counting"


def test_missing_plug_in_is_named_with_its_package(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder)
    with monkeypatch.context() as here:
        here.syspath_prepend(folder)
        save_potential(tmp_path / "p", potential(settings(descriptor={"name": "count"})))
    message = (
        r"p needs the descriptor 'count', .* not installed here; it was written with counting-descriptor 1\.5: install"
    )
    with pytest.raises(PotentialFileError, match=message):
        load_potential(tmp_path / "p")


@pytest.mark.parametrize("name", ["antigravity", "antigravity:fly", "../p"])
def test_a_file_cannot_have_a_module_imported(tmp_path, name):
    save_potential(tmp_path / "p", potential(settings()))
    rewrite(tmp_path / "p", lambda header: header["model"].update(descriptor={"name": name}))
    with pytest.raises(PotentialFileError, match="which is not part of lrc-ase and not installed here: install"):
        load_potential(tmp_path / "p")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("value", "module", "message"),
    [
        ("counting:Absent", MODULE, r"the descriptor 'count' of counting-descriptor 1\.5 cannot be imported: .*Absent"),
        ("counting:Count", "import nowhere_to_be_found", "cannot be imported: No module named"),
        ("counting:torch", MODULE, r"subclass of `lrc_ase\.models\.descriptors\.Descriptor` with a `settings_class`"),
    ],
)
def test_broken_plug_in_is_named_and_harms_nobody_else(tmp_path, monkeypatch, value, module, message):
    install(tmp_path, value=value, module=module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        settings(descriptor={"name": "count"})
    with pytest.raises(ConfigurationError, match=r"did you mean 'model\.descriptor\.n_radial'"):
        parse_configuration(changed(["model", "descriptor"], {"n_radials": 3}))


def test_registered_descriptor_is_known_by_its_name():
    kind = register(own_class())
    assert register(kind) is kind
    chosen = settings(descriptor={"name": "own", "width": 5}).descriptor
    assert chosen == kind.settings_class(width=5)
    assert type(build_descriptor(chosen, n_elements=1, cutoff=3.0, average_neighbors=5.0)) is kind
    assert registry.origin("own").endswith("own_class.<locals>.Own")
    assert registry.origin("sphere") is None
    with pytest.raises(TypeError, match="Own does not define its features"):
        build_descriptor(chosen, n_elements=1, cutoff=3.0, average_neighbors=5.0)(*4 * [torch.zeros(1)])


def test_what_cannot_be_registered():
    with pytest.raises(
        ValueError, match=r"must be a subclass of `lrc_ase\.models\.descriptors\.Descriptor`, got <class 'int'>"
    ):
        register(int)
    with pytest.raises(
        ValueError, match=r"`Bare\.settings_class` must be a subclass of .*DescriptorSettings`, got None"
    ):
        register(type("Bare", (Descriptor,), {}))
    open_name = type("Open", (Descriptor,), {"settings_class": DescriptorSettings})
    with pytest.raises(ValueError, match="`DescriptorSettings` must fix its name, as in"):
        register(open_name)
    with pytest.raises(ValueError, match="the descriptor name 'ponita' is built in: choose another"):
        register(PonitaDescriptor)
    register(own_class())
    with pytest.raises(ValueError, match=r"the descriptor name 'own' is taken by .*Own: choose another name"):
        register(own_class())


def test_settings_of_an_unregistered_class_cannot_be_built():
    unknown_settings = own_class().settings_class()
    with pytest.raises(ValueError, match="no descriptor is called 'own'"):
        build_descriptor(unknown_settings, n_elements=1, cutoff=3.0, average_neighbors=5.0)


@pytest.mark.parametrize(
    ("descriptor", "expected"),
    [
        ({}, SphereSettings()),
        ({"n_channels": 8}, SphereSettings(n_channels=8)),
        ({"name": "ponita", "n_orientations": 12}, PonitaSettings(n_orientations=12)),
        ({"name": "paper", "envelope": False}, PaperSettings(envelope=False)),
    ],
)
def test_configuration_chooses_by_name(descriptor, expected, tmp_path):
    configuration = parse_configuration(changed(["model", "descriptor"], descriptor))
    assert configuration.model.descriptor == expected
    write_configuration(tmp_path / "c.yaml", configuration)
    assert load_configuration(tmp_path / "c.yaml").model == configuration.model


@pytest.mark.parametrize(
    ("descriptor", "message"),
    [
        (
            {"name": "spere"},
            r"model\.descriptor: no descriptor is called 'spere'; did you mean 'sphere'. One from outside",
        ),
        ({"name": "xyzzy"}, r"known are \['sphere', 'ponita', 'paper'\]"),
        ({"name": 3}, r"`name` of a descriptor must be one of \['sphere', 'ponita', 'paper'\], got 3"),
        ("ponita", r"model\.descriptor: Input should be a block of keys and values"),
        ({"name": "ponita", "n_orientation": 8}, r"did you mean 'model\.descriptor\.n_orientations'\?"),
        ({"name": "paper", "n_radial": 8}, r"unknown key 'model\.descriptor\.n_radial'"),
        (
            {"name": "ponita", "n_layers": 0},
            r"model\.descriptor\.n_layers: Input should be greater than or equal to 1, got 0",
        ),
    ],
)
def test_mistakes_in_the_descriptor_are_one_line(descriptor, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_configuration(changed(["model", "descriptor"], descriptor))
    assert "\n" not in str(caught.value)


def test_keys_of_all_descriptors_are_suggested():
    with pytest.raises(ConfigurationError, match=r"did you mean 'model\.descriptor\.n_orientations'\?"):
        parse_configuration(changed(["n_orientations"], 8))


def test_one_file_of_a_list_may_stand_alone_where_a_key_is_unknown():
    with pytest.raises(ConfigurationError, match=r"did you mean 'data\.frames\.train\[0\]\.weight'\?"):
        parse_configuration(changed(["data", "frames", "train"], {"path": "a.traj", "wieght": 2}))


def test_settings_derived_from_data_reach_the_resolved_configuration(tmp_path):
    write_frames(tmp_path)
    configuration = two_stage_configuration(tmp_path, epochs=1, model={**TINY_MODEL, "descriptor": {"name": "paper"}})
    loaded = load_potential(train(configuration, tmp_path / "run", quiet=True))
    stored = load_configuration(tmp_path / "run" / "configuration.yaml").model.descriptor
    assert stored == loaded.settings.descriptor
    assert loaded.description["rotation_error"]["relative_forces"] > 1e-3
    assert 0.25 < stored.inverse_mean < 0.5
    assert 2 < stored.distance_mean < 4


def test_a_model_of_each_descriptor_predicts_something_else():
    graph = neighbor_graph(rattled_crystal(), ELEMENTS, 4.5)
    energies = {
        name: float(evaluate(potential(settings(descriptor={"name": name}, long_range=False)).model, graph).energy)
        for name in ("sphere", "ponita", "paper")
    }
    assert len({round(energy, 6) for energy in energies.values()}) == 3
