#!/usr/bin/env bash
# Runs a test binary for `cargo mutants --in-place` (see README.md), up to the first failure: the quick tests of the
# changed module, then all quick ones, then the long ones that have to do with the module. The explorations are left
# out: they are for survivors.
set -uo pipefail
export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0
binary=$1
long=(i9_i1_the_gate r55_every_pattern r55_quamina dynamodb::tests::r5_the_size no_random_run the_counters_are_sums)
skip=()
for name in explored_ "${long[@]}"; do skip+=(--skip "$name"); done
options=(-Z unstable-options --fail-fast --test-threads 2 --quiet)
# engine/src/event/size.rs: event
module=$(git diff --name-only -- src | sed -nE 's|^engine/src/([a-z_]+).*|\1|p' | head -n 1)
case $module in
    event | json) long=(dynamodb::tests::r5_the_size) ;;
    filter) long=(r55_every_pattern r55_quamina) ;;
    fleet) long=(i9_i1_the_gate) ;;
    shard | invariant | intake | outcome | retry | window) long=(no_random_run the_counters_are_sums) ;;
    mapping | failure | request) long=() ;;
esac
if [ -n "$module" ]; then
    timeout "${QUICK:-150}" "$binary" "$module::" "${skip[@]}" "${options[@]}" --shuffle || exit 1
fi
timeout "${QUICK:-150}" "$binary" "${skip[@]}" "${options[@]}" --shuffle || exit 1
[ ${#long[@]} -eq 0 ] || timeout "${LONG:-400}" "$binary" "${long[@]}" "${options[@]}"
