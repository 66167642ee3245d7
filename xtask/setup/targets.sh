#!/bin/sh
# Checks what this machine cannot run by itself: aarch64 Linux (built, and tested under qemu),
# macOS, iOS and Android (type-checked only). Emulation says whether results are right and
# bit-equal to x86-64, never how fast they are.
#
# Works in a chroot of Debian testing, whose Rust comes with the standard library of arm64 and
# with its sources. The first run takes some minutes and 2.5 GB. Needs root, because of chroot.
#
#   DGM_TARGETS_DIR     where the chroot lies (default: targets in the toolchain folder)
#   DGM_DEBIAN_MIRROR   a Debian mirror (default: the one of this machine's own apt sources)
set -eu

repo=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
dir=${DGM_TARGETS_DIR:-${DGM_TOOLCHAIN_DIR:-$repo/.toolchain}/targets}
recipe=1 # raise when the chroot must be made anew
suite=forky
root=$dir/root
# shellcheck source=xtask/setup/mirrors.sh
. "$repo/xtask/setup/mirrors.sh"

say() { printf 'targets: %s\n' "$*" >&2; }
die() { say "$*"; exit 3; }

[ "$(id -u)" = 0 ] || die "needs root: it makes a chroot and mounts this checkout in it"
[ "$(uname -s)" = Linux ] || die "needs Linux with debootstrap"
missing() {
  for tool in debootstrap qemu-aarch64-static unshare; do
    command -v "$tool" >/dev/null 2>&1 || printf '%s ' "$tool"
  done
}
if [ -n "$(missing)" ] && command -v apt-get >/dev/null 2>&1; then
  say "installing debootstrap, qemu-user-static and util-linux"
  { apt-get -qq update && apt-get -qq -y --no-install-recommends install debootstrap qemu-user-static util-linux; } \
    >/dev/null 2>&1 || say "apt-get cannot install them"
fi
[ -z "$(missing)" ] || die "missing: $(missing)(debootstrap, qemu-user-static, util-linux)"

# inside COMMAND: runs a shell command in the chroot, at the checkout. The mounts belong to a
# mount namespace of their own and are gone with the command.
inside() {
  root=$root repo=$repo unshare --mount sh -euc '
    mount --bind /proc "$root/proc"
    mount --bind /dev "$root/dev"
    mount --bind "$repo" "$root/src"
    exec chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
      CARGO_HOME=/cargo CARGO_TARGET_DIR=/build \
      SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt \
      CC=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
      CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=/usr/bin/qemu-aarch64-static \
      DGM_TEST_RUNNER=/usr/bin/qemu-aarch64-static \
      QEMU_LD_PREFIX=/usr/aarch64-linux-gnu sh -euc "cd /src && $1"' inside "$1"
}

make_chroot() {
  mirror=${DGM_DEBIAN_MIRROR:-$(own_mirrors "$(debian_release)" | head -n 1)}
  [ -n "$mirror" ] || die "no Debian mirror in /etc/apt: set DGM_DEBIAN_MIRROR"
  say "making a chroot of Debian $suite in $root"
  rm -rf "$root"
  mkdir -p "$dir"
  # An older debootstrap does not know the name; every current release has the same script.
  script=/usr/share/debootstrap/scripts/$suite
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
  # Only the base: debootstrap does not resolve the virtual packages that the compiler depends on.
  debootstrap --variant=minbase --include=ca-certificates \
    "$suite" "$root" "$mirror" "$script" >"$dir/debootstrap.log" 2>&1 ||
    { tail -n 20 "$dir/debootstrap.log" >&2; die "debootstrap failed"; }
  mkdir -p "$root/src" "$root/build" "$root/cargo"
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
  inside "dpkg --add-architecture arm64
    apt-get -qq -o Acquire::Check-Valid-Until=false update
    apt-get -qq -y --fix-broken install
    apt-get -qq -y --no-install-recommends install rustc cargo rust-src gcc libc6-dev \
      libstd-rust-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross" >"$dir/apt.log" 2>&1 ||
    { tail -n 20 "$dir/apt.log" >&2; die "the packages of the chroot cannot be installed"; }
  # cargo must trust what this machine trusts.
  [ ! -r /etc/ssl/certs/ca-certificates.crt ] ||
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  cp -L "$(command -v qemu-aarch64-static)" "$root/usr/bin/qemu-aarch64-static"
  printf '%s\n' "$recipe" >"$dir/.recipe"
}

[ "$(cat "$dir/.recipe" 2>/dev/null)" = "$recipe" ] || make_chroot

arm=aarch64-unknown-linux-gnu
say "$arm: unit tests, golden vectors, and the published hashes, under qemu"
inside "cargo test --locked --release --target $arm -p dgm-core -p dgm-capi --lib --tests"
inside "cargo test --locked --release --target $arm -p dgm-conformance"

for target in aarch64-apple-darwin aarch64-apple-ios aarch64-linux-android; do
  say "$target: type check"
  inside "RUSTC_BOOTSTRAP=1 cargo check --locked -Zbuild-std=std,panic_abort --target $target -p dgm-core -p dgm-capi --features accelerate"
done

if [ -f "$repo/julia/jlrs/Cargo.toml" ]; then
  say "julia/jlrs: type check"
  inside "DOCS_RS=1 cargo check --locked --manifest-path julia/jlrs/Cargo.toml"
fi

if command -v clang >/dev/null 2>&1; then
  say "include/module.modulemap: clang imports CDGM"
  printf '@import CDGM;\nunsigned version(void) { return dgm_abi_version(); }\n' |
    clang -x objective-c -fmodules -fmodules-cache-path="$dir/modules" -fsyntax-only -Werror -I"$repo/include" -
fi
say "all passed"
