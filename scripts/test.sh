#!/usr/bin/env bash
# Installs and starts what the tests need, runs every test, stops what it started. No test is skipped: with
# BAI_TEST_REQUIRE=1 a missing service is a failure. Arguments are passed on to `cargo nextest run`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin" BAI_TEST_REQUIRE=1

declare -a SUMMARY=()
FAILED=0

# step NAME COMMAND...: run it, keep its result for the summary, go on.
step() {
  local name=$1 from=$SECONDS result=ok
  shift
  printf '\n== %s\n' "$name"
  "$@" </dev/null || { result=FAILED; FAILED=1; }
  SUMMARY+=("$(printf '%-6s %-12s %4d s' "$result" "$name" $((SECONDS - from)))")
}

finish() {
  local code=$?
  trap - EXIT INT TERM
  if [[ $STARTED == yes ]]; then
    scripts/services.sh stop || code=1
  fi
  printf '\n== summary\n'
  ((${#SUMMARY[@]} == 0)) || printf '%s\n' "${SUMMARY[@]}"
  if ((FAILED || code)); then
    printf 'tests: FAILED\n'
    exit 1
  fi
  printf 'tests: ok\n'
}

rust_tests() { cargo nextest run --workspace --all-features --no-fail-fast "$@"; }
doc_tests() { cargo test --workspace --all-features --doc --no-fail-fast --quiet; }
programs() { cargo build --workspace --all-features --bins; }

client_tests() {
  BAI_TEST_BIN_DIR=$(cargo metadata --no-deps --format-version 1 |
    "$BAI_TEST_PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"] + "/debug")') || return
  export BAI_TEST_BIN_DIR
  "$BAI_TEST_PYTHON" -m pytest -p no:cacheprovider tests/client
}

scripts/services.sh install
# Services that were running before belong to someone who goes on working with them.
STARTED=no
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if ! scripts/services.sh status >/dev/null; then
  STARTED=yes
  scripts/services.sh start
fi
vars=$(scripts/services.sh env)
eval "$vars"
scripts/test-images.sh
scripts/check-setup.sh

# First of all: whole-process tests run what lies in the target directory.
step 'programs' programs
step 'rust' rust_tests "$@"
step 'doc tests' doc_tests
if [[ -d tests/client ]]; then
  step 'client' client_tests
fi
