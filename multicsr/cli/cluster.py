"""The commands `multicsr cluster up`, `status` and `down`."""

from typing import TYPE_CHECKING, Annotated

import typer

from multicsr.cli.command import command
from multicsr.cli.options import AsJson, echo_json
from multicsr.errors import RunError
from multicsr.messages.terminal import echo

if TYPE_CHECKING:
    from multicsr.deploy.local_cluster.cluster import LocalCluster

app = typer.Typer(
    help="Several Ray nodes on this machine, to rehearse what a cluster will do.", no_args_is_help=True
)


@command(app, None, "multicsr cluster up --nodes 3")
def up(
    nodes: Annotated[int, typer.Option(help="A head and its workers; 4 for one of each role.")] = 3,
    cpus: Annotated[float, typer.Option(min=1, help="Logical CPUs of each worker.")] = 4,
) -> None:
    """Start a head without CPUs, and workers labelled cpu, generate, train in turn; token required."""
    from multicsr.deploy.local_cluster import cluster

    was_up = cluster.running() is not None
    _print_state("is up already" if was_up else "is up", cluster.up(nodes, cpus))


@command(app, None, "multicsr cluster status")
def status(json: AsJson = False) -> None:
    """Show which nodes are up, and how to run and submit on them."""
    from multicsr.deploy.local_cluster.cluster import alive, running

    if (cluster := running()) is None:
        raise RunError("no cluster is up here; `multicsr cluster up` starts one")
    nodes = alive(cluster)
    if json:
        echo_json({**cluster.model_dump(mode="json"), "alive": len(nodes)})
    else:
        _print_state(f"is up, {len(nodes)} of {cluster.wanted} nodes answer", cluster)


@command(app, None, "multicsr cluster down")
def down() -> None:
    """End the cluster that `up` started, with its jobs, and nothing else."""
    from multicsr.deploy.local_cluster import cluster

    echo(f"the cluster at {cluster.down().address} is down")


def _print_state(state: str, cluster: "LocalCluster") -> None:
    echo(f"the cluster at {cluster.address} {state}")
    for node in cluster.nodes:
        echo(f"  {node.role:<9} pid {node.pid}, metrics http://127.0.0.1:{node.metrics_port}/metrics")
    echo(f"\ndashboard  {cluster.dashboard}  (asks for the token in {cluster.token_file})")
    echo("\nfor both of the following:")
    for name, value in cluster.environment.items():
        echo(f"  export {name}={value}")
    echo("to run stages on it from this terminal:")
    echo(f"  RAY_ADDRESS={cluster.address} multicsr run my.yaml")
    echo("to submit a job to it:")
    echo(f"  multicsr submit generate my.yaml --to ray --address {cluster.dashboard}")
