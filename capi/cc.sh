#!/bin/sh
# cc.sh SOURCE OUTPUT: compiles one C (or C++) program against the libdgm of this checkout
# (target/release, or $CARGO_TARGET_DIR/release). The program finds the library where it was built.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
built=${CARGO_TARGET_DIR:-$here/target}/release
case $built in /*) ;; *) built=$here/$built ;; esac
links=$built/dgm-lib
mkdir -p "$links" "$(dirname -- "$2")"

# The name that programs ask for at run time; cargo writes only the plain one.
if [ "$(uname -s)" = Darwin ]; then
  plain=libdgm.dylib soname=libdgm.0.dylib
else
  plain=libdgm.so soname=libdgm.so.0
fi
[ -f "$built/$plain" ] || { echo "cc.sh: $built/$plain is missing: cargo build --release -p dgm-capi" >&2; exit 1; }
ln -sf "../$plain" "$links/$plain"
ln -sf "../$plain" "$links/$soname"

warnings='-Wall -Wextra -Werror -pedantic'
case $1 in
  *.cpp) set -- "$1" "$2" "${CXX:-c++} -std=c++17" ;;
  *) set -- "$1" "$2" "${CC:-cc} -std=c11" ;;
esac
# shellcheck disable=SC2086 # words
exec $3 -O2 $warnings -I"$here/include" "$1" -o "$2" -L"$links" -Wl,-rpath,"$links" -ldgm -lm
