# `make` prints what there is. The logic is Go; this is a list of commands.

SHELL       := /bin/sh
.DEFAULT_GOAL := help
# Steps build on each other, also under -j.
.NOTPARALLEL:
.PHONY: help demo test check bench fuzz crash soak mutants build web setup image hil hil-part hil-disk powercut hil-setup load

HTTP        ?= 127.0.0.1:8080
DATA        ?= data/demo
FUZZTIME    ?= 30s
BENCH       ?= .
BOARD       ?= amd64
N           ?= 100
SEED        ?= 0
DAYS        ?= 365
LOADTIME    ?= 30s
DEBUG       ?=
# Packages whose short tests run under the race detector, where there is a C
# compiler. It does not watch SQLite, translated from C: that took half of the time.
RACE        ?= ./nvr/media ./nvr/mp4 ./nvr/camera/... ./nvr/record ./nvr/db ./nvr/store/... ./nvr/access \
	./nvr/web ./appliance/...
RACEFLAGS   ?= -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false

# The recorder is pure Go, and is tested as it is built.
export CGO_ENABLED := 0
# Stamp the version where git can be asked: it refuses another user's clone.
ifeq ($(shell git rev-parse HEAD 2>/dev/null),)
export GOFLAGS := $(GOFLAGS) -buildvcs=false
endif

# Of a clone of another user too, which git would refuse.
VERSION = $(shell git -c safe.directory='$(CURDIR)' describe --tags --always --dirty --abbrev=12 2>/dev/null)

# What tests need beside Go, Node and make: program (or file):package.
NEEDS := ffmpeg:ffmpeg ffprobe:ffmpeg chromium:chromium strace:strace curl:curl mke2fs:e2fsprogs ip:iproute2
# What the lab needs beside that.
HIL_NEEDS := qemu-system-x86_64:qemu-system-x86 qemu-system-aarch64:qemu-system-arm qemu-io:qemu-utils \
	/usr/share/OVMF/OVMF_CODE_4M.fd:ovmf debugfs:e2fsprogs mcopy:mtools zstd:zstd

help:
	@echo 'make demo    build everything, record two emulated cameras, print the address to open'
	@echo 'make test    every test, of the lab a part; installs the Debian packages it needs and says so'
	@echo 'make check   the fast part: vet, house rules, unit tests'
	@echo 'make hil     the whole lab: the images in QEMU, faults included; takes an hour'
	@echo 'make hil-part  of it what make test runs: the three lanes and twelve power cuts'
	@echo 'make hil-disk  faults of the disks with footage and database: errors, stalls, room, pulled out'
	@echo 'make powercut  power cuts of one disk and of two, and what they cost  (N=100 SEED=0: by chance)'
	@echo 'make bench   benchmarks                        (BENCH=pattern)'
	@echo 'make fuzz    each fuzz target for a while      (FUZZTIME=30s)'
	@echo 'make crash   power cuts, faults and kills at every operation, in hours  (N=100 SEED=0: random subsets at each moment)'
	@echo 'make load    a thousand tries to sign in a second and slow readers, and what they cost  (LOADTIME=30s)'
	@echo 'make soak    a year of faults, simulated, in hours  (DAYS=365 SEED=0: by chance)'
	@echo 'make mutants  storage broken on purpose, and the tests that see it'
	@echo 'make build   bin/nvr, from the web interface as committed'
	@echo 'make image   out/holdfast-BOARD-VERSION.img.zst  (BOARD=amd64 or rpi4, DEBUG=1 for a shell)'
	@echo 'make web     the web interface: webui/src to webui/dist'
	@echo 'make setup   only install what tests need'

demo: web build
	exec bin/nvr demo -data $(DATA) -http $(HTTP)

build:
	go build -trimpath -ldflags '-X main.stamp=$(VERSION)' -o bin/nvr ./nvr/cmd/nvr

# Of the web interface as committed: an image needs no Node.
image:
	go run ./gokrazy-config/mkimage -board $(BOARD) $(if $(filter 1,$(DEBUG)),-debug)

web: webui/node_modules/.package-lock.json
	cd webui && npm run build

webui/node_modules/.package-lock.json: webui/package.json webui/package-lock.json
	cd webui && npm ci --no-audit --no-fund
	@touch $@

# dist is committed, so its test comes before anything could rebuild it.
test: setup webui/node_modules/.package-lock.json
	cd webui && npm test
	$(MAKE) build
	cd webui && NVR_BIN="$(CURDIR)/bin/nvr" npm run test:browser
	go vet ./...
	go test -vet=off -timeout 40m ./...
	@if command -v "$$(CGO_ENABLED=1 go env CC)" >/dev/null && [ "$$(CGO_ENABLED=1 go env CGO_ENABLED)" = 1 ]; then \
		echo 'go test -race -short -vet=off -timeout 30m $(RACE)'; \
		CGO_ENABLED=1 go test -race $(RACEFLAGS) -short -vet=off -timeout 30m $(RACE); \
	else \
		echo 'no C compiler: the race detector is left out (apt-get install gcc libc6-dev)'; \
	fi
	$(MAKE) hil-part

# Boots machines in QEMU, one after the other: nothing else should run beside.
HIL = go test -count 1 -v -run '$(HIL_RUN)'
HIL_RUN ?= .

hil: hil-setup
	$(HIL) -timeout 3h ./test/hil -hil all

# The three lanes and twelve power cuts: eight minutes on two cores.
hil-part: hil-setup
	$(HIL) -timeout 40m ./test/hil -hil part -cuts 12

# What a disk does to the footage on it, or to the database. A damaged database, its log
# that is not written, a dead journal and stalls took 27 minutes of it on two busy cores.
hil-disk: hil-setup
	$(HIL) -timeout 3h ./test/hil -hil disk

# Half of them of one disk, half with the database on one and footage on another.
powercut: hil-setup
	go test -count 1 -v -timeout 48h -run '^TestPowerCutCosts' ./test/hil -hil all -cuts $(N) -seed $(SEED)

check:
	go vet ./...
	go test -short -vet=off -timeout 5m ./...

bench: setup
	go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m ./...

# At every moment of every scenario, with N random subsets of what is not synced;
# between any two operations of SQLite; with each operation of a directory and of
# SQLite failing; and the recorder
# killed at each of its first 300 calls.
crash:
	go test -count 1 -v -timeout 24h -run '^TestPowerCutCosts|^TestEveryOperation|^TestFaultsUnder' ./nvr/store -every -subsets $(N) -seed $(SEED)
	go test -count 1 -v -timeout 24h -run '^TestEveryOperationOfSQLite|^TestPowerCutInAn' ./nvr/db -every -seed $(SEED)
	go test -count 1 -v -timeout 2h -run '^TestKilledAtAnyCall' ./nvr/cmd/nvr -every-kill

# A table of each day as it goes; the first thing that does not hold ends it.
soak:
	go test -count 1 -v -timeout 48h -run '^TestDaysOfFaults$$' ./nvr/store -days $(DAYS) -seed $(SEED)

# The recorder as a process of its own, with emulated cameras. It prints what it saw.
load:
	go test -count 1 -v -timeout 1h -run '^TestRecordingGoesOnUnderLoad$$' ./nvr/cmd/nvr -load $(LOADTIME) -logins 1000 -readers 200 -load-seed $(SEED)

mutants:
	go test -count 1 -v -timeout 6h -run '^TestMutantsAreCaught$$' ./nvr -mutants

fuzz:
	@set -e; for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "go test -fuzz '^$$f\$$' -fuzztime $(FUZZTIME) $$p"; \
			go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
		done; \
	done

hil-setup:
	@$(MAKE) --no-print-directory setup NEEDS='$(HIL_NEEDS)'

# Installs as root or by a sudo that asks nothing; otherwise prints the one
# command and stops.
setup:
	@PATH="$$PATH:/usr/sbin:/sbin"; missing=; \
	for need in $(NEEDS); do \
		command -v "$${need%%:*}" >/dev/null || [ -e "$${need%%:*}" ] || case " $$missing " in \
			*" $${need##*:} "*) ;; *) missing="$${missing:+$$missing }$${need##*:}";; esac; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	as=; [ "$$(id -u)" = 0 ] || as='sudo -n'; \
	if command -v apt-get >/dev/null && { [ -z "$$as" ] || sudo -n true 2>/dev/null; }; then \
		echo "setup: the tests need Debian packages that are missing; installing: $$missing"; \
		$$as apt-get update -q && $$as env DEBIAN_FRONTEND=noninteractive \
			apt-get install -q -y --no-install-recommends $$missing; \
	else \
		echo "setup: the tests need Debian packages that are missing: $$missing" >&2; \
		echo "setup: install them, then run make again:" >&2; \
		echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $$missing" >&2; \
		exit 1; \
	fi
