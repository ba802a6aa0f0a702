# The commands people use. `make` alone lists them.
#
# Everything is built in one folder outside the checkout, so that a fresh clone finds what an earlier one built.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/bos-operator
export CARGO_TARGET_DIR ?= $(CACHE)/target
BIN := $(CARGO_TARGET_DIR)/debug
# Built here, so that tests and demo start these and build nothing themselves.
demo test verify upgrade-check: export BOS_OPERATOR_BIN := $(BIN)/bos-operator
demo test verify upgrade-check: export BOS_SITE_BIN := $(BIN)/bos-site
demo test verify: export BOS_BOA_BIN := $(BIN)/bos-boa
demo test verify bench-admission: export BOS_WEBHOOK_BIN := $(BIN)/bos-webhook
bench-admission: export BOS_SITE_BIN := $(BIN)/bos-site
# What a run of all tests leaves for hack/conformance.sh: its output, and which cases within tests were ok.
TEST_OUTPUT := $(CARGO_TARGET_DIR)/test-output.txt
test verify: export BOS_CASES := $(CARGO_TARGET_DIR)/test-cases.txt
# What it leaves for bos-rights: what our programs have asked of API servers.
test: export BOS_E2E_AUDIT_DIR := $(CARGO_TARGET_DIR)/test-audit

# Options of `make demo`; empty means the default of the program (see `make demo-help`).
NODES ?=
ONCE ?=
BOOT_TIME ?=
FAULTS ?=
OPERATION ?=
POWER ?=
MODE ?=
WEBHOOK ?=
# Further options of `make bench`.
JSON ?=
HARDWARE_SECONDS ?=
IDLE_SECONDS ?=

# How many random histories of each kind `make verify` plays; `make test` plays some thousand.
HISTORIES ?= 100000
# For `make mutants`: only patches whose names contain this.
export ONLY ?=

# Passes an option on if it has a value: $(call option,--nodes,$(NODES)).
option = $(if $(strip $(2)),$(1) '$(strip $(2))')
# The same for an option without a value. 0, no and false switch it off.
switch = $(if $(filter-out 0 no false,$(strip $(2))),$(1))

DEMO_ARGS = $(call option,--nodes,$(NODES)) $(call switch,--once,$(ONCE)) $(call option,--boot-time,$(BOOT_TIME)) \
  $(call option,--faults,$(FAULTS)) $(call option,--operation,$(OPERATION)) $(call option,--power,$(POWER)) \
  $(call option,--mode,$(MODE)) $(call switch,--webhook,$(WEBHOOK))
BENCH_ARGS = $(call option,--nodes,$(NODES)) $(call option,--operation,$(OPERATION)) $(call option,--power,$(POWER)) \
  $(call option,--mode,$(MODE)) $(call option,--json,$(JSON)) $(call option,--hardware-seconds,$(HARDWARE_SECONDS)) \
  $(call option,--idle-seconds,$(IDLE_SECONDS))

# Where images are made: IMAGE_OUT/release and IMAGE_OUT/test.
IMAGE_OUT ?= $(CACHE)/image

.DEFAULT_GOAL := help
.PHONY: help image image-check demo demo-help bench bench-admission test verify upgrade-check histories mutants mutants-check fmt fmt-check clippy crds crds-check manifests-check gitops-check monitoring-check control-plane build

help: ## List these targets
	@echo "make TARGET [NAME=value ...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: control-plane build ## Boot simulated nodes on a real control plane: NODES, ONCE=1, BOOT_TIME, FAULTS, OPERATION, POWER=capmc, MODE=v1, WEBHOOK=1
	@exec $(BIN)/demo $(DEMO_ARGS)

demo-help: build ## Say what the options of the demo mean (builds the programs first; some minutes the first time)
	@$(BIN)/demo --help

# What is measured is built as it is released.
RELEASED := $(CARGO_TARGET_DIR)/release
bench: export BOS_OPERATOR_BIN := $(RELEASED)/bos-operator
bench: export BOS_SITE_BIN := $(RELEASED)/bos-site
bench: export BOS_BOA_BIN := $(RELEASED)/bos-boa
bench: control-plane ## Measure an operation: NODES, OPERATION, POWER, MODE, JSON=file, HARDWARE_SECONDS, IDLE_SECONDS
	@echo "== building the programs as they are released in $(CARGO_TARGET_DIR) (some ten minutes the first time)"
	@cargo build --release --workspace --bins
	@exec $(RELEASED)/bench $(BENCH_ARGS)

bench-admission: control-plane build ## Measure admission of one Session: NODES=10000
	@exec $(BIN)/bench-admission $(call option,--nodes,$(NODES))

test: control-plane mutants-check gitops-check ## Build everything, run all tests, and check that the roles of our programs and docs/conformance.md fit them
	@echo "== building the programs and tests in $(CARGO_TARGET_DIR) (some minutes the first time)"
	@cargo build --workspace --bins
	@cargo test --workspace --no-run
	@test -x $(BIN)/bos-operator -a -x $(BIN)/bos-site -a -x $(BIN)/bos-webhook -a -x $(BIN)/bos-boa
	@hack/conformance.sh self-test
	@echo "== testing"
	@: > "$(BOS_CASES)"
	@rm -rf "$(BOS_E2E_AUDIT_DIR)"
	@bash -o pipefail -c 'cargo test --workspace 2>&1 | tee "$$1"' tests "$(TEST_OUTPUT)"
	@echo "== all tests passed; the roles of our programs"
	@$(BIN)/bos-rights "$(BOS_E2E_AUDIT_DIR)"
	@echo "== docs/conformance.md"
	@hack/conformance.sh check docs/conformance.md "$(TEST_OUTPUT)" "$(BOS_CASES)"

verify: fmt-check clippy crds-check manifests-check monitoring-check test upgrade-check histories ## Everything that must hold before a change goes in

upgrade-check: control-plane build ## Upgrade in the middle of Sessions, from the first release to this one and back (builds that one: some minutes)
	@hack/upgrade.sh

histories: ## Play many random histories of the decisions in virtual time: HISTORIES=100000 of each kind
	@echo "== $(HISTORIES) random histories of each kind"
	@BOS_SIM_HISTORIES=$(HISTORIES) cargo test -p bos-core --test simulation histories

mutants: ## Break each rule on purpose and see the tests fail: ONLY=07- for one rule (about an hour for all)
	@hack/mutants/run.sh

mutants-check:
	@echo "== every mutation of hack/mutants still applies"
	@hack/mutants/run.sh --check

image: ## Build the image for release, as an OCI layout with a list of its parts; no engine is needed (about 10 minutes)
	@hack/image/release.sh "$(IMAGE_OUT)/release/programs"
	@hack/image/build.sh "$(IMAGE_OUT)/release/programs" "$(IMAGE_OUT)/release"
	@hack/image/check.sh "$(IMAGE_OUT)/release" --released

# The same files with the programs that the tests use: building them for release would take longer than all tests. What only a
# release has, the crates named in the programs, is looked at in a small program.
image-check: build ## Make the image of the programs of the tests, twice with the same digest, and look inside
	@echo "== the image"
	@hack/image/build.sh "$(BIN)" "$(IMAGE_OUT)/test"
	@umask 077; TZ=Pacific/Kiritimati LC_ALL=C.UTF-8 hack/image/build.sh "$(BIN)" "$(IMAGE_OUT)/again"
	@for file in oci/index.json sbom.cdx.json; do cmp "$(IMAGE_OUT)/test/$$file" "$(IMAGE_OUT)/again/$$file" || exit 1; done
	@hack/image/check.sh "$(IMAGE_OUT)/test"
	@echo "== programs of a release name their crates"
	@PATH="$$(hack/image/auditable.sh | tail -n 1):$$PATH" cargo auditable build -q --locked -p bos-crds --bin crdgen
	@hack/image/audited.sh "$(BIN)/crdgen" bos-crds

fmt: ## Format the sources
	@cargo fmt --all

fmt-check:
	@echo "== format"
	@cargo fmt --all --check

clippy: ## Lint; warnings are errors
	@echo "== clippy"
	@cargo clippy --workspace --all-targets --all-features -- -D warnings

crds: ## Write manifests/crds from the API types
	@cargo run -q -p bos-crds --bin crdgen

crds-check:
	@echo "== manifests/crds are those of the API types"
	@set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	  cargo run -q -p bos-crds --bin crdgen -- "$$made" > /dev/null; diff -r "$$made" manifests/crds

manifests-check: control-plane
	@echo "== manifests can be put together"
	@set -e; PATH="$$KUBEBUILDER_ASSETS:$$(hack/control-plane/build.sh kubectl | tail -n 1):$$PATH"; \
	  for part in manifests/crds manifests/base manifests/webhook manifests/monitoring manifests/overlays/*; do kubectl kustomize "$$part" > /dev/null; done

gitops-check: ## Test the health checks for Argo CD and Flux with their own libraries (a minute the first time)
	@echo "== health checks of manifests/gitops"
	@cd hack/gitops && CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly go test ./...

monitoring-check: ## Have promtool check the alerts, and see each fire and not fire
	@echo "== alerts"
	@hack/monitoring/check.sh

control-plane: ## Build etcd, the API server and kubectl once (eight minutes the first time)
	@hack/control-plane/build.sh > /dev/null

build:
	@echo "== building the programs in $(CARGO_TARGET_DIR) (some minutes the first time)"
	@cargo build --workspace --bins
