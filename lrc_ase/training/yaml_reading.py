"""Bounded reading of YAML: a small file may neither expand to a large tree nor repeat a key."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["read_yaml"]

_LARGEST_TEXT = 10_000_000
"""Largest number of characters."""
_LARGEST_TREE = 200_000
"""Largest number of nodes of the tree after all aliases are expanded."""


def read_yaml(text: str) -> Any:
    """Return the content of a YAML document.

    Anchors and aliases are allowed as long as the expanded tree has at most `_LARGEST_TREE` nodes.

    Raises
    ------
    ValueError
        The text is no YAML, is too large or nested too deeply, or a mapping has the same key twice.
    """
    if len(text) > _LARGEST_TEXT:
        raise ValueError(f"has {len(text)} characters, more than a configuration needs")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None
        _check(node, {}, set())
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(f"is no valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _check(node: yaml.Node, sizes: dict[int, int], open_nodes: set[int]) -> int:
    """Return the number of nodes below and including `node`, with aliases expanded; ValueError for a large tree."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    identity = id(node)
    if identity in sizes:
        return sizes[identity]
    if identity in open_nodes:
        raise ValueError(f"line {node.start_mark.line + 1}: a value contains itself through an alias")
    open_nodes.add(identity)
    children = node.value
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated_keys(node)
        children = [child for pair in node.value for child in pair]
    size = 1 + sum(_check(child, sizes, open_nodes) for child in children)
    if size > _LARGEST_TREE:
        raise ValueError(f"line {node.start_mark.line + 1}: aliases stand for more than {_LARGEST_TREE} values")
    open_nodes.remove(identity)
    sizes[identity] = size
    return size


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    """Raise ValueError for a mapping with the same key twice, of which PyYAML would keep the last."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        line = key.start_mark.line + 1
        if (key.tag, key.value) in lines:
            first = lines[key.tag, key.value]
            raise ValueError(f"line {line}: the key '{key.value:.80}' is there twice, first in line {first}")
        lines[key.tag, key.value] = line
