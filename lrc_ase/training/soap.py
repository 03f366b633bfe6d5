"""SOAP optimizer with a fixed memory layout of its state, so that training resumes bit-equal from a file."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_optimizer import SOAP
from torch import Tensor

__all__ = ["RowMajorSOAP"]


class RowMajorSOAP(SOAP):
    """Adam in the eigenbasis of Shampoo's preconditioner, after Vyas et al. (2024), arXiv:2409.11321."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.contiguous()
        return super().step(closure)

    @staticmethod
    def get_orthogonal_matrix(mat: Any) -> list[Any]:
        return _row_major(SOAP.get_orthogonal_matrix(mat))

    def get_orthogonal_matrix_qr(self, *arguments: Any, **options: Any) -> list[Any]:
        return _row_major(super().get_orthogonal_matrix_qr(*arguments, **options))


def _row_major(matrices: list[Any]) -> list[Any]:
    # an empty list stands for an axis that is left as it is
    return [matrix.contiguous() if isinstance(matrix, Tensor) else matrix for matrix in matrices]
