#!/bin/sh
# Builds the fuzz targets with coverage counters and the address sanitizer and runs each for a
# while, from its corpus in fuzz/corpus. A finding stops the run and lies in fuzz/artifacts.
#   sh xtask/setup/fuzz.sh [TARGET ...]     # all when none is given
#   FUZZ_SECONDS   a target, default 300
#   FUZZ_MINIMISE  1: instead of that, replace the corpus by a smallest one of the same coverage,
#                  together with what earlier runs found
# Nothing is installed: libFuzzer comes with the crate libfuzzer-sys and needs a C++ compiler.
# RUSTC_BOOTSTRAP lets the stable compiler take the one unstable flag, the sanitizer's.
set -eu
cd "$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)/fuzz"
host=$(rustc -vV | sed -n 's/^host: //p')
[ $# -gt 0 ] || set -- descriptors runs blocks weights configs
"${CXX:-c++}" --version >/dev/null 2>&1 || { echo "fuzz: a C++ compiler is missing (${CXX:-c++})" >&2; exit 3; }

flags='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4'
for arg in inline-8bit-counters pc-table trace-compares; do
  flags="$flags -Cllvm-args=-sanitizer-coverage-$arg"
done
# --target keeps the flags away from build scripts.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags -Zsanitizer=address --cfg fuzzing" CARGO_TARGET_DIR=target \
  cargo build --release --locked --target "$host" --bins

export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_odr_violation=0:allocator_may_return_null=1}" DGM_NUM_THREADS="${DGM_NUM_THREADS:-2}"
for name in "$@"; do
  program=target/$host/release/$name
  found=target/corpus/$name
  mkdir -p "$found" "artifacts/$name" "corpus/$name"
  if [ -f "$name.dict" ]; then dict="-dict=$name.dict"; else dict=; fi
  if [ "${FUZZ_MINIMISE:-0}" = 1 ]; then
    rm -rf target/minimal && mkdir -p target/minimal
    "$program" -merge=1 -max_len=4096 target/minimal "corpus/$name" "$found"
    rm -rf "corpus/$name" && mv target/minimal "corpus/$name"
    continue
  fi
  echo "fuzz: $name, ${FUZZ_SECONDS:-300} s"
  # shellcheck disable=SC2086 # no dictionary is no argument
  "$program" $dict -max_total_time="${FUZZ_SECONDS:-300}" -max_len=4096 -timeout=20 -rss_limit_mb=3000 -malloc_limit_mb=2000000000 \
    -print_final_stats=1 -verbosity=0 -artifact_prefix="artifacts/$name/" "$found" "corpus/$name"
done
echo "fuzz: clean"
