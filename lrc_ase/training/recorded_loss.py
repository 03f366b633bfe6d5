"""Losses of batches on an NVIDIA GPU, by a CUDA graph that is recorded once and replayed for every batch.

A step of training launches some two thousand small kernels, which a GPU finishes sooner than Python can launch them:
eight frames of 96 atoms take 59 ms, of which the GPU works 12. A CUDA graph launches all at once. It repeats the same
kernels at the same addresses, so that all batches must have one size (`filled_batches`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from lrc_ase.dataset import LabelledGraph
from lrc_ase.layer.recording import record
from lrc_ase.layer.tables import UnkeptTables
from lrc_ase.models.derivatives import evaluate, loss_gradients
from lrc_ase.models.inference.recorded_step import with_spare_columns
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.structures.graph import Graph
from lrc_ase.training.configuration import LossConfiguration
from lrc_ase.training.filled_batches import BatchSize
from lrc_ase.training.losses import ErrorSums, loss_of, sums_on_device

__all__ = ["RecordedLoss"]


class RecordedLoss:
    """Loss and errors of batches, and the gradient of the loss by the parameters of a model.

    They are those of `lrc_ase.training.steps`, to rounding and the mesh.

    Parameters
    ----------
    model
        On a CUDA device. Its parameters may change in place.
    size
        Of `common_size`; it grows where a batch does not fit.
    gradient
        Compute gradients too.
    """

    def __init__(
        self,
        model: ShortRangeModel,
        configuration: LossConfiguration,
        force_scale: float,
        size: BatchSize,
        *,
        gradient: bool = True,
    ) -> None:
        self._model = model
        self._configuration = configuration
        self._force_scale = force_scale
        self._size = size
        self._parameters = [each for each in model.parameters() if each.requires_grad] if gradient else []
        self._gradients: list[Tensor | None] = []
        self._batch: LabelledGraph | None = None
        self._replay: Callable[[], None]

    def __call__(self, graphs: Sequence[LabelledGraph]) -> Callable[[], ErrorSums]:
        """Set the gradients of the parameters; return a function for the errors.

        It waits for the device, and must be called before the next batch.
        """
        batch = self._size.filled(graphs)
        if batch is None:
            self._size, self._batch = self._size.grown(graphs), None  # the memory of the last recording first
            batch = self._size.filled(graphs)
            assert batch is not None
        if self._batch is None or batch.graph.neighbors.shape[1] > self._batch.graph.neighbors.shape[1]:
            self._batch = None
            self._batch = _with_tensors_of_its_own(batch)
            self._replay = record(self._evaluate, batch.energy.device)
        _copy(batch, self._batch)
        self._replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        n_structures = len(graphs)

        def errors() -> ErrorSums:
            sums = ErrorSums()
            sums.add_sums(self._sums, n_structures, n_structures)
            return sums

        return errors

    def _evaluate(self) -> None:
        batch, configuration = self._batch, self._configuration
        assert batch is not None
        wanted: dict[str, Any] = {"forces": bool(configuration.forces), "stress": bool(configuration.stress)}
        results = evaluate(self._model, batch.graph, **wanted, training=bool(self._parameters))
        loss = loss_of(results, batch, configuration, self._force_scale)
        if self._parameters:
            self._gradients = loss_gradients(loss, self._parameters)
        self._sums = sums_on_device(results, batch, loss)


def _with_tensors_of_its_own(batch: LabelledGraph) -> LabelledGraph:
    """Copy a batch, with some columns of padding more, for a recording that reads it by address."""
    labels = {name: value.clone() for name, value in _tensors(batch).items()}
    return replace(batch, **labels, graph=replace(with_spare_columns(batch.graph), tables=UnkeptTables()))


def _copy(source: LabelledGraph, target: LabelledGraph) -> None:
    """Copy labels and graph of a batch to the addresses of another one, whose rows of neighbors may be longer."""
    width = source.graph.neighbors.shape[1]
    for name, tensor in _tensors(target.graph).items():
        into = tensor[:, :width] if name in ("neighbors", "shifts", "neighbor_mask") else tensor
        into.copy_(getattr(source.graph, name))
    target.graph.neighbor_mask[:, width:] = False
    for name, tensor in _tensors(target).items():
        tensor.copy_(getattr(source, name))


def _tensors(batch: LabelledGraph | Graph) -> dict[str, Any]:
    """Return the tensors among the fields."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
