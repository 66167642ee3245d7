#!/bin/sh
# Compiles the C tests and the examples without a warning, runs the tests, checks the exported
# names. Needs `cargo build --release -p dgm-capi`. The last line is `c: N passed, N failed`.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH='' cd -- "$here/../.." && pwd)
cd "$root" || exit 1
target=${CARGO_TARGET_DIR:-$root/target}
out=$target/c-tests
passed=0 failed=0

ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "c: $1" >&2; }

for source in tests/c/test_*.c; do
  name=$(basename "$source" .c)
  if ! sh capi/cc.sh "$source" "$out/$name"; then bad "$name does not compile"; continue; fi
  text=$("$out/$name")
  status=$?
  echo "$text"
  # shellcheck disable=SC2046 # two numbers
  set -- $(echo "$text" | sed -n 's/^[a-z_]*: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p')
  if [ $# != 2 ]; then bad "$name stopped with status $status"; continue; fi
  passed=$((passed + $1)) failed=$((failed + $2))
done

for source in capi/examples/*.c; do
  [ -f "$source" ] || continue
  if sh capi/cc.sh "$source" "$out/$(basename "$source" .c)"; then ok; else bad "$source does not compile"; fi
done

# The header is also C++.
if command -v "${CXX:-c++}" >/dev/null 2>&1; then
  cat >"$out/header.cpp" <<'CPP'
#include <dgm.h>
int main() { return dgm_abi_version() == DGM_ABI_VERSION ? 0 : 1; }
CPP
  if sh capi/cc.sh "$out/header.cpp" "$out/header" && "$out/header"; then ok; else bad "the header is not C++"; fi
fi

# Exported are exactly the functions of the header.
if [ -f "$target/release/libdgm.so" ]; then
  nm -D --defined-only "$target/release/libdgm.so" | awk '$2 == "T" || $2 == "D" || $2 == "B" { print $3 }' | sort >"$out/exported"
  sed -n 's/^[a-z][a-z0-9_ *]*[ *]\(dgm_[a-z0-9_]*\)(.*/\1/p' include/dgm.h | sort >"$out/declared"
  if diff "$out/declared" "$out/exported" >&2; then ok; else bad "exported and declared names differ"; fi
fi

echo "c: $passed passed, $failed failed"
[ "$failed" = 0 ]
