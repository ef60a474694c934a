#!/usr/bin/env bash
# Runs cargo-mutants on the engine, in a clone of the last commit, one mutant at a time.
#
#   engine/mutations/mutants.sh 0/16 [option…]   each 16th of all mutants, from the first on
#
# Further options go to `cargo mutants`, for example `--file engine/src/filter/tree.rs`, and `0/1` is all of them.
# The results stand in target/mutations/mutants-0-16/mutants.out: missed.txt, caught.txt, timeout.txt, unviable.txt.
set -euo pipefail
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
shard=${1:?which part, such as 0/16}
shift
clone=$root/target/mutations/mutants-src
out=$root/target/mutations/mutants-${shard/\//-}
if [ -d "$clone/.git" ]; then
    git -C "$clone" fetch --quiet "$root" HEAD
    git -C "$clone" checkout --quiet --force FETCH_HEAD
else
    git clone --quiet "$root" "$clone"
fi
cd "$clone"
export SHARDMILL_TEST_TRACES=${SHARDMILL_TEST_TRACES:-400} RUST_BACKTRACE=0
# Not the caller's: the mutants' own incremental builds stay next to the clone.
unset CARGO_TARGET_DIR
target=$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)
export "CARGO_TARGET_${target}_RUNNER=$clone/engine/mutations/mutant-tests.sh"
mkdir -p "$out"
exec nice -n 15 cargo mutants --package shardmill-engine --in-place --baseline skip --timeout 600 --build-timeout 600 \
    --no-shuffle --sharding round-robin --shard "$shard" --output "$out" --colors never \
    --cargo-arg=--lib --cargo-arg=--config=profile.dev.package.shardmill-engine.opt-level=0 \
    --cargo-arg=--config=profile.dev.debug=false "$@"
