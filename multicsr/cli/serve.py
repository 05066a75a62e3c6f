"""The command `multicsr serve`: a model as an endpoint that offers pairs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from multicsr.cli import pipeline
from multicsr.cli.command import command
from multicsr.cli.options import Overrides
from multicsr.config_file import build_config
from multicsr.errors import ConfigError

app = typer.Typer()
_OTHERS = ("generate.cpus_per_actor",)
"""Settings outside the section `llm` that decide how a model is loaded."""
_GIVEN = {"llm.model": "MODEL", "llm.engine": "--engine"}
"""Settings that the command line has already."""


@command(
    app,
    pipeline.PANEL,
    "multicsr serve tinylm",
    "multicsr serve Qwen/Qwen3-4B --engine vllm --set llm.dtype=bfloat16",
)
def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As `llm.model`: tinylm, directory or id.")],
    engine: Annotated[
        Literal["transformers", "vllm"], typer.Option(help="Engine, as `llm.engine`.")
    ] = "transformers",
    name: Annotated[
        str | None, typer.Option(help="Name of the model in requests; default: MODEL without its directory.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: any that is free.")] = 8000,
    at_once: Annotated[int, typer.Option(min=1, max=4096, help="Requests computed together.")] = 64,
    max_requests: Annotated[
        int, typer.Option(min=1, max=65_536, help="Requests running and waiting; others get 429.")
    ] = 1024,
    grace: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds for running requests after Ctrl-C or SIGTERM.")
    ] = 30.0,
    overrides: Overrides = None,
) -> None:
    """Serve a model over HTTP in OpenAI's protocol, with contrastive pairs (Eq. 2) and score labels (Eq. 3).

    The first line is the address. MULTICSR_SERVE_TOKEN, if it is set, is the token that requests must carry.
    """
    from multicsr.models.llm_weights import locate_llm
    from multicsr.models.resolve import require_on_hub
    from multicsr.serve.server import ServeOptions
    from multicsr.serve.server import serve as serve_until_signal

    for override in overrides or ():
        setting = override.partition("=")[0]
        if not setting.startswith("llm.") and setting not in _OTHERS:
            raise ConfigError(f"--set {setting} has no effect here: requests bring such settings with them")
        if setting in _GIVEN:
            raise ConfigError(f"--set {setting} has no effect here: give {_GIVEN[setting]} instead")
    tree: dict[str, object] = {
        **{"name": "serve", "store": "unused", "input": {"paths": ["unused"]}},
        "llm": {"engine": engine, "model": model},
        "generate": {"batch_size": (at_once + 1) // 2},  # the engine counts premises, with two texts each
        "score": {"method": "llm_stated"},  # labels come with the requests
    }
    config = build_config(tree, overrides or ())
    located = locate_llm(model)
    if not Path(located).exists():
        require_on_hub(located, "llm.model", config.llm.revision)
    options = ServeOptions(
        name or (Path(model).name if Path(model).exists() else model),
        host,
        port,
        at_once,
        max_requests,
        grace,
    )
    serve_until_signal(config, options)
