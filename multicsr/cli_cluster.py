"""`multicsr cluster`: the command's words to one call."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from multicsr.cli_words import Debug, example, run_and_exit

if TYPE_CHECKING:
    from multicsr.cluster import Cluster

app = typer.Typer(
    help="Several Ray nodes on this machine, to rehearse what a cluster will do.", no_args_is_help=True
)


@app.command(epilog=example("multicsr cluster up --nodes 3"))
def up(
    nodes: Annotated[int, typer.Option(help="A head and its workers; 4 for one of each role.")] = 3,
    cpus: Annotated[float, typer.Option(min=1, help="Logical CPUs of each worker.")] = 4,
    debug: Debug = False,
) -> None:
    """Start a head without CPUs, and workers labelled cpu, generate, train in turn; token required."""

    def call() -> None:
        from multicsr.cluster import running
        from multicsr.cluster import up as start

        cluster = running()
        _say("is up already" if cluster else "is up", cluster or start(nodes, cpus))

    run_and_exit(call, debug)


@app.command(epilog=example("multicsr cluster status"))
def status(debug: Debug = False) -> None:
    """Say which nodes are up, and how to submit."""

    def call() -> None:
        from multicsr.cluster import alive, running
        from multicsr.errors import RunError

        if (cluster := running()) is None:
            raise RunError("no cluster is up here; `multicsr cluster up` starts one")
        _say(f"is up, {len(alive(cluster))} of {len(cluster.nodes)} nodes answer", cluster)

    run_and_exit(call, debug)


@app.command(epilog=example("multicsr cluster down"))
def down(debug: Debug = False) -> None:
    """End the cluster that `up` started, with its jobs, and nothing else."""

    def call() -> None:
        from multicsr.cluster import down as end

        cluster = end()
        Console(highlight=False).print(f"the cluster at {cluster.address} is down")

    run_and_exit(call, debug)


def _say(state: str, cluster: "Cluster") -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"the cluster at {cluster.address} {state}")
    for node in cluster.nodes:
        console.print(
            f"  {node.role:<9} pid {node.pid}, metrics http://127.0.0.1:{node.metrics_port}/metrics"
        )
    console.print(f"\ndashboard  {cluster.dashboard}  (asks for the token in {cluster.token_file})")
    console.print("\nto submit:")
    for name, value in cluster.environment.items():
        console.print(f"  export {name}={value}")
    console.print(f"  multicsr submit generate my.yaml --to ray --address {cluster.dashboard}")
