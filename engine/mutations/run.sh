#!/usr/bin/env bash
# Applies each patch of a folder to a copy of the last commit, runs tests, and prints what caught it.
#
#   engine/mutations/run.sh seeded [name…]    twelve planted bugs, against explorer, model and random runs
#   engine/mutations/run.sh lineage [name…]   planted bugs of the gate between parents and children, against its tests
#   engine/mutations/run.sh balance [name…]   planted bugs of the plan who gets which lease, against its tests
#   engine/mutations/run.sh lease [name…]     planted bugs of one lease, against its tests and their explorer
#   engine/mutations/run.sh fleet [name…]     planted bugs of keeper and store, against the simulator and tests of a fleet
#   engine/mutations/run.sh rules [name…]     one-line mutations, each against the tests of the rule it is named after
#   engine/mutations/run.sh check             only whether every patch applies to the work tree; nothing is built
#
# A name may be the beginning of a patch's: `rules r24` or `seeded 07`. LIMIT: seconds that one run of tests may take.
#
# Ends with an error if a patch does not apply, does not compile or is not caught, or only by a run that did not end.
set -uo pipefail
root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
kind=${1:?seeded, lineage, balance, lease, fleet, rules or check}
shift
if [ "$kind" = check ]; then
    failed=0
    for patch in "$root"/engine/mutations/*/*.patch; do
        git -C "$root" apply --check "$patch" || { echo "DOES NOT APPLY: ${patch#"$root"/}"; failed=1; }
    done
    exit $failed
fi
patches=$root/engine/mutations/$kind
[ -d "$patches" ] || { echo "no folder $patches" >&2; exit 2; }
copy=$root/target/mutations/copy-$kind
log=$root/target/mutations/log-$kind
# A folder of its own: two kinds may run at the same time, and their test programs have the same name.
export CARGO_TARGET_DIR=$root/target/mutations/target-$kind SHARDMILL_TEST_TRACES=${SHARDMILL_TEST_TRACES:-6000}
export RUST_BACKTRACE=0
mkdir -p "$(dirname "$copy")"
git -C "$root" worktree remove --force "$copy" 2>/dev/null
git -C "$root" worktree add --quiet --detach "$copy" HEAD || exit 2
trap 'git -C "$root" worktree remove --force "$copy"' EXIT

# The test programs.
targets=(--package shardmill-engine --lib)
[ "$kind" = fleet ] && targets=(--package shardmill --lib --test simulator --test behaviour)

# What the tests are that should catch a patch, by parts of their names: one run for each line.
tests_of() {
    case $kind in
        seeded) printf '%s\n' 'machine_and_model no_random_run the_counters_are' 'explored_' ;;
        lineage | balance | lease) echo "fleet::$kind" ;;
        fleet) printf '%s\n' 'keeper:: fleet:: leases:: seed' ;;
        # r37-progress-keeps-….patch: all tests that have r37 in their name, or r37a to r37c.
        rules) basename "$1" .patch | sed -E 's/^([a-z][0-9]+).*/::\1_ _\1_ ::\1a_ ::\1b_ ::\1c_/' ;;
    esac
}

# Unoptimised, compiling costs less, and what a test finds it mostly finds at once.
options=(--config profile.dev.debug=false --config profile.dev.package.shardmill-engine.opt-level=0)
# An exploration that finds nothing is long: the first that finds something is enough.
test_options=(--nocapture)
if [ "$kind" = seeded ]; then
    test_options+=(-Z unstable-options --fail-fast)
    host=$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)
    export "CARGO_TARGET_${host}_RUNNER=env RUSTC_BOOTSTRAP=1"
fi

# Names are printed as tests end, so that a run that is cut off has told what failed before.
suite() {
    local names cut=0 test=(cargo test --no-fail-fast "${options[@]}" "${targets[@]}")
    (cd "$copy" && ${SLOT:-} "${test[@]}" --no-run) >"$log" 2>&1 || return 1
    while read -r names; do
        # shellcheck disable=SC2086
        (cd "$copy" && timeout "${LIMIT:-900}" "${test[@]}" -- "${test_options[@]}" $names) >>"$log" 2>&1 </dev/null
        [ $? -eq 124 ] && cut=124
    done < <(tests_of "$1")
    return $cut
}

is_asked_for() {
    local name=$1
    shift
    [ $# -eq 0 ] && return 0
    for asked in "$@"; do [[ "$name" == "$asked" || "$name" == "$asked"-* ]] && return 0; done
    return 1
}

failed=0 count=0
printf '%-52s %s\n' mutation 'caught by'
for patch in "$patches"/*.patch; do
    name=$(basename "$patch" .patch)
    is_asked_for "$name" "$@" || continue
    count=$((count + 1))
    git -C "$copy" checkout --quiet -- . && git -C "$copy" apply "$patch" 2>/dev/null ||
        { printf '%-52s %s\n' "$name" 'DOES NOT APPLY'; failed=$((failed + 1)); continue; }
    suite "$patch"
    code=$?
    by=$(sed -nE 's/^(.* )?test ([a-z_0-9]+::)*([a-z0-9_]+) \.\.\. (.*)?FAILED$/\3/p; s/^    ([a-z_0-9]+::)+([a-z0-9_]+)$/\2/p' "$log" | sort -u | paste -sd' ')
    if grep -q '^error\(\[\|: could not compile\)' "$log"; then
        by='DOES NOT COMPILE' failed=$((failed + 1))
    elif [ -z "$by" ]; then
        by='NOTHING' failed=$((failed + 1))
        grep -q 'running 0 tests' "$log" && by='NOTHING (no test has the rule in its name)'
        [ $code -eq 124 ] && by='NOTHING (a run without end)'
    else
        why=$(grep -ohE 'I[0-9]+ is broken|I[0-9]+ broken|^I[0-9]+: [a-z ]{5,60}|R[0-9]+: [a-z ]{5,60}|busy loop|stuck|actions without end' "$log" | sort | uniq -c | sort -rn | head -3 | sed -E 's/^ +[0-9]+ //' | paste -sd,)
        [ -n "$why" ] && by="$by ($why)"
        [ $code -eq 124 ] && by="$by (the rest was cut off)"
    fi
    printf '%-52s %s\n' "$name" "$by"
done
echo "$((count - failed)) of $count caught"
exit $((failed > 0))
