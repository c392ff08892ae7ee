# The commands of this house; `make` lists them. Every target installs what it needs
# through scripts/setup.sh and works in a fresh clone.

GO      ?= go
FUZZTIME ?= 20s
# Tests start programs that go knows nothing of (ffmpeg, Chromium, the command itself),
# so an "ok" of yesterday is not kept. Each bounds its own waiting; a bound on all of a package
# would judge how slow the machine is.
TESTFLAGS ?= -count=1 -timeout=30m
# PACKAGES narrows what test, race, bench and cover run on.
PACKAGES ?= ./...

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# gofumpt and staticcheck, as tools/go.mod pins them.
TOOL := $(GO) tool -modfile=tools/go.mod

# Everything is built as it is released, without cgo (but for the race detector, which needs it) and
# without this folder's name, so that lint, tests and program share what is compiled.
export CGO_ENABLED := 0
export GOFLAGS := $(strip $(GOFLAGS) -trimpath)

# The version is stamped by -ldflags, not by go's own reading of the repository,
# which fails where the clone belongs to another user.
BUILD := $(GO) build -buildvcs=false

# What is only to compile takes a third less time if nothing is inlined.
COMPILE := $(BUILD) -gcflags=all=-l

# The playback tests spend their time in a browser and in a binary that is built without the race
# detector: there it finds nothing. What measures is no part of the product.
UNRACED := /internal/playback$$|/bench/

# How many packages are tested at once: most tests wait, for servers and for time.
ATONCE := $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 4 ? 4 : n)))

# The linker leaves out what only a debugger reads: half of its time, in each of the tests' programs.
LINK := -ldflags=-s

# What is tested when nothing else is: a browser that gets no processor for a while stalls,
# and the tests take that for the stream's fault.
ALONE := /internal/playback$$

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## install, build and transcode a real clip; CLIP=path takes yours
	@scripts/demo.sh

.PHONY: test
test: ## run every test, on the built program, in ffmpeg and in a browser
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	@others=$$($(GO) list $(PACKAGES) | grep -v '$(ALONE)'); alone=$$($(GO) list $(PACKAGES) | grep '$(ALONE)'); status=0; \
	for set in "$$others" "$$alone"; do \
		if [ -n "$$set" ]; then $(GO) test -p $(ATONCE) $(LINK) $(TESTFLAGS) $$set || status=1; fi; \
	done; exit $$status

.PHONY: check
check: ## what CI runs before the tests: format, vet, lint, tidy, cross-builds, race
	@$(MAKE) --no-print-directory lint
	$(GO) mod tidy -diff
	$(GO) -C tools mod tidy -diff
	$(GO) -C testdata/outside mod tidy -diff
	$(GO) -C tools/natsserver mod tidy -diff
	$(GO) -C tools/s5cmd mod tidy -diff
	$(GO) -C tools/versitygw mod tidy -diff
	$(GO) -C bench/engine/rabbit mod tidy -diff
	$(GO) -C bench/engine/rabbit vet .
	$(GO) -C bench/engine/rabbit test $(TESTFLAGS) .
	GOOS=darwin GOARCH=arm64 $(COMPILE) ./...
	GOOS=linux GOARCH=arm64 $(COMPILE) ./...
	@$(MAKE) --no-print-directory race

.PHONY: build
build: ## build bin/myrmidon, static and stamped with its version
	$(BUILD) -ldflags '-X main.version=$(VERSION)' -o bin/myrmidon ./cmd/myrmidon

.PHONY: race
race: ## run the tests with the race detector, but for the long ones and the browser's
	@scripts/setup.sh check
	CGO_ENABLED=1 $(GO) test -p $(ATONCE) $(LINK) -race -short $(TESTFLAGS) $$($(GO) list $(PACKAGES) | grep -vE '$(UNRACED)')

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (20s)
	@scripts/setup.sh runtime
	@GO='$(GO)' scripts/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: ## gofumpt, go vet and staticcheck; no marks of a merge
	@if git rev-parse --is-inside-work-tree >/dev/null 2>&1 && git grep -nE '^(<<<<<<<|>>>>>>>) ' >&2; then \
		printf 'these are marks of a merge conflict: resolve it\n' >&2; exit 1; \
	fi
	@unformatted=$$($(TOOL) gofumpt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then \
		printf 'not formatted as gofumpt has it (make format does it):\n%s\n' "$$unformatted" >&2; exit 1; \
	fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	cd bench/engine/rabbit && $$($(GO) -C ../../.. tool -modfile=tools/go.mod -n staticcheck) .

.PHONY: format
format: ## format all Go files with gofumpt
	$(TOOL) gofumpt -w .

.PHONY: bench-transcode
bench-transcode: ## measure transcode against plain ffmpeg, interleaved, in one run
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory build
	$(GO) run ./bench/transcode

.PHONY: bench-engine
bench-engine: ## measure the queue against RabbitMQ's quorum queues, in one run
	@scripts/setup.sh bench-engine
	$(GO) run ./bench/engine

# What make bench-clone is given, such as -quick, or -large for a million objects.
CLONE ?=

.PHONY: bench-clone
bench-clone: ## measure clone and du against s5cmd, rclone and awscli on a stub of S3, in one run
	@scripts/setup.sh bench-clone
	$(GO) run ./bench/clone $(CLONE)

# What make bench-haproxy is given, such as -quick.
HAPROXY ?=

.PHONY: bench-haproxy
bench-haproxy: ## measure haproxy against a program that only reads the sockets, and the daemon, in one run
	@scripts/setup.sh bench-haproxy
	$(GO) run ./bench/haproxy $(HAPROXY)

# What make bench-logs is given, such as -quick, or -large for an object of 10 GB.
LOGS ?=

.PHONY: bench-logs
bench-logs: ## measure logs: lines parsed, acknowledged shipping against plain TCP, and memory, in one run
	@scripts/setup.sh bench-logs
	$(GO) run ./bench/logs $(LOGS)

# What make torture is given: a run takes about 20 s.
TORTURE ?= -runs 100

.PHONY: torture
torture: ## kill, stop and cut off workers, owners and brokers, and look for what is lost; TORTURE='-runs 3 -seed 7'
	@scripts/setup.sh torture
	$(GO) run ./bench/torture $(TORTURE)

.PHONY: bench
bench: ## run the Go benchmarks
	@scripts/setup.sh bench
	$(GO) test -run '^$$' -bench . -benchmem $(PACKAGES)

.PHONY: cover
cover: ## run every test and write out/cover.html
	@scripts/setup.sh test
	@mkdir -p out
	$(GO) test $(TESTFLAGS) -coverpkg=./... -coverprofile=out/cover.out $(PACKAGES)
	$(GO) tool cover -html=out/cover.out -o out/cover.html
	@$(GO) tool cover -func=out/cover.out | tail -n 1

.PHONY: clean
clean: ## remove all that these commands made: bin, out, .cache, node_modules
	rm -rf bin out .cache internal/playback/node_modules internal/testkit/kinesalite/node_modules
