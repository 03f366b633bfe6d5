"""Options of `train` and ``lrc-ase train``: each reaches the configuration; any key can be set."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from lrc_ase.dataset import LabelKeys
from lrc_ase.training.assignments import changed_configuration, parse_assignment
from lrc_ase.training.configuration import ConfigurationError, load_configuration, parse_configuration
from lrc_ase.training.configuration_keys import template
from lrc_ase.training.data_arguments import as_configuration, default_configuration
from lrc_ase.training.options import TrainOptions, label_changes, option_keys

DOCS = Path(__file__).resolve().parents[1] / "docs"
TWO_STAGES = {
    "data": {"a": {"train": "/x/a.traj"}, "b": {"train": "/x/b.traj"}},
    "stages": [{"name": "one", "data": "a", "epochs": 3}, {"name": "two", "data": "b"}],
}


def value_at(configuration, key):
    """Value of a dotted key with indices."""
    value = configuration.model_dump(mode="json")
    for part in key.split("."):
        value = value[int(part) if part.isdecimal() else part]
    return value


OPTIONS = [
    ("model", "accurate", "model.descriptor.n_blocks", 2),
    ("cutoff", 4.5, "model.cutoff", 4.5),
    ("epochs", 7, "stages.1.epochs", 7),
    ("batch_size", 9, "stages.0.batch_size", 9),
    ("patience", 5, "stages.0.patience", 5),
    ("time_limit", 1.5, "stages.1.time_limit", 1.5),
    ("ensemble", 3, "ensemble", 3),
    ("start", "/x/p.safetensors", "start", "/x/p.safetensors"),
    ("start", "nacl", "start", "nacl"),
    ("watch", "/x/w.traj", "watch", ["/x/w.traj"]),
    ("cache", "/x/cache", "cache", "/x/cache"),
    ("seed", 5, "seed", 5),
    ("device", "cuda", "device", "cuda"),
    ("dtype", "float64", "dtype", "float64"),
    ("n_threads", 2, "n_threads", 2),
    ("skip_unlabelled", True, "skip_unlabelled", True),
]
"""Option, value, dotted key of the configuration and its value."""


@pytest.mark.parametrize(("option", "value", "key", "expected"), OPTIONS)
def test_each_option_reaches_its_key(option, value, key, expected):
    without = parse_configuration(TWO_STAGES)
    changed = changed_configuration(without, option_keys({option: value}))
    assert value_at(changed, key) == expected
    assert value_at(without, key) != expected


def test_every_option_has_a_case():
    assert {option for option, *_ in OPTIONS} == set(TrainOptions.__annotations__)


def test_label_keys_hold_for_all_data_sets():
    changes = label_changes(LabelKeys(energy="E", virial="v"))
    configuration = changed_configuration(parse_configuration(TWO_STAGES), changes)
    assert [value_at(configuration, f"data.{name}.keys.energy") for name in "ab"] == ["E", "E"]
    assert value_at(configuration, "data.a.keys.virial") == "v"
    assert label_changes(None) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [("epoch", r"unexpected keyword argument 'epoch'; did you mean 'epochs'\?"), ("zzz", "`settings` takes any key")],
)
def test_an_unknown_keyword_suggests_the_right_one(name, message):
    with pytest.raises(TypeError, match=message):
        option_keys({name: 3})


@pytest.mark.parametrize(
    ("assignment", "key", "expected"),
    [
        ("model.descriptor.n_channels=8", "model.descriptor.n_channels", 8),
        ("model.descriptor.name=ponita", "model.descriptor.n_orientations", 20),
        ("model.long_range.accuracy=1e-5", "model.long_range.accuracy", 1e-5),
        ("model.hidden=[8, 8]", "model.hidden", [8, 8]),
        ("stages[0].loss.energy=3", "stages.0.loss.energy", 3.0),
        ("stages.two.loss.stress=0", "stages.1.loss.stress", 0.0),
        ("stages[...].optimizer=adamw", "stages.1.optimizer", "adamw"),
        ("stages.gradient_clip=null", "stages.0.gradient_clip", None),
        ("data.a.validation_fraction=0.3", "data.a.validation_fraction", 0.3),
        ("data.*.validation_fraction=0.3", "data.b.validation_fraction", 0.3),
        ("tensorboard=true", "tensorboard", True),
        ("references={Na: -1.5, Cl: 2}", "references", {"Na": -1.5, "Cl": 2.0}),
    ],
)
def test_any_key_can_be_set(assignment, key, expected):
    configuration = parse_configuration(TWO_STAGES)
    changed = changed_configuration(configuration, dict([parse_assignment(assignment)]))
    assert value_at(changed, key) == expected
    assert changed.stages[1].name == "two"


def test_a_key_of_one_stage_leaves_the_others_alone():
    changed = changed_configuration(parse_configuration(TWO_STAGES), {"stages.two.epochs": 9})
    assert [stage.epochs for stage in changed.stages] == [3, 9]


def test_mappings_of_the_caller_do_not_change():
    model = {"descriptor": {"n_channels": 8}}
    changes = {"model": model, "model.descriptor.n_channels": 4}
    changed = changed_configuration(parse_configuration(TWO_STAGES), changes)
    assert changed.model.descriptor.n_channels == 4
    assert model == {"descriptor": {"n_channels": 8}}


def test_paths_start_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changed = changed_configuration(
        parse_configuration(TWO_STAGES), {"data.a.train": "new.traj", "watch": ["old.traj"], "cache": "cache"}
    )
    assert changed.data["a"].train[0].path == str(tmp_path / "new.traj")
    assert changed.watch == (str(tmp_path / "old.traj"),)
    assert changed.cache == str(tmp_path / "cache")
    files = [{"path": "new.traj", "weight": 2.0}, Path("more.traj")]
    for changes in ({"data.a.train": files}, {"data.a": files}, {"data": {"a": files, "b": "b.traj"}}):
        train = changed_configuration(parse_configuration(TWO_STAGES), changes).data["a"].train
        assert [file.path for file in train] == [str(tmp_path / "new.traj"), str(tmp_path / "more.traj")]
    changed = changed_configuration(changed, {"cache": None, "watch": None, "start": Path("nacl")})
    assert (changed.cache, changed.watch, changed.start) == (None, (), "nacl")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.cutof=4", r"unknown key 'model\.cutof'; did you mean 'model\.cutoff'"),
        ("epochs=4", r"unknown key 'epochs'; did you mean 'stages\[\.\.\.\]\.epochs'"),
        ("stages.loss.enery=1", r"did you mean 'stages\[0\]\.loss\.energy'"),
        ("stages[2].epochs=1", "there are only 2 entries, counted from 0"),
        ("stages.one=1", "names a whole entry of a list"),
        ("data.*=f.traj", r"'data\.\*' names whole entries: name a key in them"),
        ("seed.x=1", r"seed: Input should be a valid integer|nothing below a plain value"),
        ("model..cutoff=1", "is no key: expected names with dots"),
        ("model.cutoff", "--set needs KEY=VALUE"),
        ("=3", "--set needs KEY=VALUE"),
        ("model.hidden=[", r"--set model\.hidden: the value is no valid YAML"),
        ("model.cutoff=-1", r"model\.cutoff: Input should be greater than"),
    ],
)
def test_wrong_assignments_are_one_line(assignment, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        changed_configuration(parse_configuration(TWO_STAGES), dict([parse_assignment(assignment)]))
    assert "\n" not in str(caught.value)


def test_one_path_is_a_list_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_configuration("frames.traj") == default_configuration(["frames.traj"])
    assert default_configuration(Path("frames.traj"), validation="v.traj").data["frames"].validation == (
        str(tmp_path / "v.traj"),
    )


def test_a_yaml_file_stands_alone(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: f.traj\n")
    assert as_configuration(path) == load_configuration(path)
    for options in ({"validation": "v.traj"}, {"short_range": True}):
        with pytest.raises(ConfigurationError, match="a configuration stands alone"):
            as_configuration(path, **options)
    with pytest.raises(ConfigurationError, match="a configuration stands alone"):
        as_configuration([path, "f.traj"])


def test_the_template_holds_every_key_at_its_default(tmp_path):
    path = tmp_path / "template.yaml"
    path.write_text(template())
    assert load_configuration(path) == default_configuration([tmp_path / "frames.extxyz"])
    for key in (
        "cutoff",
        "validation_fraction",
        "virial",
        "n_radial",
        "huber_delta",
        "checkpoint_every",
        "weight_decay",
    ):
        assert f" {key}: " in template() or f"\n{key}: " in template()
    assert max(len(line) for line in template().splitlines()) <= 100


@pytest.fixture
def tables(monkeypatch):
    """The module of the documentation that writes tables."""
    monkeypatch.syspath_prepend(DOCS / "extensions")
    return importlib.import_module("generated_tables")


def test_the_table_of_options_is_that_of_the_list(tables):
    page = (DOCS / "how-to" / "training.md").read_text()
    assert tables.option_table() in page, "run `python docs/configuration_keys.py`"
    assert "| `--threads N` | `n_threads` | `n_threads` |" in page


def test_the_page_of_keys_is_that_of_the_docstrings(tables):
    page = (DOCS / "reference" / "configuration.md").read_text()
    assert tables.key_tables() in page, "run `python docs/configuration_keys.py`"
    assert "| `cutoff` | Range of the short-range part, Angstrom. | Angstrom | `5.0` |" in page
    assert tables._unit("Name of the forces, eV/Angstrom, in the results.") == "eV/Angstrom"
