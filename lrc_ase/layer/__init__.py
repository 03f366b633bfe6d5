"""The long-range convolution alone: kernels, windows and the mesh. It knows no ASE, no model and no file."""
