#!/usr/bin/env bash
# Installs what the tests need on a bare Debian 12: packages, the Python environment .venv, cargo-nextest.
# Only what is missing is installed, so a second run does nothing and is quick. Run as root when packages are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"

readonly NEXTEST_VERSION=0.9.143

# A program that must exist, and the Debian package that brings it. A program that came from elsewhere counts.
readonly NEEDS='
gcc                                   gcc
g++                                   g++
make                                  make
pkg-config                            pkg-config
ip                                    iproute2
iptables                              iptables
setpriv                               util-linux
busybox                               busybox-static
openssl                               openssl
dockerd                               docker.io
containerd                            containerd
/usr/lib/postgresql/15/bin/initdb     postgresql-15
redis-server                          redis-server
redis-cli                             redis-tools
etcd                                  etcd-server
etcdctl                               etcd-client
node                                  nodejs
python3.11                            python3.11
/usr/lib/python3.11/ensurepip         python3.11-venv
'

say() { printf 'install: %s\n' "$*"; }
die() { printf 'install: %s\n' "$*" >&2; exit 1; }

missing_packages() {
  local program package
  while read -r program package; do
    [[ -z $program ]] && continue
    [[ -e $program ]] || command -v "$program" >/dev/null || printf '%s\n' "$package"
  done <<<"$NEEDS"
}

# The tests start private instances: the packages' own services must not start just because they were installed.
forbid_service_start() {
  [[ -e /usr/sbin/policy-rc.d ]] && return
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

install_packages() {
  local -a packages
  mapfile -t packages < <(missing_packages)
  ((${#packages[@]})) || return 0
  ((EUID == 0)) || die "these Debian packages are missing, run as root to install them: ${packages[*]}"
  say "packages: ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  forbid_service_start
  apt-get -q -o DPkg::Lock::Timeout=600 update </dev/null
  apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends "${packages[@]}" </dev/null
  mapfile -t packages < <(missing_packages)
  ((${#packages[@]} == 0)) || die "still missing after the installation: ${packages[*]}"
}

# Debian's own interpreter, not one from a home directory: kernels run as another user and must be able to reach it.
install_python() {
  local python=/usr/bin/python3.11 stamp
  stamp="$(sha256sum scripts/requirements.txt)"
  [[ -x .venv/bin/python && -f .venv/stamp && $(<.venv/stamp) == "$stamp" ]] && return
  [[ -x $python ]] || python=$(command -v python3.11)
  say "Python environment .venv"
  "$python" -m venv --clear .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-input -r scripts/requirements.txt </dev/null
  printf '%s' "$stamp" >.venv/stamp
}

install_nextest() {
  command -v cargo-nextest >/dev/null && return
  command -v cargo >/dev/null || die "cargo is missing: install the Rust toolchain first"
  say "cargo-nextest $NEXTEST_VERSION"
  cargo install --quiet cargo-nextest --locked --version "$NEXTEST_VERSION" </dev/null
}

install_packages
install_python
install_nextest
