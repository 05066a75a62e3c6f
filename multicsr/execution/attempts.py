"""Counts, per item, of the processes and nodes that died during work on it, kept in Ray's head node.

Ray's own limit of retries counts a lost node like a process that died by itself, and it is used up within
seconds on an actor that Ray has not yet declared dead. So Ray is set to retry without limit, and each attempt
first checks the limits of this module.
"""

import json
from dataclasses import dataclass, field
from uuid import uuid4

from multicsr.errors import RunError
from multicsr.messages.ray_errors import MEMORY

_NAMESPACE = "multicsr-attempts"
_PROCESSES = 3
"""Maximum number of processes that may die on one item while their nodes stay alive. After that the item
itself is the cause, and would kill the next process too."""
_NODES = 10
"""Maximum number of nodes that may be lost during work on one item: a row may fill the memory of a container,
which ends the whole node. It is unlikely that so many spot nodes are reclaimed during the same item, which
takes minutes."""
_REMEDY = (
    "the shards done so far are kept; if memory was used up (Ray's raylet.out or the system's log shows it), "
    + MEMORY
)


@dataclass(frozen=True)
class Attempts:
    """The attempts at the items of one stage.

    It can be pickled: all workers share the counts in Ray's head node.
    """

    stage: str
    run: str = field(default_factory=lambda: uuid4().hex)

    def begin(self, number: int, name: str) -> None:
        """Record that an attempt at an item begins in this process.

        Args:
            number: index of the item.
            name: name of the item, for messages.

        Raises:
            RunError: too many processes or nodes died during earlier attempts.
        """
        import ray
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        nodes: list[str] = json.loads(_internal_kv_get(self._key(number), namespace=_NAMESPACE) or "[]")
        if nodes:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            self._check(name, sum(node in alive for node in nodes), sum(node not in alive for node in nodes))
        nodes.append(ray.get_runtime_context().get_node_id())
        _internal_kv_put(self._key(number), json.dumps(nodes).encode(), namespace=_NAMESPACE)

    def end(self, number: int) -> None:
        """Delete the attempts at an item, because its process survived the work."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self._key(number), namespace=_NAMESPACE)

    def _check(self, name: str, processes: int, nodes: int) -> None:
        if processes >= _PROCESSES:
            raise RunError(f"{self.stage}: the worker died {processes} times on {name}; {_REMEDY}")
        if nodes >= _NODES:
            raise RunError(f"{self.stage}: {nodes} nodes were lost at work on {name}; {_REMEDY}")

    def _key(self, number: int) -> str:
        return f"{self.run}/{number}"
