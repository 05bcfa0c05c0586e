#!/usr/bin/env bash
# A quick proof that the running services and the test images work: each is used once for real.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin" ETCDCTL_API=3
vars=$(scripts/services.sh env)
eval "$vars"

# expect WHAT WANTED COMMAND...
expect() {
  local what=$1 wanted=$2 got
  shift 2
  got=$(timeout 60 "$@" 2>/tmp/bai-check.$$ </dev/null) || true
  if [[ $got != *"$wanted"* ]]; then
    printf 'check-setup: %s: wanted %q, got %q\n%s\n' "$what" "$wanted" "$got" "$(</tmp/bai-check.$$)" >&2
    rm -f "/tmp/bai-check.$$"
    exit 1
  fi
  rm -f "/tmp/bai-check.$$"
  printf 'check-setup: %-28s %s\n' "$what" ok
}

expect PostgreSQL 42 psql -XAt "$BAI_TEST_POSTGRES_URL" -c 'SELECT 6 * 7'
expect Redis PONG redis-cli -u "$BAI_TEST_REDIS_URL" ping
# shellcheck disable=SC2016 # expanded by the inner shell
expect etcd 'found 1' sh -c 'etcdctl --endpoints "$BAI_TEST_ETCD_URL" put check-setup 1 >/dev/null &&
  printf "found " && etcdctl --endpoints "$BAI_TEST_ETCD_URL" del check-setup'
expect 'etcd JSON gateway' '"version"' "$BAI_TEST_PYTHON" -c \
  "import urllib.request as u; print(u.urlopen(u.Request('$BAI_TEST_ETCD_URL/v3/maintenance/status', b'{}')).read().decode())"
expect 'image python' 'ok 3.11' docker run --rm local/python:3.11-debian12 python3 -c 'import sys; print("ok", sys.version)'
expect 'image busybox' ok docker run --rm local/busybox:1.35 echo ok
expect 'image scratch' ok docker run --rm local/scratch:1 /echo ok
expect 'memory limit' 137 sh -c \
  'docker run --rm --memory 32m local/python:3.11-debian12 python3 -c "bytearray(64 << 20)" || echo $?'
expect 'official client' 'Access key' "$BAI_TEST_CLIENT" config
expect 'Python test environment' ok "$BAI_TEST_PYTHON" -c 'import matplotlib, pytest, pytest_asyncio; print("ok")'
