#!/bin/sh
# Provides what the build, the demo and the tests need besides Rust: a C compiler, Julia, Elixir.
#
#   setup.sh [rust] [cc] [julia] [elixir]      default: all four
#   setup.sh clang valgrind                    what the C tests use where they find it: to lack
#                                              them is no error
#
# What is on PATH and fit is used as it is. On Debian the rest is unpacked into a folder of this
# checkout (DGM_TOOLCHAIN_DIR, default .toolchain): the system is not changed and root is not
# needed. apt fetches the packages from the machine's own mirror and verifies their signatures.
# Elsewhere the missing tool is named, with the command that installs it, and the exit status is 3.
# Prints nothing when there is nothing to do.
set -eu

repo=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
tools=${DGM_TOOLCHAIN_DIR:-$repo/.toolchain}
want=${*:-rust cc julia elixir}
recipe=1 # raise when the unpacked result must change: older folders are then replaced
work=
missing=

# shellcheck source=xtask/setup/mirrors.sh
. "$repo/xtask/setup/mirrors.sh"
say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 3; }
cleanup() { [ -z "$work" ] || rm -rf "$work"; }
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# The user's PATH without our own folder, so that a tool installed later takes precedence.
outer_path() {
  printf '%s' "$PATH" | awk -v own="$tools/bin" -v RS=: -v ORS= \
    '{ sub(/\n$/, "") } $0 != own && $0 != "" { print sep $0; sep = ":" }'
}

# --- Is the tool of the system good enough? -------------------------------------------------

# Debian's Julia with libunwind 1.6 dies on the first exception out of compiled code, so the
# version alone is not enough: throw one.
julia_fit() {
  "$1" --startup-file=no -e 'VERSION >= v"1.5" || exit(1)
    f(x) = throw(ArgumentError("probe")); try f(1) catch end' >/dev/null 2>&1
}

elixir_fit() {
  elixir -e 'Version.match?(System.version(), ">= 1.14.0", allow_pre: true) || System.halt(1)
    {:ok, _} = Application.ensure_all_started(:crypto); {:ok, _} = Application.ensure_all_started(:ssl)' \
    </dev/null >/dev/null 2>&1
}

on_path() { (PATH=$(outer_path); export PATH; command -v "$1" >/dev/null 2>&1); }
system_julia() { (PATH=$(outer_path); export PATH; command -v julia >/dev/null 2>&1 && julia_fit julia); }
system_elixir() {
  (PATH=$(outer_path); export PATH
   for t in elixir mix erl; do command -v "$t" >/dev/null 2>&1 || exit 1; done
   elixir_fit)
}
unpacked() { [ "$(cat "$tools/$1/.recipe" 2>/dev/null)" = "$recipe" ]; }

# --- A private apt: own sources, lists and cache, none of the system's state -----------------

# private_apt SUITE: prepares $work/SUITE.conf for the first mirror that carries SUITE.
private_apt() {
  suite=$1
  root=$work/apt-$suite
  conf=$work/$suite.conf
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  signed=
  [ ! -r "$keyring" ] || signed="[signed-by=$keyring] "
  mkdir -p "$root/lists/partial" "$root/cache/archives/partial"
  : >"$root/status"
  cat >"$conf" <<EOF
Dir::Etc::sourcelist "$root/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$root";
Dir::State::lists "$root/lists";
Dir::State::status "$root/status";
Dir::Cache "$root/cache";
#clear APT::Architectures;
APT::Architectures { "$(dpkg --print-architecture)"; };
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Update::Error-Mode "any";
EOF
  for uri in $(own_mirrors "$(debian_release)") http://deb.debian.org/debian http://archive.debian.org/debian; do
    printf 'deb %s%s %s main\n' "$signed" "$uri" "$suite" >"$root/sources.list"
    if apt-get -c "$conf" -qq update >"$root/update.log" 2>&1; then return 0; fi
  done
  cat "$root/update.log" >&2
  die "cannot read the package lists of Debian $suite: see the lines above"
}

# closure SUITE PACKAGE...: the packages and everything they depend on, one name a line.
closure() {
  suite=$1; shift
  apt-get -c "$work/$suite.conf" -s install "$@" 2>/dev/null | awk '/^Inst /{ print $2 }'
}

# unpack SUITE DIR PACKAGE...: downloads (apt checks the hashes) and unpacks into DIR.
unpack() {
  suite=$1; dir=$2; shift 2
  rm -rf "$work/debs"
  mkdir -p "$work/debs" "$dir"
  (cd "$work/debs" && apt-get -c "$work/$suite.conf" -qq download "$@" >"$work/download.log" 2>&1) ||
    { cat "$work/download.log" >&2; die "download of packages failed"; }
  for deb in "$work/debs"/*.deb; do dpkg-deb -x "$deb" "$dir"; done
  rm -rf "$work/debs"
}

# Puts a finished folder in its place; an interrupted run leaves only a .work folder behind.
place() {
  printf '%s\n' "$recipe" >"$work/$1/.recipe"
  [ ! -d "$tools/$1" ] || mv "$tools/$1" "$work/$1.old"
  mv "$work/$1" "$tools/$1"
}

# wrapper NAME: the script on stdin becomes bin/NAME, with $tools set to the folder it lies in.
wrapper() {
  mkdir -p "$tools/bin"
  {
    printf '%s\n' '#!/bin/sh' "tools=\$(dirname -- \"\$(dirname -- \"\$(readlink -f -- \"\$0\")\")\")"
    cat
  } >"$work/$1.sh"
  chmod 755 "$work/$1.sh"
  mv "$work/$1.sh" "$tools/bin/$1"
}

# --- Julia -----------------------------------------------------------------------------------

# Debian 11 is the last release with Julia. Its libraries come along, except those of the C and
# C++ runtime, where the system's newer ones must be used, and what every Debian has anyway.
julia_packages() {
  closure bullseye julia | grep -Evx \
    'libc6|libcrypt1|libgcc-s1|libstdc\+\+6|gcc-.*-base|zlib1g|libtinfo6|libselinux1|libacl1|dpkg|tar|perl-base|debconf'
}

# julia_start_script ROOT: replaces ROOT/usr/bin/julia by a script that starts the real one.
# libunwind 1.3 must come first or exceptions kill Julia; libgcc_s is preloaded because its
# unwinder otherwise binds to libunwind's symbols and a Rust panic aborts although it is caught.
# Both go through the loader's own options: in the environment the old libraries would also
# reach git, curl and whatever else Julia starts. JULIA_BINDIR then tells Julia where it lies, and
# makes Base.julia_cmd() this script again.
julia_start_script() {
  loader=
  for f in /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.*; do
    [ ! -x "$f" ] || { loader=$f; break; }
  done
  [ -n "$loader" ] || die "no glibc loader found: install Julia 1.5 or newer and put it on PATH"
  mv "$1/usr/bin/julia" "$1/usr/bin/julia.bin"
  {
    printf '#!/bin/sh\nloader=%s\n' "$loader"
    cat <<'EOF'
bin=$(dirname -- "$(readlink -f -- "$0")")
root=${bin%/usr/bin}
path=${LD_LIBRARY_PATH-}
for dir in "$root"/lib/*-linux-gnu* "$root"/usr/lib/*-linux-gnu*; do
  [ ! -d "$dir" ] || path=$dir${path:+:$path}
done
JULIA_BINDIR=$bin
JULIA_DEPOT_PATH=${JULIA_DEPOT_PATH:-${root%/*}/depot}
export JULIA_BINDIR JULIA_DEPOT_PATH
exec "$loader" --library-path "$path" --preload libgcc_s.so.1 "$bin/julia.bin" "$@"
EOF
  } >"$1/usr/bin/julia"
  chmod 755 "$1/usr/bin/julia"
}

install_julia() {
  private_apt bullseye
  packages=$(julia_packages) || die "Debian 11 has no Julia for $(dpkg --print-architecture): install Julia 1.5 or newer from https://julialang.org/downloads and put it on PATH"
  # shellcheck disable=SC2086 # one word per package
  unpack bullseye "$work/julia" $packages
  julia_start_script "$work/julia"
  place julia
  # Pkg tries to clone the General registry when a depot has none; an empty one keeps it offline.
  mkdir -p "$tools/depot/registries/Local"
  cat >"$tools/depot/registries/Local/Registry.toml" <<'EOF'
name = "Local"
uuid = "6d5c6f0a-3a0e-4c52-9f0b-0a4f6c2f7d10"
repo = ""

[packages]
EOF
  wrapper julia <<'EOF'
exec "$tools/julia/usr/bin/julia" "$@"
EOF
  julia_fit "$tools/bin/julia" || { rm -f "$tools/bin/julia"; die "the unpacked Julia in $tools/julia does not run"; }
  say "julia $("$tools/bin/julia" -e 'print(VERSION)') unpacked into $tools"
}

# --- Elixir and Erlang -----------------------------------------------------------------------

elixir_packages() {
  closure "$1" elixir erlang-base erlang-crypto erlang-ssl erlang-public-key erlang-inets erlang-tools \
    erlang-runtime-tools erlang-parsetools erlang-syntax-tools erlang-asn1 erlang-xmerl erlang-eunit |
    grep -E '^(elixir|erlang-.*)$'
}

install_elixir() {
  release=$(debian_release)
  private_apt "$release"
  packages=$(elixir_packages "$release") || die "Debian $release has no Elixir package: install Elixir 1.14 or newer"
  root=$work/elixir
  # shellcheck disable=SC2086
  unpack "$release" "$root" $packages
  # OpenSSL belongs to nearly every machine, but not to the smallest images.
  if ldd "$root"/usr/lib/erlang/lib/crypto-*/priv/lib/crypto.so | grep -q 'not found'; then
    unpack "$release" "$work/openssl" "$(closure "$release" erlang-crypto | grep '^libssl3')"
    mkdir -p "$root/openssl"
    cp "$work"/openssl/usr/lib/*/lib*.so.* "$root/openssl/"
  fi
  # Debian writes the root folder into the start script.
  # shellcheck disable=SC2016 # expanded when the script runs
  sed 's|ROOTDIR=/usr/lib/erlang$|ROOTDIR=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")|' \
    "$root/usr/lib/erlang/bin/erl" >"$work/erl"
  cat "$work/erl" >"$root/usr/lib/erlang/bin/erl"
  place elixir
  for tool in elixir elixirc iex mix erl erlc escript epmd; do
    # +fnu: file names are UTF-8 even where no locale is set.
    wrapper "$tool" <<EOF
root=\$tools/elixir
if [ -d "\$root/openssl" ]; then
  LD_LIBRARY_PATH=\$root/openssl\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
fi
ELIXIR_ERL_OPTIONS=\${ELIXIR_ERL_OPTIONS-+fnu} PATH=\$tools/bin:\$PATH
export ELIXIR_ERL_OPTIONS PATH
exec "\$root/usr/bin/$tool" "\$@"
EOF
  done
  (PATH=$tools/bin:$PATH; export PATH; elixir_fit) ||
    { rm -f "$tools/bin/elixir"; die "the unpacked Elixir in $tools/elixir does not run, or is older than 1.14"; }
  say "elixir $("$tools/bin/elixir" --short-version) unpacked into $tools"
}

# --- Clang and valgrind, for the C tests -------------------------------------------------------

install_clang() {
  release=$(debian_release)
  private_apt "$release"
  version=$(closure "$release" clang | sed -n 's/^clang-\([0-9][0-9]*\)$/\1/p')
  [ -n "$version" ] || die "Debian $release has no clang package"
  packages=$(closure "$release" clang "libclang-rt-$version-dev" | grep -E \
    "^(clang-$version|lib(clang|llvm).*|llvm-$version-linker-tools|lib(edit|xml|ffi|bsd|md|icu|z3|zstd|lzma)[^ ]*)$")
  # shellcheck disable=SC2086
  unpack "$release" "$work/clang" $packages
  place clang
  for tool in clang clang++; do
    wrapper "$tool" <<EOF
root=\$tools/clang
for dir in "\$root"/usr/lib/*-linux-gnu* "\$root/usr/lib/llvm-$version/lib"; do
  LD_LIBRARY_PATH=\$dir\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH
exec "\$root/usr/lib/llvm-$version/bin/$tool" "\$@"
EOF
  done
  "$tools/bin/clang" --version >/dev/null ||
    { rm -f "$tools/bin/clang" "$tools/bin/clang++"; die "the unpacked clang does not run"; }
  say "clang $version unpacked into $tools"
}

install_valgrind() {
  release=$(debian_release)
  private_apt "$release"
  # It cannot start a program without the symbols of the C library's loader.
  unpack "$release" "$work/valgrind" valgrind libc6-dbg
  place valgrind
  wrapper valgrind <<'EOF'
VALGRIND_LIB=$tools/valgrind/usr/libexec/valgrind
export VALGRIND_LIB
exec "$tools/valgrind/usr/bin/valgrind.bin" --extra-debuginfo-path="$tools/valgrind/usr/lib/debug" "$@"
EOF
  "$tools/bin/valgrind" -q true || { rm -f "$tools/bin/valgrind"; die "the unpacked valgrind cannot run a program"; }
  say "valgrind unpacked into $tools"
}

# --- What is wanted --------------------------------------------------------------------------

can_unpack() { command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1; }

# provide TOOL: a fit one of the system, else the one unpacked before, else unpack it now.
provide() {
  if "system_$1"; then
    case $1 in
      julia) own='julia' ;;
      elixir) own='elixir elixirc iex mix erl erlc escript epmd' ;;
    esac
    for t in $own; do rm -f "$tools/bin/$t"; done # ours would hide the system's
  elif unpacked "$1" && [ -x "$tools/bin/$1" ]; then
    :
  elif can_unpack; then
    mkdir -p "$tools"
    [ -n "$work" ] || work=$(mktemp -d "$tools/.work.XXXXXX")
    "install_$1"
  else
    missing="$missing $1"
  fi
}

# provide_extra TOOL: as provide, but the C tests do without it, and say so.
provide_extra() {
  if on_path "$1"; then rm -f "$tools/bin/$1"; return 0; fi
  if [ -x "$tools/bin/$1" ] && unpacked "$1"; then return 0; fi
  if ! can_unpack; then return 0; fi
  mkdir -p "$tools"
  [ -n "$work" ] || work=$(mktemp -d "$tools/.work.XXXXXX")
  ("install_$1") || say "the C tests will skip $1"
}

provide_rust() {
  if on_path cargo || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then return 0; fi
  die "no Rust: install it from https://rustup.rs"
}

provide_cc() {
  if on_path cc || on_path gcc || on_path clang; then return 0; fi
  if [ "$(uname -s)" = Darwin ]; then die "no C compiler: run   xcode-select --install"; fi
  die "no C compiler: run   apt-get install gcc libc6-dev   (or what your system calls them)"
}

for tool in $want; do
  case $tool in
    rust | cc) "provide_$tool" ;;
    julia | elixir) provide "$tool" ;;
    clang | valgrind) provide_extra "$tool" ;;
    *) say "unknown tool '$tool': expected rust, cc, julia, elixir, clang or valgrind"; exit 2 ;;
  esac
done

if [ -n "$missing" ]; then
  if [ "$(uname -s)" = Darwin ]; then die "missing:$missing. Run   brew install$missing"; fi
  die "missing:$missing. Install Julia 1.5 or newer (https://julialang.org/downloads) and Elixir 1.14 or newer with Erlang (https://elixir-lang.org/install.html), and put them on PATH"
fi
if [ -d "$tools/bin" ] && [ ! -f "$tools/env.sh" ]; then
  # Sourced by people who want the same julia, mix and elixir in their shell.
  printf 'PATH="%s/bin:$PATH"\nexport PATH\n' "$tools" >"$tools/env.sh"
fi
