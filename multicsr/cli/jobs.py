"""The commands for jobs on clusters: submit, jobs, status, logs, stop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multicsr.cli.command import command
from multicsr.cli.entrypoint import run_job
from multicsr.cli.options import AsJson, ConfigPath, Overrides, echo_json, read_settings
from multicsr.deploy.submit.options import To, require_effect
from multicsr.messages.terminal import echo, echo_log

if TYPE_CHECKING:
    from multicsr.deploy.submit.job import ClusterTarget, JobStatus


app = typer.Typer()
PANEL = "Jobs on a cluster"
_TO_HELP = "Kubernetes with KubeRay, or a Ray cluster that runs already"
Place = Annotated[To, typer.Option("--to", envvar="MULTICSR_TO", help=f"{_TO_HELP}.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Jobs API, http://HOST:8265 or HOST:8265; for ray by default that of "
        "RAY_API_SERVER_ADDRESS or RAY_ADDRESS.",
    ),
]
Namespace = Annotated[
    str, typer.Option(envvar="MULTICSR_NAMESPACE", help="Of Kubernetes, where the jobs are.")
]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig; default: the current one.")]
JobName = Annotated[str, typer.Argument(metavar="NAME", help="As `multicsr jobs` shows it.")]


@command(
    app, PANEL, "multicsr submit generate configs/nightly.yaml --to k8s --overlay k8s/overlays/autoscale"
)
def submit(
    job: Annotated[str, typer.Argument(help="ingest, generate, curate, train, evaluate or refresh.")],
    config: ConfigPath,
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
    again: Annotated[
        bool, typer.Option("--again", help="Run it once more though it succeeded, such as on new files.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show its log; fail if it fails.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, send nothing.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Run a job on a cluster. The same job with the same configuration is not run twice."""
    from multicsr.deploy import targets

    given: dict[str, object] = {"overlay": overlay, "address": address, "context": context, "name": name}
    given |= {"daily": daily, "time-zone": time_zone, "dry-run": dry_run, "again": again}
    require_effect(to, given)
    settings = read_settings(config, overrides)
    if to is To.LOCAL:
        run_job(job, settings)
        return
    target = targets.TargetOptions(to, address, namespace, context)
    request = targets.make_request(job, settings, name, (time_zone or "UTC") if daily else None)
    if dry_run:
        echo(targets.preview(request, target, overlay))
        return
    cluster, made = targets.send(request, target, overlay, echo, again=again)
    if follow:
        _judge(cluster.follow(made, echo_log))


@command(app, PANEL, "multicsr jobs --to k8s")
def jobs(
    to: Place,
    address: Address = None,
    namespace: Namespace = "multicsr",
    context: Context = None,
    json: AsJson = False,
) -> None:
    """List this project's jobs on a cluster, oldest first."""
    from multicsr.deploy.submit.listing import as_record, as_table, in_order

    found = _cluster(to, address, namespace, context).jobs()
    if json:
        echo_json([as_record(each) for each in in_order(found)])
    else:
        echo(as_table(found))


@command(app, PANEL, "multicsr logs demo-generate-1f2e3d4c --to ray")
def logs(
    name: JobName,
    to: Place,
    follow: Annotated[bool, typer.Option("--follow", help="Until it is over; fail if it failed.")] = False,
    address: Address = None,
    namespace: Namespace = "multicsr",
    context: Context = None,
) -> None:
    """Print a job's log."""
    cluster = _cluster(to, address, namespace, context)
    if follow:
        _judge(cluster.follow(name, echo_log))
    else:
        cluster.logs(name, echo_log)


@command(app, PANEL, "multicsr status demo-generate-1f2e3d4c --to k8s --address http://127.0.0.1:8265")
def status(
    name: JobName,
    to: Place,
    address: Address = None,
    namespace: Namespace = "multicsr",
    context: Context = None,
    json: AsJson = False,
) -> None:
    """Print a job's state and what it waits for; with --address also where RayJob and Jobs API disagree."""
    from multicsr.deploy.submit.job import unknown
    from multicsr.deploy.submit.listing import as_record
    from multicsr.errors import RunError

    cluster = _cluster(to, address, namespace, context)
    found = cluster.find(name)
    if found is None:
        raise RunError(unknown(name))
    causes, findings = cluster.causes(name), cluster.findings(name)
    if json:
        echo_json(as_record(found, causes=causes, disagreements=findings))
        return
    for line in (
        str(found),
        *(f"because: {cause}" for cause in causes),
        *(f"they disagree: {finding}" for finding in findings),
    ):
        echo(line)


@command(app, PANEL, "multicsr stop demo-generate-1f2e3d4c --to ray")
def stop(
    name: JobName,
    to: Place,
    address: Address = None,
    namespace: Namespace = "multicsr",
    context: Context = None,
) -> None:
    """End a job. What it has put into the store stays; submitted again, it goes on from there."""
    _cluster(to, address, namespace, context).stop(name, echo)


def _cluster(to: To, address: str | None, namespace: str, context: str | None) -> "ClusterTarget":
    from multicsr.deploy.targets import TargetOptions, cluster_at
    from multicsr.errors import ConfigError

    if to is To.LOCAL:
        raise ConfigError("--to local: what runs here is over when its command ends; take k8s or ray")
    return cluster_at(TargetOptions(to, address, namespace, context))


def _judge(last: "JobStatus") -> None:
    """Print the final state of a job.

    Raises:
        RunError: the job did not succeed.
    """
    from multicsr.deploy.submit.job import Phase
    from multicsr.errors import RunError

    if last.phase is not Phase.SUCCEEDED:
        raise RunError(str(last))
    echo(str(last))
