"""A job at vLLM's own OpenAI server on the small LM that ships, and the same rows by the local engine."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from multicsr.config import Config
from multicsr.llm.openai.probe import probe
from multicsr.models.resolve import ASSETS
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.llm.vllm.with_engine.conftest import read_premises
from tests.support.paths import ROOT

ROWS = 40
TEMPLATE = "{{ messages[0]['content'] }}"
"""The small LM has no chat template: a prompt is its own text."""
START_S = 240
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
}


class Server:
    """A running server; `vllm serve` is this module, but wants a distribution with the name vllm."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        (folder / "template.jinja").write_text(TEMPLATE)
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        options = {
            "--model": ASSETS / "tinylm",
            "--served-model-name": "tinylm",
            "--chat-template": folder / "template.jinja",
            "--host": "127.0.0.1",
            "--port": self._port,
            "--dtype": "float32",
            "--max-model-len": 256,
            "--max-num-seqs": 16,
        }
        words = [*command, *(str(each) for option in options.items() for each in option)]
        self._log = folder / "server.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                words, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stdout=log, stderr=log
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def wait(self) -> None:
        """Wait until it answers."""
        end_s = time.monotonic() + START_S
        while self._get("/health") is None:
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < end_s, self._log.read_text()[-2000:]
            time.sleep(0.5)

    def num_answers(self) -> float:
        """Number of answers so far, by its own metrics."""
        lines = (self._get("/metrics") or "").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:request_success_total"))

    def _get(self, path: str) -> str | None:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}") as got,
        ):
            return got.read().decode()
        return None

    def close(self) -> None:
        """End it with the processes that it started."""
        processes = [self._process, *psutil.Process(self._process.pid).children(recursive=True)]
        self._process.terminate()
        _, alive = psutil.wait_procs(
            [each for each in processes if isinstance(each, psutil.Process)], timeout=30
        )
        for each in alive:
            each.kill()
        self._process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.wait()
        yield server
    finally:
        server.close()


def make_config(folder: Path, store: str, **llm: object) -> Config:
    return Config.model_validate(
        {
            "name": store,
            "store": str(folder / store),
            "input": {"paths": [str(folder / "sentences.txt")]},
            "llm": llm,
            "generate": {"omega": 0, "max_rejected": 1.0, "max_new_tokens": 24},
            "score": {"method": "both"},
            "curate": {"alpha": 2.0, "beta": 4.9, "gamma": 0.0},
        }
    )


def run(config: Config) -> tuple[dict[str, dict], dict[str, float]]:
    """Run from ingest to curate; return the scored rows and the rejects by id, and the counters."""
    full_run.run(config, SilentProgress(), until="curate")
    store = Store.open(config.store)
    manifest = current(store).manifest("scored")
    tables = [*iter_tables(store, manifest), *iter_rejects(store, manifest)]
    return {row["row_id"]: row for table in tables for row in table.to_pylist()}, manifest.counters


@pytest.mark.slow  # vLLM's own server and an engine
@pytest.mark.usefixtures("ray_cluster")
def test_job_at_a_real_server_is_that_of_the_local_engine_and_asks_nothing_twice(server, tmp_path):
    (tmp_path / "sentences.txt").write_text("\n".join(read_premises(ROWS)) + "\n", encoding="utf-8")
    config = make_config(tmp_path, "served", engine="openai", model="tinylm", base_url=server.url)
    probe(config.llm)
    assert server.num_answers() == 0
    rows, counters = run(config)
    answered = server.num_answers()
    assert answered == counters["requests"] >= 4 * 0.8 * ROWS
    again, _ = run(config)
    assert server.num_answers() == answered
    assert again == rows
    local, _ = run(make_config(tmp_path, "local", engine="transformers"))
    compare(rows, local)


def compare(rows: dict[str, dict], local: dict[str, dict]) -> None:
    """Require equal texts and replies of nearly all rows, and equal scores to within the rounding to 1/256.

    The server decodes in batches, whose noise may decide between two tokens that are equally likely.
    """
    assert rows.keys() == local.keys()
    texts = ("entailment", "contradiction", "entailment_reply", "contradiction_reply")
    same = [key for key in rows if all(rows[key].get(name) == local[key].get(name) for name in texts)]
    assert len(same) >= 0.95 * len(rows)
    for key in same:
        assert rows[key].get("reason") == local[key].get("reason")
        for name in ("entailment_expected", "contradiction_expected"):
            found, expected = rows[key].get(name), local[key].get(name)
            assert found is expected is None or found == pytest.approx(expected, abs=0.03)
