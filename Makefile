# Every target sets up what it needs by itself: `tools/setup`, milliseconds once it is done.

MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHONPATH :=

PYTHON := .venv/bin/python
ARGS ?=

help: ## show this
	@echo 'make TARGET [ARGS="..."]'
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile | while IFS='	' read -r name what; do \
	  printf '  %-11s %s\n' "$$name" "$$what"; done

demo: setup ## a VPC, two nodes, pods and proofs on this machine; ARGS are those of `enid lab demo`
	@.venv/bin/enid lab demo $(ARGS)

test: setup-tests ## unit, contract and lab tests; ARGS are pytest's
	@$(if $(ARGS),$(PYTHON) -m vpclab.box $(PYTHON) -m pytest $(ARGS),\
	  $(PYTHON) -m tests.tools.side_by_side && $(PYTHON) -m coverage report)

bench: setup-tests ## the wire beside others, a table and build/bench.json; ARGS: --quick, --only PART
	@tools/build-plugin --native
	@tools/build-plugin --native --core
	@tools/build-containerd || echo 'enid: not every containerd is built: the newest of the others runs' >&2
	@$(PYTHON) -m vpclab.box $(PYTHON) -m tests.bench.wire $(ARGS)

labbench: setup ## how fast the lab is, as a table (one or two minutes); ARGS are --quick and -o json
	@$(PYTHON) -m vpclab.box $(PYTHON) -m tests.bench.lab $(ARGS)

fidelity: setup-tests ## what the lab shows of AWS, a line for each row of docs/fidelity.md
	@$(PYTHON) -m vpclab.box $(PYTHON) -m pytest --rows -q -r "" $(ARGS)

flows: setup-tests ## the data plane's settings x all flows beside kube-proxy; rewrites and kills under load
	@FLOWS=all $(PYTHON) -m vpclab.box $(PYTHON) -m pytest -q tests/lab/flows $(ARGS)

drift: setup-tests ## what others change of ours, mended; enid doctor after each sabotage; an upgrade under traffic
	@tools/fetch-networkmanager || echo 'enid: no NetworkManager: its test is skipped' >&2
	@DRIFT=all $(PYTHON) -m vpclab.box $(PYTHON) -m pytest -q tests/lab/test_mending.py tests/lab/test_doctor.py \
	  tests/lab/test_upgrade.py tests/lab/test_events.py tests/lab/test_dropins.py $(ARGS)

kube: setup-tests ## against a real kube-apiserver, built at the first time (six minutes, 3 GB meanwhile, Go)
	@tools/build-kubernetes kube-apiserver >/dev/null
	@$(PYTHON) -m pytest tests/e2e/test_*apiserver.py $(ARGS)

e2e: setup-tests ## a real cluster in the embedded VPC, its parts built at the first time (half an hour, Go): checks as a table
	@tools/build-containerd || echo 'enid: not every containerd is built: the newest of the others runs' >&2
	@tools/build-kubernetes >/dev/null || echo 'enid: not every part of Kubernetes is built: see the table' >&2
	@tools/fetch-helm >/dev/null
	@tools/build-plugin --native >/dev/null
	@tools/build-image --native >/dev/null
	@$(PYTHON) -m tests.e2e.builds
	@$(PYTHON) -m vpclab.box $(PYTHON) -m pytest -q -o faulthandler_timeout=0 tests/e2e/test_cluster_install.py tests/e2e/test_cluster_network.py \
	  tests/e2e/test_verify.py tests/e2e/test_cluster_life.py tests/e2e/test_cluster_upgrade.py \
	  tests/e2e/test_cluster_config.py tests/e2e/test_lab_cluster.py tests/e2e/test_way.py $(ARGS)

conformance: setup-tests ## Kubernetes' own tests of the network on a cluster, built at the first time: docs/conformance.md; ARGS=--focus X
	@tools/build-containerd || echo 'enid: not every containerd is built: the newest of the others runs' >&2
	@tools/build-kubernetes >/dev/null
	@tools/build-kubernetes conformance >/dev/null
	@tools/fetch-userland >/dev/null
	@tools/fetch-helm >/dev/null
	@tools/build-plugin --native >/dev/null
	@tools/build-image --native >/dev/null
	@$(PYTHON) -m vpclab.box $(PYTHON) -m tests.e2e.conformance $(ARGS)

cri: setup-tests ## real containerd 1.6, 1.7 and 2.2, fetched and built at the first time: row by row (docs/runtimes.md)
	@tools/build-plugin --native >/dev/null || echo 'enid: the plugin is not built: its source runs instead' >&2
	@tools/build-containerd
	@$(PYTHON) -m tests.cri $(ARGS)

matrix: setup-tests ## every step of an ENI's, an address's and an attachment's life, killed: what was lost or leaked
	@$(PYTHON) -m tests.contract.test_kill_matrix
	@$(PYTHON) -m tests.chaos.lane_rows

chaos: setup-tests ## a node's histories from seeds, against all laws; SEEDS=1000, SEED=17 DAYS=7, SABOTAGE=all
	@$(PYTHON) -m tests.chaos $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(DAYS),--days $(DAYS)) $(if $(SABOTAGE),--sabotage $(SABOTAGE)) $(ARGS)

fuzz: setup-tests ## hostile input for the plugin, its socket and the parsers, until RUNS=2000 of each are counted
	@ENID_FUZZ_RUNS=$(or $(RUNS),2000) $(PYTHON) -m vpclab.box $(PYTHON) -m pytest -q -s -o faulthandler_timeout=0 \
	  tests/lab/test_fuzz.py $(ARGS)

plugin: setup-tests ## the plugin as one static file, amd64 and arm64, and its tests; INIT=core, ARGS=--twice
	@tools/build-plugin $(if $(filter core,$(INIT)),--core) $(ARGS)
	@ENID_STARTS="$$(cat build/enid-cni*.from | sed -n 's/^[0-9a-f]*  //p' | paste -s -d ' ')" \
	  $(PYTHON) -m vpclab.box $(PYTHON) -m pytest -q tests/lab/test_plugin.py tests/lab/test_static.py \
	  tests/lab/test_verbs.py tests/lab/test_chain.py

image: setup-tests ## the OCI image for amd64 and arm64, its SBOM, and tests of what is in it; ARGS=--twice, --native
	@tools/build-plugin
	@tools/build-image $(ARGS)
	@$(PYTHON) -m vpclab.box $(PYTHON) -m pytest -q tests/image

chart: setup-tests ## helm lint, helm template with many values, what the schema refuses, the manifests; ARGS=--write makes them
	@tools/fetch-helm >/dev/null
	@$(if $(filter --write,$(ARGS)),$(PYTHON) -m tests.tools.chart,:)
	@.cache/helm/helm lint --strict config/chart
	@$(PYTHON) -m pytest -q tests/chart tests/unit/test_manifests.py $(filter-out --write,$(ARGS))

kernels: setup-tests ## Debian's 5.10, 6.1 and 6.12 kernels in qemu: our tests in each, as a table
	@tools/emulators
	@tools/build-plugin
	@tools/build-plugin --core
	@$(PYTHON) -m tests.kernels $(ARGS)

terraform: setup-tests ## terraform/: formatted, valid, its tests, checkov; PROVIDERS=FOLDER has the real AWS provider
	@tools/fetch-terraform
	@tools/fetch-helm >/dev/null
	@PROVIDERS=$(PROVIDERS) $(PYTHON) -m pytest -q -o faulthandler_timeout=0 tests/terraform $(ARGS)

lint: setup ## ruff, mypy, import contracts
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

bare: ## the README's commands in fresh Debian 12 and 13 (root; about ten minutes)
	@tools/bare

clean: ## remove what these targets made
	rm -rf .venv .cache build dist *.egg-info .*_cache .hypothesis .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +

setup:
	@tools/setup

setup-tests:
	@tools/setup tests

.PHONY: help demo test bench labbench fidelity flows drift kube e2e conformance cri matrix chaos fuzz plugin kernels terraform lint bare clean setup setup-tests image chart
