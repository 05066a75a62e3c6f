"""A job on an endpoint, without Ray: `python -m tests.support.hostile_side CONFIG`, in a process."""

import sys
from pathlib import Path

from multicsr.cli.entrypoint import guarded
from multicsr.config_file import load_config
from multicsr.execution import stage_runner
from multicsr.llm.openai import endpoint
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.stages.generate import planning, writing


def map_items(name, make, items, pool):
    """Do what Ray's workers would, here."""
    work = make() if items else None
    for item in items:
        yield work(item)


def main() -> int:
    stage_runner.map_items = planning.map_items = writing.map_items = map_items
    endpoint.Endpoint.__init__.__defaults__ = (0.01,)
    from multicsr.llm.openai import engine

    engine.OpenAIEngine.__init__.__defaults__ = (0.01,)
    config = load_config(Path(sys.argv[1]))
    return guarded(lambda: full_run.run(config, SilentProgress(), until="curate"), debug=False)


if __name__ == "__main__":
    sys.exit(main())
