#!/usr/bin/env bash
# Runs a test binary for `cargo mutants` (see README.md): the quick tests in random order up to the first failure, then
# the long ones, which most mutants do not live to see. The explorations are left out: they are for survivors.
set -uo pipefail
export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0
binary=$1
shift
long=(i9_i1_the_gate r55_every_pattern r55_quamina dynamodb::tests::r5_the_size no_random_run the_counters_are_sums)
skip=()
for name in explored_ "${long[@]}"; do skip+=(--skip "$name"); done
options=(-Z unstable-options --fail-fast --test-threads 2 --quiet)
timeout "${QUICK:-150}" "$binary" "${skip[@]}" "${options[@]}" --shuffle || exit 1
timeout "${LONG:-400}" "$binary" "${long[@]}" "${options[@]}"
