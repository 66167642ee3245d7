#!/bin/sh
# Installs the C library below $DESTDIR$PREFIX: the shared and static library, the header, the
# pkg-config file and the CMake config. Every file arrives by rename, so that a program that has
# the old library open keeps it.
set -eu
cd "$(dirname -- "$0")/../.."
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix
built=${CARGO_TARGET_DIR:-target}/release
version=$(sed -n 's/^version *= *"\([^"]*\)".*/\1/p' Cargo.toml | head -n 1)
[ -n "$version" ] || { echo "install: no version in Cargo.toml" >&2; exit 1; }
major=${version%%.*}

# put SOURCE TARGET MODE
put() {
  mkdir -p "$(dirname -- "$2")"
  cp "$1" "$2.new"
  chmod "$3" "$2.new"
  mv -f "$2.new" "$2"
}

# link TARGET NAME
link() {
  rm -f "$2.new"
  ln -s "$1" "$2.new"
  mv -f "$2.new" "$2"
}

# fill SOURCE TARGET: copies with @NAME@ replaced.
fill() {
  sed -e "s|@PREFIX@|$prefix|g" -e "s|@VERSION@|$version|g" -e "s|@MAJOR@|$major|g" \
    -e "s|@SHARED@|$shared|g" -e "s|@SONAME@|$soname|g" -e "s|@STATIC_LIBS@|$static_libs|g" "$1" >"$scratch"
  if grep '@[A-Z_]*@' "$scratch" >&2; then echo "install: $1 has a name that is not filled in" >&2; exit 1; fi
  put "$scratch" "$2" 644
}

scratch=$(mktemp "${TMPDIR:-/tmp}/dgm-install.XXXXXX")
trap 'rm -f "$scratch"' EXIT

if [ "$(uname -s)" = Darwin ]; then
  shared=libdgm.$version.dylib soname=libdgm.$major.dylib plain=libdgm.dylib
  static_libs='-framework Accelerate -lSystem -lc -lm'
  cp "$built/libdgm.dylib" "$scratch"
  install_name_tool -id "$prefix/lib/$soname" "$scratch"
  codesign --force --sign - "$scratch" 2>/dev/null
else
  shared=libdgm.so.$version soname=libdgm.so.$major plain=libdgm.so
  static_libs='-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc'
  cp "$built/libdgm.so" "$scratch"
fi

put "$scratch" "$root/lib/$shared" 755
link "$shared" "$root/lib/$soname"
link "$soname" "$root/lib/$plain"
put "$built/libdgm.a" "$root/lib/libdgm.a" 644
put include/dgm.h "$root/include/dgm.h" 644
put include/module.modulemap "$root/include/module.modulemap" 644
fill capi/dgm.pc.in "$root/lib/pkgconfig/dgm.pc"
fill capi/dgm-config.cmake.in "$root/lib/cmake/dgm/dgm-config.cmake"
fill capi/dgm-config-version.cmake.in "$root/lib/cmake/dgm/dgm-config-version.cmake"
echo "install: libdgm $version in $root"
