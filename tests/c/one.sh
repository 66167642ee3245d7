#!/bin/sh
# one.sh CONFIGURATION SOURCE: compiles and runs one program in one of the ways below. Says why and
# exits with 1 when something is wrong; prints nothing else. Run by run.sh, from the root.
#
#   gcc-c11 gcc-c++17 clang-c11 clang-c++17    warnings are errors
#   gcc-sanitize clang-sanitize                AddressSanitizer, UndefinedBehaviorSanitizer
#   valgrind                                   memory errors and leaks, the library's included
set -u
configuration=$1 source=$2
name=$(basename "$source" .c)
out=${CARGO_TARGET_DIR:-target}/c-tests/$configuration
mkdir -p "$out"
sanitize='-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all'
case $configuration in
  gcc-c11) set -- gcc -std=c11 -O2 ;;
  gcc-c++17) set -- g++ -x c++ -std=c++17 -O2 ;;
  clang-c11) set -- clang -std=c11 -O2 ;;
  clang-c++17) set -- clang++ -x c++ -std=c++17 -O2 ;;
  # shellcheck disable=SC2086 # flags
  gcc-sanitize) set -- gcc -std=c11 $sanitize ;;
  # shellcheck disable=SC2086
  clang-sanitize) set -- clang -std=c11 $sanitize ;;
  valgrind) set -- "${CC:-cc}" -std=c11 -O1 -g ;;
  *) echo "one.sh: no configuration $configuration" >&2; exit 2 ;;
esac
log=$out/$name.log
if ! sh capi/cc.sh "$source" "$out/$name" "$@" >"$log" 2>&1; then
  cat "$log"
  echo "c: $name does not compile as $configuration"
  exit 1
fi
case $configuration in
  # Valgrind has no AVX-512. Blocks that a worker thread still holds are no leak.
  valgrind)
    case " $(sh xtask/setup/isa-levels.sh | tr '\n' ' ') " in *' avx2 '*) DGM_ISA=avx2; export DGM_ISA ;; esac
    set -- valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=definite,indirect \
      --errors-for-leak-kinds=definite,indirect "$out/$name"
    ;;
  # Sizes that no memory could hold are asked for on purpose.
  *-sanitize) ASAN_OPTIONS=allocator_may_return_null=1; export ASAN_OPTIONS; set -- "$out/$name" ;;
  *) set -- "$out/$name" ;;
esac
"$@" >"$log" 2>&1
status=$?
if [ $status != 0 ]; then
  tail -n 60 "$log"
  echo "c: $name as $configuration ends with $status"
  exit 1
fi
