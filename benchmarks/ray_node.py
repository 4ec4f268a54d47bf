"""A Ray node that joins a cluster on the loopback address, which ``ray start`` refuses to; runs until it is killed.

usage: ray_node.py HOST:PORT '{"CPU": 1, "GPU": 0, "anything": 1}'
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main(address: str, resources: dict[str, float]) -> None:
    """Start the node's processes as children of this one, and wait."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # the starter's GPUs say nothing about what this node is to have
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    parameters = RayParams(
        gcs_address=address,
        node_ip_address="127.0.0.1",
        num_cpus=resources.pop("CPU", 1),
        num_gpus=resources.pop("GPU", 0),
        resources=resources,
        object_store_memory=150 * 2**20,
        include_log_monitor=False,
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        dashboard_agent_listen_port=None,
    )
    Node(parameters, head=False, shutdown_at_exit=False, spawn_reaper=False, ray_init_cluster=False)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
