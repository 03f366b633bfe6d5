"""Relative tolerances of comparisons that differ by rounding alone, by floating-point type."""

import torch

ROUNDING = {torch.float64: 1e-11, torch.float32: 2e-4}
