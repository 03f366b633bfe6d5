"""The step without autograd: energy, forces and stress of one structure from derivatives that are written out.

`evaluator` chooses between this step and `lrc_ase.models.derivatives`. `step` is the step itself, in one straight
line: descriptor, latent weights, field, read-out, and the same backwards. Each part has a file, with its value and its
`pull`: the gradient by its inputs, given that by its outputs. `plan` holds what stays while neighbors do. Arrays are
NumPy's, which compiled kernels read and write: a call of torch costs as much as a kernel for a small molecule.
"""

from __future__ import annotations

from lrc_ase.models.inference.evaluator import Evaluator

__all__ = ["Evaluator"]
