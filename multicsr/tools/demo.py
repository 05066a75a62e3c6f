"""Configuration of the demo (`multicsr demo`), made from the one in the package."""

import json
import re
from pathlib import Path

from multicsr.messages.extras import require_extra
from multicsr.models.resolve import ASSETS

_FOLDER = ASSETS / "demo"
_DATA = re.compile(r"multicsr/assets/demo/([\w.]+)")
_STORE = "runs/demo"


def write_demo_config(out: Path) -> Path:
    """Write the configuration of the demo to `out`/demo.yaml and return its path.

    Its data are those of the package, its store is `out`/demo. A file that exists is kept, so that it may be
    changed.

    Raises:
        ConfigError: the demo extra is not installed.
    """
    require_extra("demo", "the demo")
    path = out / "demo.yaml"
    if not path.exists():
        text = (_FOLDER / "demo.yaml").read_text(encoding="utf-8")
        text = _DATA.sub(lambda found: _quoted(_FOLDER / found[1]), text)
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(_STORE, _quoted(out / "demo")), encoding="utf-8")
    return path


def _quoted(path: Path) -> str:
    """Return a path as a YAML string; JSON's are strings of YAML, too."""
    return json.dumps(str(path))
