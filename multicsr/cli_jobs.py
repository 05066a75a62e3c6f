"""The commands for jobs on clusters: submit, jobs, status, logs, stop. `cli.py` adds them to the others."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multicsr.cli_words import Debug, Overrides, example, run_and_exit
from multicsr.submit.words import To, require_effect

if TYPE_CHECKING:
    from multicsr.config import Config
    from multicsr.submit.jobs import Cluster, Seen


_TO_HELP = "Kubernetes with KubeRay, or a Ray cluster that runs already"
Place = Annotated[To, typer.Option("--to", envvar="MULTICSR_TO", help=f"{_TO_HELP}.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Jobs API, http://HOST:8265; for ray by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS.",
    ),
]
Namespace = Annotated[
    str, typer.Option(envvar="MULTICSR_NAMESPACE", help="Of Kubernetes, where the jobs are.")
]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig; default: the current one.")]
JobName = Annotated[str, typer.Argument(metavar="NAME", help="As `multicsr jobs` shows it.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command, words in (
        (submit, "configs/nightly.yaml --to k8s --overlay k8s/overlays/autoscale"),
        (jobs, "--to k8s"),
        (_command("status", _status), "demo-generate-1f2e3d4c --to k8s --address http://127.0.0.1:8265"),
        (logs, "demo-generate-1f2e3d4c --to ray"),
        (_command("stop", _stop), "demo-generate-1f2e3d4c --to ray"),
    ):
        name = command.__name__
        start = f"{name} generate" if name == "submit" else name
        epilog = example(f"multicsr {start} {words}")
        app.command(rich_help_panel="Jobs on a cluster", epilog=epilog)(command)


def submit(
    job: Annotated[str, typer.Argument(help="ingest, generate, curate, train, evaluate or refresh.")],
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")],
    to: Annotated[To, typer.Option("--to", envvar="MULTICSR_TO", help=f"{_TO_HELP}, or here.")],
    overlay: Annotated[
        Path | None, typer.Option(help="k8s: directory of k8s/overlays, or a file rendered from it.")
    ] = None,
    address: Address = None,
    namespace: Namespace = "multicsr",
    context: Context = None,
    name: Annotated[str | None, typer.Option(help="Default: made from run, job and content.")] = None,
    daily: Annotated[
        bool, typer.Option("--daily", help="Put the date into the name: once a day at most.")
    ] = False,
    time_zone: Annotated[
        str | None,
        typer.Option(help="In which --daily asks for the date, such as Europe/Berlin; default: UTC."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show its log; fail if it fails.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, send nothing.")
    ] = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Run a job on a cluster. The same job with the same configuration is not run twice."""

    def call() -> None:
        from multicsr.config_file import load_config
        from multicsr.submit import places

        given = {"overlay": overlay, "address": address, "context": context, "name": name}
        require_effect(to, {**given, "daily": daily, "time-zone": time_zone, "dry-run": dry_run})
        settings = load_config(config, overrides or ())
        if to is To.LOCAL:
            _here(job, settings)
            return
        where = places.Where(to, address, namespace, context)
        order = places.order(job, settings, name, (time_zone or "UTC") if daily else None)
        if dry_run:
            typer.echo(places.preview(order, where, overlay))
            return
        cluster, made = places.send(order, where, overlay, typer.echo)
        if follow:
            _judge(cluster.follow(made, typer.echo))

    run_and_exit(call, debug)


def jobs(
    to: Place,
    address: Address = None,
    namespace: Namespace = "multicsr",
    context: Context = None,
    debug: Debug = False,
) -> None:
    """List this project's jobs on a cluster, oldest first."""

    def call() -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table("name", "job", "attempt", "state", "since")
        found = _cluster(to, address, namespace, context).jobs()
        for seen in sorted(found, key=lambda seen: (seen.since, seen.name)):
            table.add_row(seen.name, seen.job, str(seen.attempt), seen.phase, seen.since)
        Console(highlight=False).print(table)

    run_and_exit(call, debug)


def logs(
    name: JobName,
    to: Place,
    follow: Annotated[bool, typer.Option("--follow", help="Until it is over; fail if it failed.")] = False,
    address: Address = None,
    namespace: Namespace = "multicsr",
    context: Context = None,
    debug: Debug = False,
) -> None:
    """Print a job's log."""

    def call() -> None:
        cluster = _cluster(to, address, namespace, context)
        if follow:
            _judge(cluster.follow(name, typer.echo))
        else:
            cluster.logs(name, typer.echo)

    run_and_exit(call, debug)


def _command(name: str, do: "Callable[[Cluster, str], None]") -> Callable[..., None]:
    """A command that does something with one job of a cluster; its help is what `do` says of itself."""

    def command(
        job: JobName,
        to: Place,
        address: Address = None,
        namespace: Namespace = "multicsr",
        context: Context = None,
        debug: Debug = False,
    ) -> None:
        run_and_exit(lambda: do(_cluster(to, address, namespace, context), job), debug)

    command.__name__, command.__doc__ = name, do.__doc__
    return command


def _status(cluster: "Cluster", name: str) -> None:
    """Print a job's state; with --address also where its RayJob and the Jobs API disagree."""
    from multicsr.errors import RunError

    found = cluster.find(name)
    if found is None:
        raise RunError(f"no job {name}; see `multicsr jobs`")
    typer.echo(str(found))
    for finding in cluster.findings(name):
        typer.echo(f"they disagree: {finding}")


def _stop(cluster: "Cluster", name: str) -> None:
    """End a job. What it has put into the store stays; submitted again, it goes on from there."""
    cluster.stop(name, typer.echo)


def _cluster(to: To, address: str | None, namespace: str, context: str | None) -> "Cluster":
    from multicsr.errors import ConfigError
    from multicsr.submit.places import Where, cluster_at

    if to is To.LOCAL:
        raise ConfigError("--to local: what runs here is over when its command ends; take k8s or ray")
    return cluster_at(Where(to, address, namespace, context))


def _here(job: str, config: "Config") -> None:
    from multicsr.job import progress_for_terminal, run_job

    with progress_for_terminal() as progress:
        run_job(job, config, progress)


def _judge(last: "Seen") -> None:
    """The exit code of a command that waited for a job."""
    from multicsr.errors import RunError
    from multicsr.submit.jobs import Phase

    if last.phase is not Phase.SUCCEEDED:
        raise RunError(str(last))
    typer.echo(str(last))
