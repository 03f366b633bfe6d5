"""The optimizer of a stage, and its state as tensors that a checkpoint can carry."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn, optim

from lrc_ase.files.bounded_json import json_object
from lrc_ase.training.configuration import StageConfiguration

__all__ = ["build_optimizer", "optimizer_tensors", "restore_optimizer"]

_STRUCTURE = "structure"
_TENSOR = "tensor"


def build_optimizer(stage: StageConfiguration, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Return the optimizer that `stage` names, for `parameters`."""
    parameters = list(parameters)
    if stage.optimizer == "adamw":
        return optim.AdamW(parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay, foreach=True)
    from lrc_ase.training.soap import RowMajorSOAP  # its library takes half a second to import

    return RowMajorSOAP(parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay)


def optimizer_tensors(optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of the optimizer as tensors: those of the state, not copied, and its structure as JSON bytes."""
    tensors: dict[str, Tensor] = {}

    def without_tensors(value: Any, name: str) -> Any:
        """Replace each tensor in a nested state by its name, and collect the tensors."""
        if isinstance(value, Tensor):
            tensors[name] = value
            return {_TENSOR: name}
        if isinstance(value, Mapping):
            return {key: without_tensors(item, f"{name}.{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [without_tensors(item, f"{name}.{index}") for index, item in enumerate(value)]
        return value

    structure = json.dumps(without_tensors(optimizer.state_dict(), "state"))
    return {**tensors, _STRUCTURE: torch.frombuffer(bytearray(structure.encode()), dtype=torch.uint8)}


def restore_optimizer(optimizer: optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Set the state that `optimizer_tensors` returned, of an optimizer of the same kind and parameters."""

    device = optimizer.param_groups[0]["params"][0].device

    def with_tensors(value: Any) -> Any:
        """Replace each name in a nested state by a copy of its tensor on the device of the parameters."""
        if isinstance(value, list):
            return [with_tensors(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {_TENSOR}:
            tensor = tensors[value[_TENSOR]]
            # numbers of steps stay on the CPU, where torch's optimizers count
            return tensor.to(device, copy=True) if tensor.ndim else tensor.clone()
        return {key: with_tensors(item) for key, item in value.items()}

    content = with_tensors(json_object(bytes(tensors[_STRUCTURE].tolist()).decode("utf-8")))
    # JSON turns the numbers of parameters into text
    content["state"] = {int(number): entries for number, entries in content["state"].items()}
    optimizer.load_state_dict(content)
