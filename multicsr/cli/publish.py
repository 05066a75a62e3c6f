"""The commands that bring an encoder elsewhere: export to other formats, push to the Hugging Face hub."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from multicsr.cli import store
from multicsr.cli.command import command
from multicsr.cli.entrypoint import progress_for_terminal
from multicsr.cli.options import ModelPlace, Overrides, VersionNumber, open_encoder
from multicsr.messages.terminal import echo

app = typer.Typer()


@command(
    app,
    store.PANEL,
    "multicsr export runs/demo.yaml --out encoder-fp16 --format safetensors-fp16",
    "multicsr export all-MiniLM-L6-v2 --out encoder-bf16 --format safetensors-bf16 --data sts/",
)
def export(
    model: ModelPlace,
    out: Annotated[Path, typer.Option(help="Directory to make; it must not exist.")],
    kind: Annotated[
        str, typer.Option("--format", help="onnx, onnx-int8, safetensors-fp16 or safetensors-bf16.")
    ],
    min_cosine: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Smallest cosine with the original; default: by format, see docs."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Also measure both on the tasks in these files or directories; may be repeated."),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the encoder.")
    ] = False,
    version: VersionNumber = None,
    overrides: Overrides = None,
) -> None:
    """Write an encoder in another format, if its vectors agree with those of the original.

    Both encode some dozens of sentences. If the cosine of one is too small, nothing is written.
    """
    from multicsr.stages.evaluate import render
    from multicsr.tools.export import export_encoder, format_named

    source, chosen = open_encoder(model, overrides, version), format_named(kind)
    trusted = source.trust_remote_code or trust_remote_code
    source = replace(source, trust_remote_code=trusted)
    with progress_for_terminal() as progress:
        exported = export_encoder(source, out, chosen, progress, min_cosine, data or ())
    if exported.evaluation is not None:
        echo(render(exported.evaluation))
    echo(f"{exported.directory}, {exported.num_bytes / 1e6:,.1f} MB; {exported.agreement}")


@command(
    app,
    store.PANEL,
    "multicsr push runs/demo.yaml --repo my-org/my-encoder --private",
    "multicsr push runs/demo.yaml --repo my-org/my-encoder --dataset my-org/my-triplets",
)
def push(
    model: ModelPlace,
    repo: Annotated[str, typer.Option(metavar="ORG/NAME", help="Repository of the model on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make new repositories private.")] = False,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Also upload the curated triplets to this repository."),
    ] = None,
    version: VersionNumber = None,
    overrides: Overrides = None,
) -> None:
    """Upload an encoder with its card to the Hugging Face hub.

    The token is that of HF_TOKEN or of `hf auth login`.

    Licence and languages on the cards come from the section `card` of the configuration.
    """
    from multicsr.tools.hub import push_encoder

    source = open_encoder(model, overrides, version)
    with progress_for_terminal() as progress:
        addresses = push_encoder(source, repo, progress, private=private, dataset=dataset)
    for address in addresses:
        echo(address)
