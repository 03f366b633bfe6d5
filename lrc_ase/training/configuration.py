"""Configuration of a training run: data sets, model, stages, and the YAML file that holds them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from lrc_ase.dataset import LabelKeys
from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.pretrained import absolute_potential
from lrc_ase.models.elements import check_elements
from lrc_ase.models.settings import Baselines, LongRangeSettings, ModelSettings, Settings, ZBLSettings
from lrc_ase.training.configuration_errors import ConfigurationError, describe_errors
from lrc_ase.training.data_configuration import DataSetConfiguration, DataSets, OneOrMany, TrainFile
from lrc_ase.training.loss_configuration import LossConfiguration
from lrc_ase.training.presets import with_preset
from lrc_ase.training.references import ReferenceSetting
from lrc_ase.training.yaml_reading import read_yaml

__all__ = [
    "ConfigurationError",
    "DataSetConfiguration",
    "LossConfiguration",
    "ModelConfiguration",
    "StageConfiguration",
    "TrainFile",
    "TrainingConfiguration",
    "load_configuration",
    "parse_configuration",
    "write_configuration",
]


def _stages(value: Any) -> Any:
    """Give stages without a name that of their model or of the part that they train, numbered if it repeats."""
    stages = [value] if isinstance(value, Mapping) else value
    if not isinstance(stages, (list, tuple)):
        return value
    named, taken = [], {str(stage.get("name")) for stage in stages if isinstance(stage, Mapping)}
    for stage in stages:
        if isinstance(stage, Mapping) and stage.get("name") is None:
            kind = "short-range-part" if stage.get("train") == "short-range-part" else stage.get("model")
            kind = kind if isinstance(kind, str) else "full-range"  # other types are errors further on
            names = (kind if number == 1 else f"{kind}-{number}" for number in count(1))
            stage = {**stage, "name": next(name for name in names if name not in taken)}
            taken.add(stage["name"])
        named.append(stage)
    return named


class ModelConfiguration(ModelSettings):
    """Settings of the model, or the name of a preset. Values that are null are derived from the training frames."""

    preset: str | None = Field(None, exclude=True)
    """fast (one block) or accurate (two blocks). The other keys change or complete the values of the preset. A resolved
    configuration holds values instead of this name."""
    elements: Annotated[tuple[str, ...] | None, AfterValidator(check_elements)] = None  # type: ignore[assignment]
    """Chemical symbols that the model knows. Null: those of the training frames."""
    long_range: LongRangeSettings | None = LongRangeSettings()
    """Long-range part of stages that train a full-range model."""
    baseline: Baselines = (ZBLSettings(),)
    """Parts of the energy that are known and not learned: `zbl` is the repulsion of atomic cores that are closer
    than any in the training frames. Every evaluation adds them, so that training learns the rest of the labels.
    `[]`: none."""
    average_neighbors: float | None = Field(None, gt=0, le=1e9)  # type: ignore[assignment]
    """Mean number of neighbors within the cutoff. Null: that of the training frames."""
    energy_scale: float | None = Field(None, gt=0, le=1e9)  # type: ignore[assignment]
    """Multiplies the read-out, eV. Null: root mean square of the training forces times 1 Angstrom."""

    @model_validator(mode="before")
    @classmethod
    def _replace_preset(cls, content: Any) -> Any:
        """Replace the name of a preset by its values."""
        if isinstance(content, str):
            content = {"preset": content}
        if not isinstance(content, Mapping) or "preset" not in content:
            return content
        return with_preset(content)


class StageConfiguration(Settings):
    """One stage: a model trained on some of the data sets. Each stage starts from the best model of the one before."""

    name: str = Field("stage", pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the stage in the log and of its potential file. In a configuration the default is the kind of model, such
    as full-range, or short-range-part where only that part is trained."""
    data: OneOrMany = ()
    """Names of data sets. Empty: all."""
    model: Literal["short-range", "full-range"] = "full-range"
    """Model with or without the long-range part."""
    train: Literal["all", "short-range-part"] = "all"
    """Parameters that are trained. short-range-part: the long-range part of a full-range model does not change."""
    epochs: int | None = Field(None, ge=1)
    """Passes over the training frames. Null: as many as make 24,000 steps of the optimizer for batches of up to 256
    atoms, fewer for larger ones, down to 12,000 from 512 atoms on, and 12,000 with `start`; 20 to 4000 epochs."""
    batch_size: int | None = Field(None, ge=1)
    """Frames per step. Null: as many as make about 256 atoms, 4 to 32, but no more than an eighth of the frames."""
    accumulate: int = Field(1, ge=1)
    """Parts into which a batch is cut, evaluated one after the other: less memory, the same step."""
    optimizer: Literal["soap", "adamw"] = "soap"
    """SOAP (Adam in the eigenbasis of Shampoo's preconditioner, arXiv:2409.11321), or AdamW."""
    learning_rate: float = Field(4e-3, gt=0)
    """Largest step size of the optimizer. In a training that starts from a potential (`start`) the default is 0.001:
    larger steps forget more of what the weights hold."""
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    """Decrease of the step size after the warm-up."""
    final_learning_rate: float = Field(0.01, gt=0, le=1)
    """Step size at the end of the schedule as a fraction of `learning_rate`."""
    warmup: float = Field(0.02, ge=0, lt=1)
    """Part of the stage's steps in which the step size rises from zero, 50 of them at least under a time limit."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of the optimizer."""
    loss: LossConfiguration = LossConfiguration()
    """Weights of energies, forces and stress."""
    ema_decay: float = Field(0.99, ge=0, lt=1)
    """Decay per step of the running mean of the weights, which is validated and saved; 0 switches it off."""
    gradient_clip: float | None = Field(10.0, gt=0)
    """Largest norm of the loss gradient; longer ones are shortened. Null: no limit."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    patience: int | None = Field(None, ge=1)
    """Validations without a lower validation loss after which the stage ends. Null: those of three tenths of the epochs
    if `epochs` is null and there are ten validation frames, otherwise all epochs."""
    time_limit: float | None = Field(None, gt=0)
    """Minutes after which the stage ends, at the end of an epoch, with `schedule` complete: the step size then follows
    the time, where that is further than the epochs. Compiling kernels does not count. Null: no limit."""

    @property
    def frames_per_step(self) -> int:
        """Return the batch size of a stage whose configuration is resolved."""
        assert self.batch_size is not None  # filled in by `prepare`
        return self.batch_size


class TrainingConfiguration(Settings):
    """A training run."""

    data: DataSets = Field(min_length=1)
    """Data sets by name. Files in place of the names form one set, called frames."""
    model: ModelConfiguration = ModelConfiguration()
    """The model."""
    references: ReferenceSetting = "fit"
    """Energy of each element. fit: least squares. isolated-atoms: those of one-atom frames. Otherwise energies in eV by
    element, such as `{Na: -1.5, Cl: -2.5}`."""
    stages: Annotated[tuple[StageConfiguration, ...], BeforeValidator(_stages)] = Field(min_length=1)
    """Stages in their order. Default: one, full-range unless `model.long_range` is null."""
    start: str | None = None
    """Potential (file, run folder or shipped name) whose weights training starts from. Model settings and known
    elements are those of the potential, and unknown elements are added."""
    keep_dipoles: bool = False
    """Take the dipoles that the potential in `start` predicts as labels of molecules that have none, so that charges
    which it learned from dipoles are kept. Needs a weight `loss.dipole`."""
    watch: OneOrMany = ()
    """Files whose errors are logged but not trained on, above all frames that the potential `start` describes
    well."""
    test: OneOrMany = ()
    """Files whose errors are reported at the end of the training, one line each. They influence nothing."""
    watch_keys: LabelKeys | None = None
    """Names of the labels of watched frames and of `test`. Null: as in the data sets."""
    skip_unlabelled: bool = False
    """Leave out frames without any label, and count them in the log; they are an error otherwise."""
    ensemble: int = Field(1, ge=1, le=64)
    """Members trained side by side on the same batches, from different initial weights. The mean of the members is the
    prediction, their spread its uncertainty."""
    leave_out: float = Field(0.25, ge=0, le=0.5)
    """Part of the training frames that a member of an ensemble never sees, different for each."""
    cache: str | None = None
    """Folder in which frames and neighbors are kept on disk and memory-mapped, for sets that exceed the memory. It
    is created if absent, and shared by all runs that use the same files. Null: everything in memory."""
    n_workers: int | None = Field(None, ge=1)
    """Processes that fill the cache. Null: one for each core."""
    remarks: tuple[str, ...] = ()
    """Notes about values that were derived from the frames. `lrc-ase train` writes them into the resolved
    configuration, and from there into potential files and reports."""
    seed: int = Field(0, ge=0)
    """Seed of initial weights, split and shuffling."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of the training."""
    device: str = "cpu"
    """Device of torch: cpu, cuda, cuda:1, ..."""
    n_threads: int | None = Field(None, ge=1)
    """Threads of torch on the CPU. Null: torch's own choice."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard, into the run folder."""
    checkpoint_every: float = Field(5.0, gt=0)
    """Minutes between checkpoints within an epoch. The end of an epoch also writes one, unless the last is seconds
    old."""

    @model_validator(mode="before")
    @classmethod
    def _one_stage(cls, content: Any) -> Any:
        """Add one stage to a configuration without stages."""
        if not isinstance(content, Mapping) or content.get("stages") is not None:
            return content
        model = content.get("model")
        is_short = isinstance(model, Mapping) and "long_range" in model and model["long_range"] is None
        return {**content, "stages": [{"model": "short-range" if is_short else "full-range"}]}

    @model_validator(mode="after")
    def _check_stages(self) -> TrainingConfiguration:
        """Raise ValueError for stages that contradict each other, the data sets or the model."""
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages must have different names, got {names}")
        for stage, following in zip(self.stages, self.stages[1:], strict=False):
            if stage.model == "full-range" and following.model == "short-range":
                raise ValueError(f"stage '{following.name}' cannot be short-range after full-range '{stage.name}'")
        for stage in self.stages:
            if unknown := [name for name in stage.data if name not in self.data]:
                raise ValueError(f"stage '{stage.name}' uses data sets {unknown}; known are {list(self.data)}")
            if stage.model == "full-range" and self.model.long_range is None:
                raise ValueError(f"stage '{stage.name}' is full-range but `model.long_range` is null")
            if stage.patience is not None and not any(
                self.data[name].validation or self.data[name].validation_fraction for name in self.sets_of(stage)
            ):
                raise ValueError(f"stage '{stage.name}' has `patience` but no validation frames")
            loss, long_range = stage.loss, self.model.long_range
            if loss.weighs_charges and (
                stage.model == "short-range" or (long_range is not None and not long_range.electrostatics)
            ):
                raise ValueError(
                    f"stage '{stage.name}' trains on dipoles or Born effective charges, which need latent charges: "
                    "make it full-range with `long_range: {electrostatics: true}`, or set their weights to 0"
                )
            if loss.energy + loss.forces + (loss.stress or 0) + loss.dipole + loss.born_effective_charges == 0:
                raise ValueError(f"stage '{stage.name}' has no loss: all weights are 0")
        return self

    @model_validator(mode="after")
    def _check_kept_dipoles(self) -> TrainingConfiguration:
        if self.keep_dipoles and (self.start is None or self.cache is not None):
            raise ValueError("`keep_dipoles` needs a potential in `start`, and no `cache`, which holds labels of files")
        if self.keep_dipoles and not any(stage.loss.dipole for stage in self.stages):
            raise ValueError(
                "`keep_dipoles` does nothing without a weight of dipoles: set `stages.loss.dipole`, say 0.1"
            )
        return self

    def sets_of(self, stage: StageConfiguration) -> tuple[str, ...]:
        """Return the names of the data sets that `stage` trains on."""
        return stage.data or tuple(self.data)


def load_configuration(path: str | os.PathLike[str]) -> TrainingConfiguration:
    """Read a YAML file; relative paths of data files start from its folder.

    Raises
    ------
    ConfigurationError
        The file is missing or no YAML, a key is unknown or stands there twice, or a value is not valid.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error}") from error
    try:
        content = read_yaml(text)
    except ValueError as error:
        raise ConfigurationError(f"{path} {error}" if str(error).startswith("is ") else f"{path}: {error}") from error
    return parse_configuration(content, folder=Path(path).resolve().parent, source=str(path))


def parse_configuration(
    content: Any, *, folder: str | os.PathLike[str] | None = None, source: str = "configuration"
) -> TrainingConfiguration:
    """Validate the content of a configuration file; relative paths of data files start from `folder`, if given."""
    if not isinstance(content, Mapping):
        raise ConfigurationError(f"{source}: expected keys such as 'data' and 'stages', got {type(content).__name__}")
    try:
        configuration = TrainingConfiguration.model_validate(content)
    except ValidationError as error:
        # not chained: pydantic would show the whole input, of whatever size
        raise ConfigurationError(describe_errors(error, TrainingConfiguration, source, content)) from None
    if folder is None:
        return configuration

    def absolute(paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(os.path.abspath(os.path.join(folder, path)) for path in paths)

    def anchored(data_set: DataSetConfiguration) -> DataSetConfiguration:
        paths = absolute(file.path for file in data_set.train)
        files = [file.model_copy(update={"path": path}) for file, path in zip(data_set.train, paths, strict=True)]
        return data_set.model_copy(update={"train": files, "validation": absolute(data_set.validation)})

    return configuration.model_copy(
        update={
            "data": {name: anchored(data_set) for name, data_set in configuration.data.items()},
            "start": configuration.start and absolute_potential(configuration.start, folder),
            "watch": absolute(configuration.watch),
            "test": absolute(configuration.test),
            "cache": None if configuration.cache is None else absolute([configuration.cache])[0],
        }
    )


def write_configuration(path: str | os.PathLike[str], configuration: TrainingConfiguration) -> None:
    """Write a YAML file that `load_configuration` reads to the same configuration."""
    content = yaml.safe_dump(configuration.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(path, f"# Resolved configuration; `lrc-ase train` takes this file.\n{content}".encode())
