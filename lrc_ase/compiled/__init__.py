"""Compiled kernels for the CPU: vectors, threads, and how kernels are kept on disk."""
