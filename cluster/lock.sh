#!/usr/bin/env bash
# Writes the lock files anew from pyproject.toml: bash cluster/lock.sh   (needs uv: pip install uv)
#
# The GPU image takes everything from PyPI, whose torch is the CUDA build. The CPU image takes torch from
# PyTorch's own index (see the Dockerfile), so its lock leaves torch and CUDA out.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    uv pip compile "$@" --quiet --no-config --generate-hashes --no-annotate --no-header \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28
}

extras=(--extra gguf --extra ingest --extra k8s --extra lora --extra mlflow --extra openai --extra s3 --extra train)
echo 'setuptools>=77,<90 wheel>=0.45,<1' | tr ' ' '\n' | compile - > cluster/requirements-build.lock
compile pyproject.toml "${extras[@]}" --extra vllm > cluster/requirements-gpu.lock
# A requirement is a line that begins with its name, and the indented lines of hashes behind it.
compile pyproject.toml "${extras[@]}" --constraint cluster/requirements-gpu.lock |
    awk '/^[a-z]/ { keep = !/^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ } keep' \
        > cluster/requirements-cpu.lock
