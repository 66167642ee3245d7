#!/bin/sh
# cc.sh SOURCE OUTPUT [COMPILER FLAGS...]: compiles one C (or C++) program against the libdgm of this
# checkout (target/release, or $CARGO_TARGET_DIR/release). The program finds the library where it was
# built. The compiler is $CC as C11, for *.cpp $CXX as C++17, or the one given, with its flags.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
built=${CARGO_TARGET_DIR:-$here/target}/release
case $built in /*) ;; *) built=$here/$built ;; esac
links=$built/dgm-lib
source=$1 output=$2
shift 2
mkdir -p "$links" "$(dirname -- "$output")"

# The name that programs ask for at run time; cargo writes only the plain one.
if [ "$(uname -s)" = Darwin ]; then
  plain=libdgm.dylib soname=libdgm.0.dylib
else
  plain=libdgm.so soname=libdgm.so.0
fi
[ -f "$built/$plain" ] || { echo "cc.sh: $built/$plain is missing: cargo build --release -p dgm-capi" >&2; exit 1; }
for name in "$plain" "$soname"; do
  [ "$(readlink "$links/$name" 2>/dev/null)" = "../$plain" ] || ln -sf "../$plain" "$links/$name"
done

# shellcheck disable=SC2086 # CC and CXX may hold words
if [ $# = 0 ]; then
  case $source in
    *.cpp) set -- ${CXX:-c++} -std=c++17 -O2 ;;
    *) set -- ${CC:-cc} -std=c11 -O2 ;;
  esac
fi
exec "$@" -Wall -Wextra -Werror -pedantic -pthread -I"$here/include" "$source" -o "$output" \
  -L"$links" -Wl,-rpath,"$links" -ldgm -lm
