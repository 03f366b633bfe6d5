"""Adapters to other people's engines: each runs the same potential file, one file per engine.

An engine is imported only where its adapter is used; see docs/how-to/engines.md for which to take when.
"""
