# Thin on purpose: every target is a command you could type. GNU make 3.81 is enough.
.NOTPARALLEL:
.PHONY: help setup build demo test test-rust test-isa test-c test-julia test-panic-library test-elixir test-docs \
        header bench limits doors plot gallery peers-attention peers-sampling peers-forward stress exhaustive sabotage check-numerics check-dlpack check-targets fuzz install clean

TOOLCHAIN := $(if $(DGM_TOOLCHAIN_DIR),$(DGM_TOOLCHAIN_DIR),$(CURDIR)/.toolchain)
export DGM_TOOLCHAIN_DIR := $(TOOLCHAIN)
export PATH := $(TOOLCHAIN)/bin:$(PATH):$(HOME)/.cargo/bin

TARGET  := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
PREFIX  ?= /usr/local
DESTDIR ?=

# `make demo DOORS=rust,c` needs neither Julia nor Elixir.
comma := ,
TOOLS := rust cc $(if $(DOORS),$(filter julia elixir,$(subst $(comma), ,$(DOORS))),julia elixir)

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

setup: ## Provide Julia, Elixir and a C compiler where they are missing (.toolchain)
	@sh xtask/setup/setup.sh $(TOOLS)

# Without -p: then every command below, and mix, finds the engine built with the same features.
build: ## Build the engine, libdgm and the NIF (release)
	cargo build --release

demo: setup build ## Draw 64 digits through every door (SEED STEPS LABELS N DOORS)
	@export COLUMNS=$$(tput cols 2>/dev/null) LINES=$$(tput lines 2>/dev/null); \
	cargo run -q --release --bin xtask -- demo

test: TOOLS += clang valgrind
test: setup ## Run the tests of all languages, sum them up
	@sh xtask/setup/test.sh rust c julia elixir docs

test-rust: ## Format, lints, unit tests and doctests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace --no-fail-fast

test-isa: ## The Rust tests once per instruction set of this machine (DGM_ISA)
	@for isa in $$(sh xtask/setup/isa-levels.sh); do \
	  echo "DGM_ISA=$$isa"; DGM_ISA=$$isa cargo test --workspace || exit 1; \
	done

test-c: build test-panic-library ## The C tests: C11 and C++17, gcc and clang, sanitizers, valgrind, panic fence
	sh tests/c/run.sh

test-panic-library: # libdgm with an entry that panics, away from the real one
	cargo build --workspace --lib --features dgm-capi/test-panic
	@mkdir -p $(TARGET)/test-panic
	@for lib in $(TARGET)/debug/libdgm.so $(TARGET)/debug/libdgm.dylib; do \
	  if [ -f $$lib ]; then cp $$lib $(TARGET)/test-panic/; fi; \
	done

check-dlpack: build ## numpy and torch buffers passed to libdgm by DLPack (PYTHON with both)
	$(or $(PYTHON),python3) tests/peers/dlpack.py

test-julia: build test-panic-library ## The tests of the Julia package
	env -u DGM_LIBRARY DGM_TEST_PANIC=$(TARGET)/test-panic julia --project=julia julia/test/runtests.jl

stress: build ## Threads, garbage collection and memory under load (STRESS_SECONDS)
	sh capi/cc.sh tests/c/stress.c target/c-tests/stress && target/c-tests/stress $(or $(STRESS_SECONDS),60)
	env -u DGM_LIBRARY STRESS_SECONDS=$(or $(STRESS_SECONDS),60) julia --threads 4 --project=julia julia/stress/stress.jl
	cd elixir && STRESS_SECONDS=$(or $(STRESS_SECONDS),60) mix run stress/stress.exs

test-elixir: ## The tests of the Elixir package
	cd elixir && mix format --check-formatted && mix test

test-docs: build ## Header, bindings, README code blocks and layering are in step
	cargo run -q --release --bin xtask -- check

header: ## Regenerate include/dgm.h and the Julia bindings
	cargo run -q --release --bin xtask -- header

plot: ## Draw a plan as SVG (KIND=grid|line|plane OUT=file PLAN="solver=heun steps=10")
	cargo run -q --release -p dgm-plots -- $(or $(KIND),grid) $(or $(OUT),out/plot.svg) $(PLAN)

gallery: build ## Write docs/GALLERY.md: a dozen samplers on toy data in the plane (DOOR=rust|c|julia|elixir draws them)
	@DOOR=$(DOOR) cargo run -q --release --bin xtask -- gallery

bench: ## Time the kernels with criterion
	cargo bench -p dgm-benches

limits: ## The kernels as a share of the FMA peak or the read bandwidth (CASES)
	cargo run -q --release -p dgm-benches --bin limits

doors: build ## The same four calls from Rust, C, Julia and Elixir: what a door costs
	@cargo run -q --release -p dgm-benches --bin doors
	@sh capi/cc.sh benches/doors/doors.c target/doors && target/doors
	@julia --project=julia benches/doors/doors.jl
	@cd elixir && mix run ../benches/doors/doors.exs

peers-attention: ## Attention beside PyTorch, OpenVINO, ONNX Runtime, JAX, ggml, candle, burn (ARGS="--quick", PEERS_VENV)
	$(or $(PYTHON),python3) benches/peers/run.py attention $(ARGS)

peers-sampling: ## Sampler steps and random numbers beside PyTorch (ARGS, PEERS_VENV)
	$(or $(PYTHON),python3) benches/peers/run.py sampling $(ARGS)

peers-forward: ## Linear layers, memory-bound kernels and whole DiTs beside PyTorch, OpenVINO, ONNX Runtime, BLAS and Rust libraries (ARGS, PEERS_VENV)
	$(or $(PYTHON),python3) benches/peers/run.py forward $(ARGS)

exhaustive: ## Check every f32 input of the math functions (minutes)
	cargo test --release -p dgm-core -- --ignored exhaustive

sabotage: ## Break promises one by one in a scratch copy; a named test must catch each (ONLY=name)
	sh tests/conformance/sabotage.sh $(ONLY)

check-numerics: build ## Compare docs/NUMERICS.md, reimplemented in numpy, with the published hashes (PYTHON)
	$(or $(PYTHON),python3) tests/numerics/reimplement.py
	$(or $(PYTHON),python3) tests/numerics/against_library.py

fuzz: ## Feed hostile bytes to descriptors, runs, blocks, model files and their settings (FUZZ_SECONDS a target, 300; TARGETS)
	@sh xtask/setup/fuzz.sh $(TARGETS)

check-targets: ## Test aarch64 Linux under qemu, type-check macOS, iOS, Android (root; minutes)
	@sh xtask/setup/targets.sh

install: ## Install libdgm, dgm.h, its module map, dgm.pc and the CMake config (PREFIX, DESTDIR)
	cargo build --release -p dgm-capi
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh xtask/setup/install.sh

clean: ## Remove build outputs (the toolchain folder stays)
	cargo clean
	rm -rf elixir/_build out
