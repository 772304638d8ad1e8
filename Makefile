# The one menu: people and CI call the same. What has logic is a program: the cluster is `cargo run --bin cluster`.

VERSION  := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
TARGET   := $(shell uname -m)-unknown-linux-gnu
OPERATOR := target/$(TARGET)/release/batchjob-operator
IMAGE    := target/image/batchjob-operator.tar
CACHE    := $(or $(BATCHJOB_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/batchjob)
CLUSTER  := cargo run --quiet --locked --package batchjob-tests --bin cluster --
AUDIT    := $(CACHE)/cargo-audit/0.22.2
ADVISORIES ?= ../shared/advisory-db

.DEFAULT_GOAL := help
.PHONY: help demo up down kubeconfig prerequisites kubernetes image operator check codegen audit test test-unit test-sim test-api \
	test-cluster calendar differential schedules sim mutations faults laws nodes left-behind corruption fuzz leaders punctual stuck stuck-in-short outages upstream bench latency

help: ## This menu
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

demo: prerequisites image ## Bring up a cluster, install the chart, run an example and show its result
	$(CLUSTER) up --size node
	tests/demo

up: prerequisites ## Start a Kubernetes of one node on this machine
	$(CLUSTER) up --size node

down: ## Stop it and remove all that it left
	$(CLUSTER) down

kubeconfig: ## Print the path of its kubeconfig
	@$(CLUSTER) kubeconfig

prerequisites: # Installs by apt-get what is missing, as root; else says what to install.
	$(CLUSTER) prerequisites --install

kubernetes: # Builds what is missing of Kubernetes, and shows how far it is.
	$(CLUSTER) build

operator: # The operator as one static binary. With --target the flags reach it alone, not build scripts and macros.
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --package batchjob-operator --target $(TARGET)

image: operator ## Build the operator's image, without a container engine, as an OCI archive
	mkdir -p $(dir $(IMAGE))
	$(CLUSTER) image --binary $(OPERATOR) --name docker.io/batchjob/operator:$(VERSION) --out $(IMAGE)

check: ## What a reviewer would say first: format, lints, docs, generated files, advisories
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps --document-private-items
	$(MAKE) codegen
	git diff --exit-code -- crds charts/batchjob/files docs/conformance.md docs/reliability.md
	$(MAKE) audit

codegen: ## Write the generated files: the CRDs, their copies in the chart, docs/conformance.md and docs/reliability.md
	cargo run --quiet --locked --package batchjob-crd --features generate --bin crdgen -- crds
	cp crds/*.yaml charts/batchjob/files/
	cargo run --quiet --locked --package batchjob-tests --bin conformance
	cargo run --quiet --locked --package batchjob-tests --bin reliability

audit: # Known vulnerabilities in dependencies, from a copy of the RustSec advisory database.
	@if [ -d '$(ADVISORIES)' ]; then \
		[ -x '$(AUDIT)/bin/cargo-audit' ] || cargo install --quiet --locked --root '$(AUDIT)' cargo-audit@0.22.2; \
		'$(AUDIT)/bin/cargo-audit' audit --db '$(ADVISORIES)' --no-fetch --stale --deny warnings; \
	else \
		echo 'WARNING: advisories are NOT checked: there is no RustSec database in $(ADVISORIES) (set ADVISORIES=)' >&2; \
	fi

test: test-unit test-sim test-api test-cluster ## Every test

test-unit: ## Rings 1 and 2: seconds, offline
	cargo test --locked

# Built with every check that costs little, and fast: a hundred thousand lives in two minutes, always the same ones.
SIM = cargo run --quiet --locked --profile sim --package batchjob-sim --

test-sim: ## Ring 2, the long way: 100,000 lives of jobs and 10,000 slots of schedules in virtual time, and every pair of faults of one
	$(SIM) --lives 100000 --pairs one
	$(SIM) --slots 10000

# Clusters that tests share end with the test's process; what they leave on disk is swept up, whatever came of the test.
CLUSTER_TEST = cargo test --locked --package batchjob-tests

test-api: prerequisites kubernetes operator ## Ring 3: against a real API server
	$(CLUSTER_TEST) --lib --bins --test kubernetes-api --test api; status=$$?; $(CLUSTER) sweep; exit $$status
	$(CALENDAR) --zones 8 --expressions 6
	$(MAKE) stuck-in-short & \
	$(DIFFERENTIAL) --jobs 100; status=$$?; wait $$! || status=1; $(CLUSTER) sweep; exit $$status
	$(FAULTS) --plans 200 --views 100 --doubles 20 --operators 60 --quiet 1 --pick $$(git rev-parse HEAD); status=$$?; $(CLUSTER) sweep; exit $$status
	$(NODES); status=$$?; $(CLUSTER) sweep; exit $$status
	$(OUTAGE) --seconds 5 --at-once 8; status=$$?; $(CLUSTER) sweep; exit $$status
	$(CORRUPTION) --rounds 2 --cuts 1; status=$$?; $(CLUSTER) sweep; exit $$status

test-cluster: prerequisites kubernetes image ## Ring 4: on a real node, installed by the chart (root)
	$(CLUSTER_TEST) --test kubernetes-node; status=$$?; $(CLUSTER) sweep; exit $$status
	$(CLUSTER_TEST) --test cluster -- --test-threads 6; status=$$?; $(CLUSTER) sweep; exit $$status

N ?= 2000
DIFFERENTIAL = cargo run --quiet --locked --package batchjob-tests --bin differential --

# SEED=7 plays one of them, with both histories.
differential: prerequisites kubernetes operator ## N random jobs, to Kubernetes' own Job controller and to ours, compared
	$(DIFFERENTIAL) $(if $(SEED),--seed $(SEED),--jobs $(N)); status=$$?; $(CLUSTER) sweep; exit $$status

CALENDAR = cargo run --quiet --locked --package batchjob-tests --bin calendar --

# ZONES=Europe/Berlin,Asia/Gaza asks about these alone.
calendar: prerequisites ## The slots of schedules beside robfig/cron's and those of Python's zoneinfo: all zones, 200 expressions, 20 years (hours)
	cargo run --quiet --locked --profile sim --package batchjob-tests --bin calendar -- $(if $(ZONES),--only $(ZONES))

SLOTS ?= 1000000

schedules: ## SLOTS slots of schedules in virtual time, with operators that die, views that lie and clocks that jump (an hour)
	$(SIM) --slots $(SLOTS) $(if $(MORE),--go-on) --report docs/reliability --commit $$(git rev-parse --short=12 HEAD) --date $$(date +%F)

LIVES ?= 10000000

# Then: target/sim/sim --seed N tells what happened in a case, --shrink FILE makes it small, --case FILE plays it. MORE=1 goes
# on where the last run ended.
sim: ## LIVES lives of jobs in virtual time, with everything going wrong, and every pair of faults of six (4 hours)
	$(SIM) --lives $(LIVES) $(if $(MORE),--go-on,--pairs all) --report docs/reliability --commit $$(git rev-parse --short=12 HEAD) --date $$(date +%F)

mutations: ## Deliberate bugs, and which tests see them (30 minutes)
	cargo run --quiet --locked --package batchjob-tests --bin mutations -- --report docs/reliability

FAULTS = cargo run --quiet --locked --package batchjob-tests --bin faults --

# PLAN=suspend.kill-after.7 plays one plan, with its history.
faults: prerequisites kubernetes operator ## The operator dies, is blind or gets no answer: every write, and 1,000 wrong views (60 minutes)
	$(FAULTS) $(if $(PLAN),--plan $(PLAN),--views 1000 --report docs/reliability); status=$$?; $(CLUSTER) sweep; exit $$status

CORRUPTION = cargo run --quiet --locked --package batchjob-tests --bin corruption --

# CORRUPTED=7.3 breaks the third object of the seventh round alone.
corruption: prerequisites kubernetes operator ## A thousand objects of the operator, broken in etcd, and what becomes of them (15 minutes)
	$(CORRUPTION) $(if $(CORRUPTED),--rounds 1 --cuts 0 $(subst ., --only ,--seed $(CORRUPTED)),--report docs/reliability); status=$$?; $(CLUSTER) sweep; exit $$status

FUZZ_SECONDS ?= 60
# What cargo-fuzz says on a nightly Rust, without a sanitizer: our crates have no unsafe code. With --target the flags reach
# no build script.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing

fuzz: ## Any text and any object, to each parser and to what decides on it, FUZZ_SECONDS each
	@command -v c++ > /dev/null || { echo 'libFuzzer is C++: install a compiler, on Debian with apt-get install g++' >&2; exit 1; }
	cd fuzz && RUSTFLAGS='$(FUZZ_FLAGS)' cargo build --release --locked --target $(TARGET)
	fuzz/run $(FUZZ_SECONDS) target/$(TARGET)/release

CHANGES ?= 100

leaders: prerequisites kubernetes operator ## CHANGES ends of a leader while it works: killed, stopped, cut off, robbed of its lease (10 minutes)
	cargo run --quiet --locked --package batchjob-tests --bin leaders -- --changes $(CHANGES) --report docs/reliability; status=$$?; $(CLUSTER) sweep; exit $$status

STUCK = cargo run --quiet --locked --package batchjob-tests --bin stuck --

stuck: prerequisites kubernetes operator ## Jobs that cannot go on, for every reason, and 10,000 that need nothing: what they cost (25 minutes)
	$(STUCK) --window 600 --idle 10000 --write; status=$$?; $(CLUSTER) sweep; exit $$status

# It mostly waits, so that it runs beside something else; what it says comes in one piece.
stuck-in-short:
	@mkdir -p target
	@$(STUCK) --window 45 > target/stuck.txt 2>&1 & \
	$(STUCK) --window 0 --idle 2000 > target/idle.txt 2>&1; status=$$?; \
	wait $$! || status=1; cat target/stuck.txt target/idle.txt; exit $$status

punctual: prerequisites kubernetes operator ## A thousand schedules that fire together, and 5,000 that do not: how late, and at what cost (10 minutes)
	cargo run --quiet --locked --package batchjob-tests --bin punctual; status=$$?; $(CLUSTER) sweep; exit $$status

ROUNDS ?= 4

laws: prerequisites kubernetes operator ## Which laws Kubernetes' own Job controller and ours break when they are killed (2 minutes a round)
	cargo run --quiet --locked --package batchjob-tests --bin laws -- --rounds $(ROUNDS) --write; status=$$?; $(CLUSTER) sweep; exit $$status

NODES = cargo run --quiet --locked --package batchjob-tests --bin nodes --

# CASES=lost,storm plays only these.
nodes: prerequisites kubernetes operator ## Nodes are lost, silent, drained and out of memory: what becomes of the work on them (7 minutes)
	$(NODES) $(if $(CASES),--cases $(CASES),--long --write); status=$$?; $(CLUSTER) sweep; exit $$status

left-behind: prerequisites kubernetes operator ## Everything is taken away in every order: what stays behind (2 minutes)
	REPORT=docs/reliability $(CLUSTER_TEST) --test api left_behind; status=$$?; $(CLUSTER) sweep; exit $$status

OUTAGES ?= 50
OUTAGE = cargo run --quiet --locked --package batchjob-tests --bin outages --

outages: prerequisites kubernetes operator ## The API server is away or ill in eleven ways, for up to a minute (20 minutes)
	$(OUTAGE) --outages $(OUTAGES) --write; status=$$?; $(CLUSTER) sweep; exit $$status

# The first time builds the tests, which takes ten minutes more.
upstream: prerequisites kubernetes image ## Kubernetes' own end-to-end tests of Job, on a node where the operator runs the Jobs (25 minutes)
	cargo run --locked --package batchjob-tests --bin upstream; status=$$?; $(CLUSTER) sweep; exit $$status

bench: prerequisites kubernetes operator ## Measure beside kube-controller-manager, in turn; PAGE=1 writes docs/performance.md (an hour)
	cargo run --quiet --locked --profile sim --package batchjob-tests --bin bench -- $(if $(PAGE),--page); status=$$?; $(CLUSTER) sweep; exit $$status

latency: prerequisites kubernetes image ## From kubectl apply to the container, for a BatchJob and for the same Job, on a real node
	cargo run --locked --package batchjob-tests --bin latency
