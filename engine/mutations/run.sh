#!/usr/bin/env bash
# Applies each patch of a folder to a copy of the last commit, runs tests of the engine, and prints what caught it.
#
#   engine/mutations/run.sh seeded [name…]   twelve planted bugs, against explorer, model and random runs
#   engine/mutations/run.sh rules [name…]    one-line mutations, each against the tests of the rule it is named after
#
# Ends with an error if a patch does not apply, does not compile or is not caught.
set -uo pipefail
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
kind=${1:?seeded or rules}
shift
patches=$root/engine/mutations/$kind
[ -d "$patches" ] || { echo "no folder $patches" >&2; exit 2; }
copy=$root/target/mutations/copy
log=$root/target/mutations/log
export CARGO_TARGET_DIR=$root/target/mutations/target SHARDMILL_TEST_TRACES=${SHARDMILL_TEST_TRACES:-6000}
export RUST_BACKTRACE=0
mkdir -p "$(dirname "$copy")"
git -C "$root" worktree remove --force "$copy" 2>/dev/null
git -C "$root" worktree prune
git -C "$root" worktree add --quiet --detach "$copy" HEAD || exit 2
trap 'git -C "$root" worktree remove --force "$copy"' EXIT

tests_of() {
    case $kind in
        seeded) echo "explored_ machine_and_model no_random_run" ;;
        # r37-budget-resets.patch: all tests that begin with r37, and the model's comparison.
        rules) basename "$1" .patch | sed -E 's/^([a-z][0-9]+).*/::\1_/' ;;
    esac
}

# Unoptimised: compiling costs more than running here. A run that hangs is a run that fails, with its own name.
suite() {
    # shellcheck disable=SC2046
    (cd "$copy" && ${SLOT:-} timeout "${LIMIT:-900}" cargo test --quiet --config profile.dev.package.shardmill-engine.opt-level=0 --package shardmill-engine --lib -- $(tests_of "$1")) >"$log" 2>&1
}

failed=0
printf '%-44s %s\n' mutation 'caught by'
for patch in "$patches"/*.patch; do
    name=$(basename "$patch" .patch)
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
    git -C "$copy" checkout --quiet -- . && git -C "$copy" apply "$patch" || { echo "$name: does not apply"; failed=1; continue; }
    suite "$patch"
    code=$?
    if grep -q '^error\(\[\|: could not compile\)' "$log"; then
        by='DOES NOT COMPILE' failed=1
    elif [ $code -eq 0 ]; then
        by='NOTHING' failed=1
        grep -q 'running 0 tests' "$log" && by='NOTHING (no test has the rule in its name)'
    else
        by=$(sed -nE 's/^(test )?([a-z_]+::)*([a-z0-9_]+) (---|\.\.\.) FAILED$/\3/p' "$log" | sort -u | paste -sd' ')
        [ -n "$by" ] || by=$([ $code -eq 124 ] && echo 'a run without end' || echo 'a crash of the test run')
        why=$(grep -ohE 'I[0-9]+ broken|R[0-9]+: [a-z ]{5,60}|busy loop|stuck' "$log" | sort | uniq -c | sort -rn | head -3 | sed -E 's/^ +[0-9]+ //' | paste -sd,)
        [ -n "$why" ] && by="$by ($why)"
    fi
    printf '%-44s %s\n' "$name" "$by"
done
exit $failed
