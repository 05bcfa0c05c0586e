#!/usr/bin/env bash
# Makes the kernel images of the tests in the engine of DOCKER_HOST, without a registry:
#   local/python:3.11-debian12   Debian's python3.11 and busybox, glibc (38 MB)
#   local/busybox:1.35           one static busybox: like an Alpine image, no libc
#   local/scratch:1              one static program, /echo, and nothing else: no shell
# An image that was made by this very script is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CACHE=$PWD/.services/cache
RECIPE=$(sha256sum scripts/test-images.sh)
RECIPE=${RECIPE:0:16}
WORK=$(mktemp -d /tmp/bai-images.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
readonly CACHE RECIPE WORK

# What python3.11 needs at run time, down to libc.
readonly PYTHON_DEBS=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 zlib1g libexpat1 libssl3
  libbz2-1.0 liblzma5 libffi8 libuuid1 libncursesw6 libtinfo6 libreadline8 libsqlite3-0 libcrypt1 libgcc-s1 libdb5.3
  media-types)

say() { printf 'test-images: %s\n' "$*"; }
die() { printf 'test-images: %s\n' "$*" >&2; exit 1; }

present() { [[ $(docker image inspect -f '{{index .Config.Labels "bai.test.recipe"}}' "$1" 2>/dev/null) == "$RECIPE" ]]; }

# make_image NAME ROOT LABEL...: import a directory as an image with these ai.backend labels.
make_image() {
  local name=$1 root=$2 label
  local -a changes=(--change "LABEL bai.test.recipe=$RECIPE" --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin')
  shift 2
  for label in kernelspec=1 role=COMPUTE service-ports= resource.min.cpu=1 "$@"; do
    changes+=(--change "LABEL ai.backend.${label%%=*}=\"${label#*=}\"")
  done
  tar -C "$root" --numeric-owner --owner=0 --group=0 -c . | docker import "${changes[@]}" - "$name" >/dev/null
  say "made $name"
}

static_busybox() {
  local file
  file=$(command -v busybox) || die "busybox is missing: scripts/services.sh install"
  [[ $("$file" ldd "$file" 2>&1 || ldd "$file" 2>&1) == *"not a dynamic"* ]] || die "$file is not static (busybox-static)"
  printf '%s' "$file"
}

# The directories that every image has, busybox under all its names that are still free, and the user work.
base_tree() {
  local root=$1 name
  mkdir -p "$root"/{bin,tmp,etc,home/work,proc,sys,dev,root,usr/bin}
  chmod 1777 "$root/tmp"
  cp "$(static_busybox)" "$root/bin/busybox"
  for name in $("$root/bin/busybox" --list); do
    [[ -e $root/bin/$name || -e $root/usr/bin/$name ]] || ln -s busybox "$root/bin/$name"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nwork:x:1000:1000::/home/work:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\nwork:x:1000:\n' >"$root/etc/group"
}

download_debs() {
  local -a wanted=() files
  local package
  mkdir -p "$CACHE/debs"
  for package in "${PYTHON_DEBS[@]}"; do
    files=("$CACHE/debs/${package}_"*.deb)
    [[ -e ${files[0]} ]] || wanted+=("$package")
  done
  ((${#wanted[@]})) || return 0
  say "downloading ${#wanted[@]} packages"
  mkdir "$WORK/debs"
  (cd "$WORK/debs" && { apt-get -q download "${wanted[@]}" || { apt-get -q update && apt-get -q download "${wanted[@]}"; }; }) \
    >"$WORK/apt.log" 2>&1 </dev/null || { cat "$WORK/apt.log" >&2; die "the Debian packages of python3.11 cannot be had"; }
  mv "$WORK"/debs/*.deb "$CACHE/debs/"
}

python_image() {
  local name=local/python:3.11-debian12 root=$WORK/python package
  present "$name" && return
  download_debs
  mkdir "$root"
  for package in "${PYTHON_DEBS[@]}"; do dpkg-deb -x "$CACHE/debs/${package}_"*.deb "$root"; done
  base_tree "$root"
  ln -sf python3.11 "$root/usr/bin/python3"
  rm -rf "$root"/usr/share/{doc,man,locale} "$root"/usr/lib/x86_64-linux-gnu/gconv
  make_image "$name" "$root" 'features=batch query uid-match user-input' base-distro=ubuntu22.04 runtime-type=python \
    runtime-path=/usr/bin/python3 resource.min.mem=64m envs.corecount=OPENBLAS_NUM_THREADS,OMP_NUM_THREADS,NPROC
}

busybox_image() {
  local name=local/busybox:1.35 root=$WORK/busybox
  present "$name" && return
  mkdir "$root"
  base_tree "$root"
  make_image "$name" "$root" 'features=batch uid-match' base-distro=alpine3.17 runtime-type=app runtime-path=/bin/sh \
    resource.min.mem=16m
}

scratch_image() {
  local name=local/scratch:1 root=$WORK/scratch
  present "$name" && return
  mkdir "$root"
  gcc -Os -static -s -o "$root/echo" -x c - <<'C'
#include <stdio.h>
int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) printf(i > 1 ? " %s" : "%s", argv[i]);
  return puts("") < 0;
}
C
  make_image "$name" "$root" 'features=batch uid-match' runtime-type=app runtime-path=/echo resource.min.mem=16m
}

[[ -n ${DOCKER_HOST-} ]] || die "DOCKER_HOST is not set: eval \"\$(scripts/services.sh env)\""
python_image
busybox_image
scratch_image
