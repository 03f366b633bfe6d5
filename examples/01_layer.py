"""The layer alone: one kernel, three ways to the same field, and its gradients.

Run: python examples/01_layer.py
"""

import torch

from lrc_ase import LongRangeConvolution, Yukawa

generator = torch.Generator().manual_seed(0)
cell = torch.tensor([[[12.0, 0, 0], [4, 10, 0], [-3, 2, 9]]], dtype=torch.float64)  # rows are the cell vectors
fractional = torch.rand(100, 3, dtype=torch.float64, generator=generator, requires_grad=True)
weights = torch.randn(100, 2, dtype=torch.float64, generator=generator)  # two channels

kernel = Yukawa(screening=[0.2, 0.8], smearing=1.0)  # trainable: one lambda and one beta per channel
mesh = LongRangeConvolution(kernel, smearing=1.0, accuracy=1e-5)
ewald = LongRangeConvolution(kernel, mesh_shape=(40, 36, 32), method="ewald")  # every wave, no mesh

field = mesh(weights, fractional, cell)
exact = ewald(weights, fractional, cell)
print(f"field at 100 atoms, mesh {mesh.mesh_shape_for(cell[0].numpy())}")
print(f"relative error of the field  {((field - exact).norm() / exact.norm()).item():.1e}")

# 1/2 sum f u is an output of its own: its derivatives need no second convolution
energy = mesh.field_and_energy(weights, fractional, cell, n_energies=2).energy.sum()
gradient, *by_kernel = torch.autograd.grad(energy, [fractional, *kernel.parameters()])
(exact_gradient,) = torch.autograd.grad(0.5 * (weights * exact).sum(), fractional)
print(f"relative error of the forces {((gradient - exact_gradient).norm() / exact_gradient.norm()).item():.1e}")
print("energy by log(lambda) and beta:", *(values.tolist() for values in by_kernel))
