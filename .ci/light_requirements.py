"""Print the requirements of the tests that need neither torch nor Ray, from pyproject.toml."""

import re
import sys
import tomllib
from pathlib import Path

HEAVY = {
    "deepspeed",
    "mlflow-skinny",
    "multicsr",
    "peft",
    "ray",
    "sentence-transformers",
    "tensorboardx",
    "torch",
}
HEAVY |= {"transformers", "mypy", "ruff", "types-pyyaml"}


def main() -> None:
    """Print one requirement on each line."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    names = ("ingest", "k8s", "openai", "s3", "train", "dev")
    for line in [*project["dependencies"], *(line for name in names for line in extras[name])]:
        name = re.split(r"[\[<>=~!; ]", line, maxsplit=1)[0].lower()
        if name not in HEAVY:
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
