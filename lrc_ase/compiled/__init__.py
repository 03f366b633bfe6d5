"""Compiled kernels for the CPU: vectors, threads, compilation and the cache on disk."""
