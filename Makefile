# plyfs: `make help` lists what there is to do.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX ?= /usr/local
# Where mount(8) looks for helpers.
SBINDIR ?= /sbin
DESTDIR ?=
# Where the programs are built, and installed from.
BIN ?= bin
GO ?= go
LDFLAGS := -s -w -X main.version=$(VERSION)
# Where the program fuse-overlay begins: cmd/fuse-overlay/front.go.
FRONT := $(if $(filter linux/amd64,$(shell $(GO) env GOOS GOARCH | paste -sd/)),-E main.entry)
LINT := bin/tools/golangci-lint
# The packages whose tests take longest begin first, so that no processor is idle at the end.
TESTS := ./fuse-overlay ./store ./tests/conformance ./internal/layertar ./tests/interop ./tests/mountprogram ./fsview/fusefs ./...
# How long `make fuzz` spends on each fuzz target.
FUZZTIME ?= 20s
# How long each of the three stresses of `make test-long` works on a mount.
STRESSTIME ?= 200s
# For `make bench-streams`: -rounds 9, -slopes 1000000, -only apply, …
# For `make bench-overlay`: -on tmpfs, -only untar,find, -rounds 3, -with kernel,ours, -write docs/benchmarks.md, … (with none it measures
# all, for hours, and writes docs/benchmarks.md)
BENCHFLAGS ?=

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## build, make a private demo store, mount it and show a short tour
	@scripts/need.sh run
	@$(MAKE) --no-print-directory build-binary
	@scripts/run.sh

.PHONY: stop
stop: ## unmount the demo and remove its store
	@scripts/stop.sh

.PHONY: test
test: ## unit tests under the race detector, and those that mount
	@scripts/need.sh test
	@$(MAKE) --no-print-directory build-binary
	@$(GO) run ./tests/report -- $(GO) test -race -timeout 15m $(TESTS)

.PHONY: test-long
test-long: ## the same with the long runs (hours: ten minutes of stress, more cases), and the stress of a fuse-overlay built with -race
	@scripts/need.sh test
	@$(MAKE) --no-print-directory build-binary
	@PLYFS_LONG=1 PLYFS_STRESS=$(STRESSTIME) $(GO) run ./tests/report -- $(GO) test -race -count 1 -timeout 120m ./...
	@$(MAKE) --no-print-directory test-stress-race

.PHONY: test-stress-race
test-stress-race: ## only the stress of a fuse-overlay built with -race, which fails at its first report
	@scripts/need.sh test
	@CGO_ENABLED=1 $(GO) build -race -o $(BIN)/race/ ./cmd/fuse-overlay
	@PLYFS_FUSE_OVERLAY=$(abspath $(BIN)/race/fuse-overlay) PLYFS_STRESS=$(STRESSTIME) \
		$(GO) run ./tests/report -- $(GO) test -count 1 -timeout 60m -run '^(TestFsx|TestTrees|TestStressNG)$$' ./tests/conformance

.PHONY: test-interop
test-interop: ## only the tests that run podman, buildah, skopeo and containers-storage
	@scripts/need.sh test
	@$(MAKE) --no-print-directory build-binary
	@$(GO) run ./tests/report -- $(GO) test -race -timeout 15m ./tests/...

.PHONY: test-race
test-race: ## every test ten times under the race detector
	@scripts/need.sh test
	@$(MAKE) --no-print-directory build-binary
	@$(GO) run ./tests/report -- $(GO) test -race -count 10 -timeout 60m ./...

.PHONY: bench
bench: ## benchmarks; timings are reported, never asserted
	@scripts/need.sh test
	@$(MAKE) --no-print-directory build-binary
	@$(GO) test -run '^$$' -bench . -benchmem -timeout 60m ./...

.PHONY: bench-streams
bench-streams: ## layers in and out beside containers-storage, tar, gzip, zstd and cat
	@scripts/need.sh test
	@$(MAKE) --no-print-directory build-binary
	@$(GO) run ./tests/streambench $(BENCHFLAGS)

.PHONY: bench-overlay
bench-overlay: ## fuse-overlay beside the kernel's overlay, fuse-overlayfs, OVERLAY_PEERS, a bare loopback; into docs/benchmarks.md
	@scripts/need.sh test
	@$(MAKE) --no-print-directory build-binary
	@$(GO) build -o bin/tools/overlaybench ./tests/overlaybench
	@bin/tools/overlaybench $(BENCHFLAGS)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (20s)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: $(LINT) ## gofmt, go vet and golangci-lint
	@$(GO) vet ./...
	@$(GO) vet -tags docs ./cmd/...
	@$(LINT) run ./...

.PHONY: cross
cross: ## build and vet the library and its wrapper for darwin, freebsd and windows
	@scripts/cross.sh

# Built from source, at the version that tools/go.mod pins.
$(LINT): tools/go.mod tools/go.sum
	@echo "building golangci-lint (once; takes minutes)"
	@$(GO) -C tools build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

.PHONY: build
build: build-binary docs ## binaries and generated documents

.PHONY: build-binary
build-binary: ## static binaries into bin/
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS) $(FRONT)' -o $(BIN)/ ./cmd/fuse-overlay

.PHONY: install
install: build-binary ## programs, manual pages and completions into DESTDIR/PREFIX (default /usr/local)
	@BIN=$(BIN) DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) SBINDIR=$(SBINDIR) scripts/install.sh

.PHONY: docs
docs: ## man pages from the commands, into docs/man
	@mkdir -p docs/man && rm -f docs/man/*.1
	@$(GO) run -tags docs ./cmd/plyfs docs docs/man
	@$(GO) run -tags docs ./cmd/containers-storage docs docs/man
	@$(GO) run -tags docs ./cmd/fuse-overlay docs docs/man

.PHONY: clean
clean: stop ## remove what make made
	@rm -rf bin coverage.out
	@echo "removed bin/"
