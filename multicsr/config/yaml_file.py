"""A YAML reader that treats `no` and dates as strings and reports keys that occur twice."""

import re
from collections.abc import Iterator

import yaml
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

_BOOL, _DATE, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("bool", "timestamp", "merge"))
_TRUE_FALSE = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")


class _Loader(yaml.SafeLoader):
    """A YAML 1.1 loader with two exceptions: only true and false are booleans (YAML 1.2), nothing is a date.

    If a setting is a boolean, pydantic still accepts the strings yes, no, on and off.
    """


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _DATE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, _TRUE_FALSE, list("tTfF"))


def load_yaml(text: bytes | str) -> tuple[object, list[str]]:
    """Return the single document in `text`, and one line for every key that occurs twice in a mapping.

    Bytes are decoded as UTF-8, or as UTF-16 if they begin with a byte order mark.

    Raises:
        yaml.YAMLError: the text is not YAML, has more than one document, or a node that an alias puts into
            itself.
        RecursionError: it is nested too deeply.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, []
        _check_ends(node, set(), set())
        twice = [*_twice(node, "", set())]
        return loader.construct_document(node), twice
    finally:
        loader.dispose()


def key_lines(text: bytes | str) -> dict[tuple[str, ...], int]:
    """Return the line, counted from 1, of every key of the mappings in a YAML document, by its path.

    Keys that a merge (`<<`) brings in are left out.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return {} if node is None else dict(_key_lines(node, ()))
    finally:
        loader.dispose()


def _key_lines(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the path and line of every key at or below a node."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.tag != _MERGE:
                yield (*path, key.value), key.start_mark.line + 1
                yield from _key_lines(value, (*path, key.value))


def _check_ends(node: Node, above: set[int], seen: set[int]) -> None:
    """Raise YAMLError if a node holds itself: it has no end.

    Args:
        node: the node.
        above: ids of the nodes that it is in.
        seen: ids of the nodes that have an end.
    """
    if id(node) in above:
        raise yaml.YAMLError(f"an alias puts what begins in line {node.start_mark.line + 1} into itself")
    if id(node) in seen or not isinstance(node, CollectionNode):
        return
    above.add(id(node))
    for item in node.value:
        for child in item if isinstance(item, tuple) else (item,):
            _check_ends(child, above, seen)
    above.remove(id(node))
    seen.add(id(node))


def _twice(node: Node, path: str, seen: set[int]) -> Iterator[str]:
    """Yield one line for every repeated key at or below a node.

    Args:
        path: dotted path of the node, with a dot at the end.
        seen: ids of visited nodes; a node with an anchor is visited only once.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, SequenceNode):
        for item in node.value:
            yield from _twice(item, path, seen)
    if not isinstance(node, MappingNode):
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        if not isinstance(key, ScalarNode) or key.tag == _MERGE:
            continue
        line, name = key.start_mark.line + 1, f"{path}{key.value}"
        before = lines.setdefault((key.tag, key.value), line)
        if before != line:
            yield f"{name} is given twice, in lines {before} and {line}; keep one of them"
        yield from _twice(value, f"{name}.", seen)
