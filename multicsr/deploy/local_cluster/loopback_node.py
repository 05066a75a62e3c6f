"""Run `ray start` for a node whose ports all listen on 127.0.0.1.

Ray listens only on the loopback address if that is the address of the node, but it replaces a loopback
address by one that other machines can reach. The variable in `LOOPBACK` of `node.py` makes Ray's processes
keep the loopback address. The same variable makes `ray start` reject a second node. Therefore this process,
which starts the other processes of the node, ignores the variable and keeps the loopback address by replacing
the function that returns it.
"""

from ray._private import ray_constants, services
from ray.scripts.scripts import main

if __name__ == "__main__":
    services.get_node_ip_address = lambda address=None: "127.0.0.1"
    ray_constants.ENABLE_RAY_CLUSTER = True
    main()
