#!/bin/sh
# The C tests: every program with the default compiler; then as C11 and C++17 with gcc and clang,
# under the sanitizers and under valgrind (see one.sh), as far as these are installed; the examples;
# the panic fence; the exported names; three seconds of stress. Needs `make build test-panic-library`.
# The last line is `c: N passed, N failed`, where a program run in another way counts as one.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH='' cd -- "$here/../.." && pwd)
cd "$root" || exit 1
target=${CARGO_TARGET_DIR:-$root/target}
out=$target/c-tests
mkdir -p "$out"
passed=0 failed=0

ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "c: $1" >&2; }
skipped() { echo "c: skipped $1"; }
present() { command -v "$1" >/dev/null 2>&1; }

# count PROGRAM [ARGUMENT...]: runs it and adds up its last line.
count() {
  name=$(basename "$1")
  text=$("$@")
  status=$?
  echo "$text"
  # shellcheck disable=SC2046 # two numbers
  set -- $(echo "$text" | sed -n 's/^[a-z0-9_]*: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p')
  if [ $# != 2 ]; then bad "$name stopped with status $status"; return; fi
  passed=$((passed + $1)) failed=$((failed + $2))
}

for source in tests/c/test_*.c; do
  name=$(basename "$source" .c)
  if sh capi/cc.sh "$source" "$out/$name"; then count "$out/$name"; else bad "$name does not compile"; fi
done

# every CONFIGURATION SOURCE...: one.sh on two programs at a time.
every() {
  configuration=$1
  shift
  started=$(date +%s)
  printf '%s\n' "$@" | xargs -P 2 -n 1 sh -c \
    'if sh tests/c/one.sh "$0" "$1"; then echo "ok $1"; else echo "not $1"; fi' "$configuration" >"$out/$configuration.log" 2>&1
  grep -v '^ok ' "$out/$configuration.log" >&2
  good=$(grep -c '^ok ' "$out/$configuration.log")
  passed=$((passed + good)) failed=$((failed + $# - good))
  echo "$configuration: $good of $# programs, $(($(date +%s) - started)) s"
}

# Can a program be built and run this way at all?
printf 'int main(void) { return 0; }\n' >"$out/probe.c"
works() { sh tests/c/one.sh "$1" "$out/probe.c" >/dev/null 2>&1; }

for compiler in gcc clang; do
  if ! present $compiler; then skipped "$compiler: not installed"; continue; fi
  every $compiler-c11 tests/c/test_*.c
  if works $compiler-c++17; then every $compiler-c++17 tests/c/test_*.c; else skipped "$compiler as C++: not installed"; fi
  if works $compiler-sanitize; then
    every $compiler-sanitize tests/c/test_*.c
  else
    skipped "the sanitizers of $compiler: a program built with them does not run here"
  fi
done
if ! present valgrind; then
  skipped 'valgrind: not installed'
elif works valgrind; then
  # Left out are those that take minutes there; the sanitizers run them.
  # shellcheck disable=SC2046 # names without blanks
  every valgrind $(ls tests/c/test_*.c | grep -v -e conformance -e model)
else
  skipped 'valgrind: it cannot run a program here'
fi

for source in capi/examples/*.c; do
  [ -f "$source" ] || continue
  if sh capi/cc.sh "$source" "$out/$(basename "$source" .c)"; then ok; else bad "$source does not compile"; fi
done

# Panics stay inside: a library with a function that panics, loaded by a child process.
if [ "$(uname -s)" = Darwin ]; then library=libdgm.dylib; else library=libdgm.so; fi
if [ ! -f "$target/test-panic/$library" ]; then
  bad "$target/test-panic/$library is missing: make test-panic-library"
elif "${CC:-cc}" -std=c11 -O2 -Wall -Wextra -Werror -pedantic tests/c/fence.c -o "$out/fence" -ldl; then
  count "$out/fence" "$target/test-panic/$library"
else
  bad 'fence.c does not compile'
fi

# Exported are the listed functions and nothing else; the header declares the same.
if [ -f "$target/release/libdgm.so" ]; then
  nm -D --defined-only "$target/release/libdgm.so" | awk '$2 ~ /[A-Z]/ { print $3 }' | LC_ALL=C sort >"$out/exported"
  sed -n 's/^[a-z][a-z0-9_ *]*[ *]\(dgm_[a-z0-9_]*\)(.*/\1/p' include/dgm.h | LC_ALL=C sort >"$out/declared"
  if diff tests/c/symbols.txt "$out/exported" >&2; then ok; else bad 'libdgm.so does not export what tests/c/symbols.txt lists'; fi
  if diff tests/c/symbols.txt "$out/declared" >&2; then ok; else bad 'dgm.h does not declare what tests/c/symbols.txt lists'; fi
  # A vector instruction that is a function of its own is called from code compiled without its instruction set
  # (a closure, most often), one element of a hot loop after the other.
  nm "$target/release/libdgm.so" | grep -E 'core_arch.*_mm[0-9]*_[a-z]' >"$out/called"
  if [ -s "$out/called" ]; then bad "libdgm.so calls what should be one instruction: $(cat "$out/called")"; else ok; fi
fi

if sh capi/cc.sh tests/c/stress.c "$out/stress"; then count "$out/stress" 3; else bad 'stress.c does not compile'; fi

echo "c: $passed passed, $failed failed"
[ "$failed" = 0 ]
