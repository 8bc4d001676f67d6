# Everything a developer types. `make help` lists it.

GO      ?= go
RUN     ?= .run
GOFLAGS_RELEASE = -trimpath -ldflags '-s -w'
# A device's programs speak HTTP/1.1 to the technician alone and trace no gRPC: 3 MB less to load, and to keep in memory.
GOFLAGS_DEVICE = -tags grpcnotrace,nethttpomithttp2
PROGRAMS = twinbay twinbay-modules twinbay-sim
export CGO_ENABLED = 0

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.PHONY: build
build: ## build the three programs into bin/
	$(GO) build $(GOFLAGS_RELEASE) $(GOFLAGS_DEVICE) -o bin/ ./cmd/twinbay ./cmd/twinbay-modules
	$(GO) build $(GOFLAGS_RELEASE) -o bin/ ./cmd/twinbay-sim

.PHONY: run
run: build ## the vending machine: a simulated hub and machine, and the agent with three modules; Ctrl-C ends it
	@mkdir -p $(RUN) && chmod 700 $(RUN)
	@cp firmware-configs/vending-machine/demo.toml $(RUN)/device.toml
	@bin/twinbay-sim serve --dir $(RUN) --mqtt-port 0 --https-port 0 --seed firmware-configs/vending-machine/seed.toml \
	  --print-events --hint firmware-configs/vending-machine/next-steps.txt \
	  -- sh -c 'exec bin/twinbay run --config $(RUN)/device.toml --hub-address "$$HUB_IP:$$MQTT_PORT" 2>$(RUN)/twinbay.log'

.PHONY: run-full
run-full: build ## the same machine with its spirals and its supply: try `bin/twinbay method vend vend '{"txId":"1","slot":2}'`
	@mkdir -p $(RUN) && chmod 700 $(RUN)
	@cp firmware-configs/vending-machine/full.toml $(RUN)/device.toml
	@bin/twinbay-sim serve --dir $(RUN) --mqtt-port 0 --https-port 0 --seed firmware-configs/vending-machine/full-seed.toml --print-events \
	  -- sh -c 'exec bin/twinbay run --config $(RUN)/device.toml --hub-address "$$HUB_IP:$$MQTT_PORT" 2>$(RUN)/twinbay.log'

.PHONY: test
test: ## all tests
	$(GO) test ./...

.PHONY: race
race: ## the tests that are not long, with the race detector (needs a C compiler)
	GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 $(GO) test -race -short ./... # else each command that a test runs waits a second at its end

SEED ?= 1
FOR  ?= 1m
.PHONY: torture
torture: torture-virtual torture-processes ## whatever can happen to a device, by a seed, for FOR in virtual time and for FOR to real processes: SEED=1 FOR=1m; see docs/torture.md

.PHONY: torture-virtual
torture-virtual:
	@echo "torture: seed $(SEED) and on, for $(FOR)"
	$(GO) test ./agent -count 1 -run '^TestTorture$$' -torture.seed $(SEED) -torture.for $(FOR)

TORTURE = $(RUN)/torture
.PHONY: torture-processes
torture-processes:
	@mkdir -p $(TORTURE)
	$(GO) build -tags torture -o $(TORTURE)/ ./cmd/twinbay
	$(GO) build -o $(TORTURE)/ ./cmd/twinbay-modules ./cmd/twinbay-sim
	$(GO) run ./cmd/smoke -bin $(TORTURE) -torture $(SEED) -for $(FOR)

SOAK ?= 10m
.PHONY: soak
soak: build ## the vending machine under load for SOAK=10m: no process may grow in memory or open files
	$(GO) run ./cmd/smoke -bin bin -soak $(SOAK)

.PHONY: check
check: ## format, vet, and that go.mod is tidy
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt'ed: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: smoke
smoke: build ## start the built programs and check from outside what the README promises, a line each
	$(GO) run ./cmd/smoke -bin bin

NODE = simulator/conformance/node
$(NODE)/node_modules/.package-lock.json: $(NODE)/package.json $(NODE)/package-lock.json
	cd $(NODE) && npm ci --prefer-offline --loglevel=error
	@touch $@

.PHONY: conformance
conformance: build $(NODE)/node_modules/.package-lock.json ## the unmodified official Node.js SDKs, and Azurite, against twinbay-sim (needs node and npm); ONLY=text picks cases
	TWINBAY_AZURITE=$(CURDIR)/$(NODE)/node_modules/.bin/azurite-blob $(GO) test ./simulator/blobs ./cmd/twinbay-sim
	@mkdir -p $(RUN)
	@bin/twinbay-sim serve --dir $(RUN)/conformance --listen 127.0.0.1 --host-name conformance.twinbay.test --mqtt-port 0 --https-port 0 --no-rig -- \
	  sh -c 'NODE_EXTRA_CA_CERTS=$$CA_FILE exec node --require ./$(NODE)/redirect.cjs $(NODE)/run.js "$(ONLY)"'

.PHONY: bench
bench: build ## the figures of docs/figures.md, each beside its target, and the Go benchmarks; ONLY=idle picks parts and no benchmarks
	$(GO) run ./cmd/smoke -bin bin -bench -only "$(ONLY)"
	@test -n "$(ONLY)" || $(GO) test -run '^$$' -bench . -benchtime 0.3s ./...

.PHONY: cross
cross: ## build all programs for every supported board, without cgo, and print their sizes
	@printf '%-8s' board; for p in $(PROGRAMS); do printf '%18s' $$p; done; echo
	@set -e; for t in linux/arm64 linux/arm/7 linux/arm/6 linux/riscv64 linux/amd64; do \
	  os=$${t%%/*}; rest=$${t#*/}; arch=$${rest%%/*}; arm=; [ "$$rest" = "$$arch" ] || arm=$${rest#*/}; \
	  dir=dist/$$arch$${arm:+v$$arm}; printf '%-8s' $$arch$${arm:+v$$arm}; \
	  export GOOS=$$os GOARCH=$$arch GOARM=$$arm; \
	  $(GO) build $(GOFLAGS_RELEASE) $(GOFLAGS_DEVICE) -o $$dir/ ./cmd/twinbay ./cmd/twinbay-modules; \
	  $(GO) build $(GOFLAGS_RELEASE) -o $$dir/ ./cmd/twinbay-sim; \
	  for p in $(PROGRAMS); do printf '%13d KiB ' $$(( $$(stat -c %s $$dir/$$p) / 1024 )); done; echo; done

.PHONY: clean
clean: ## remove what was built and what a run left
	rm -rf bin dist $(RUN)
