"""YAML as plain data, whatever the file: nothing in it makes the reader hang, fill the memory or go astray."""

from __future__ import annotations

from typing import Any

import yaml

MOST_BYTES = 1 << 18
"""As many take seconds to parse, and no file that people write is as long."""

MOST_VALUES = 100_000
"""Values of a file, each counted as often as it is repeated by an alias: ten lines of aliases stand for billions."""

DEEPEST = 100
"""Lists and mappings within each other."""


def parse_yaml(data: bytes) -> Any:
    """Parse one YAML document of UTF-8: mappings, lists, texts, numbers, dates, nothing else.

    A key is a text where YAML 1.1 has ``on``, ``off``, ``yes`` and ``no`` for a truth: conditions have a key ``on``.

    Raises:
        ValueError: it is too long, too deep, or has too many values; a value is not what it says that it is.
        yaml.YAMLError: not YAML, or of a kind that is not allowed.
        UnicodeDecodeError: not text.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 10} kB")
    loader = _Loader(data.decode("utf-8"))
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, set())
        try:
            return loader.construct_document(node)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            # PyYAML lets these out of `2020-13-45`, `!!int x`, `!!timestamp x` and the like.
            raise ValueError("a value is not what it is written as: a date, a number or its tag is wrong") from error
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if key.tag == _BOOL and key.value.lower() not in ("true", "false"):
                key.tag = _TEXT
        return node


_BOOL, _TEXT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:str"


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Count the values that a node stands for.

    Raises:
        ValueError: there are too many, or it contains itself.
    """
    found = known.get(id(node))
    if found is not None:
        return found
    if id(node) in above:
        raise ValueError("an alias stands for what it is a part of")
    above.add(id(node))
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_count(part, known, above) for part in node.value)
    elif isinstance(node, yaml.MappingNode):
        total += sum(_count(part, known, above) for pair in node.value for part in pair)
    if total > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} values, aliases counted")
    above.remove(id(node))
    known[id(node)] = total
    return total
