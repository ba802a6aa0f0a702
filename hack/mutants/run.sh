#!/usr/bin/env bash
# Breaks the rules of docs/ARCHITECTURE.md one after the other and expects the tests to notice.
#
#   hack/mutants/run.sh          applies each patch to a copy of the sources, runs the tests that it names and expects one to fail
#   hack/mutants/run.sh --check  only looks whether every patch still applies and every rule has one; takes a second
#
#   ONLY               only patches are run whose name or tests contain this: ONLY=07-, ONLY=silence, ONLY=bos-engine
#   BOS_MUTANTS_DIR    where the copy of the sources and what is built of it lie (default: bos-operator/mutants in the cache folder)
#   BOS_MUTANTS_LIMIT  seconds after which the tests of a mutant count as hung (default: 300)
#
# A patch begins with lines of comment: the rule and what the mutation breaks in one sentence, then for each test that is
# expected to catch it "# Test: ARGUMENTS OF cargo test". One that only whole programs show names "# Needs: programs" too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work="${BOS_MUTANTS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/bos-operator/mutants}"
limit="${BOS_MUTANTS_LIMIT:-300}"
patches=(hack/mutants/*.patch)
rules=16

say() { printf 'mutants: %s\n' "$*"; }
die() { say "$*"; exit 1; }

# --- patches

rule_of() { basename "$1" | cut -d - -f 1; }
what_of() { awk '/^# (Test|Needs):/ || !/^#/ { exit } { sub(/^# /, ""); printf "%s%s", sep, $0; sep = " " }' "$1"; }
tests_of() { awk '!/^#/ { exit } sub(/^# Test: /, "")' "$1"; }
needs_programs() { awk '!/^#/ { exit 1 } /^# Needs: programs$/ { found = 1; exit } END { exit !found }' "$1"; }

# Outside a repository `git apply` takes the folder as it is.
apply() { GIT_CEILING_DIRECTORIES="$(dirname "$1")" git -C "$1" apply "${@:3}" "$PWD/$2"; }

# check TREE: every patch says what it is and applies, every rule has one.
check() {
  local patch rule wrong=0
  for patch in "${patches[@]}"; do
    if [[ "$(what_of "$patch")" != "Rule $((10#$(rule_of "$patch"))): "*. ]] || [[ -z "$(tests_of "$patch")" ]]; then
      say "$patch: must begin with \"# Rule N: what it breaks.\" for the number in its name, and name its tests"
      wrong=1
    fi
    if ! apply "$1" "$patch" --check; then
      say "$patch: does not apply any more; make it anew for the code as it is now"
      wrong=1
    fi
  done
  for rule in $(seq -w 1 "$rules"); do
    if ! compgen -G "hack/mutants/$rule-*.patch" >/dev/null; then
      say "rule $((10#$rule)): no patch breaks it"
      wrong=1
    fi
  done
  return "$wrong"
}

# --- the copy of the sources

# What git tracks or would, as it is in the checkout; ignored files stay out. What has not changed keeps its time, so that it need not be built again.
copy_sources() {
  mkdir -p "$1"
  git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -f "$file" ]] && ! cmp -s "$file" "$1/$file"; then
      mkdir -p "$1/$(dirname "$file")"
      cp "$file" "$1/$file"
    fi
  done
  # What is gone from the checkout.
  (cd "$1" && find . -type f -printf '%P\0') | while IFS= read -r -d '' file; do
    [[ -f "$file" ]] || rm "$1/$file"
  done
}

if [[ "${1:-}" == --check ]]; then
  tree=$(mktemp -d)
  trap 'rm -rf "$tree"' EXIT
  sed -n 's|^--- a/||p' "${patches[@]}" | sort -u | xargs -d '\n' cp --parents -t "$tree" || die "a patch is for a file that is gone"
  check "$tree" || die "see above"
  say "${#patches[@]} patches apply, every rule has one"
  exit 0
fi

mkdir -p "$work"
exec 9>"$work/lock"
flock -n 9 || die "another run uses $work"
tree="$work/tree"
log="$work/log"
export CARGO_TARGET_DIR="$work/target" CARGO_TERM_COLOR=never RUST_BACKTRACE=0
export BOS_OPERATOR_BIN="$work/target/debug/bos-operator" BOS_SITE_BIN="$work/target/debug/bos-site"
copy_sources "$tree"
check "$tree" || die "see above"

# --- running

# Our own crates are built again for every mutant, so that a quick build counts more than quick tests.
quick=()
for crate in bos-crds bos-core bos-services bos-engine; do
  quick+=(--config "profile.dev.package.$crate.opt-level=0")
done

in_tree() { (cd "$tree" && "$@") >"$log" 2>&1 9>&-; }

build() {
  local arguments
  if needs_programs "$1"; then
    in_tree hack/control-plane/build.sh || return 1
    in_tree cargo build "${quick[@]}" --workspace --bins || return 1
  fi
  while IFS= read -r arguments; do
    # shellcheck disable=SC2086
    in_tree cargo test "${quick[@]}" $arguments --no-run || return 1
  done < <(tests_of "$1")
}

# run_tests ARGUMENTS: 0 when they pass, 1 when one fails, 2 when they end in no verdict.
run_tests() {
  local code=0
  # shellcheck disable=SC2086
  in_tree timeout --kill-after=10 "$limit" cargo test "${quick[@]}" $1 || code=$?
  if [[ $code -eq 0 ]]; then
    grep -qE '^test result: ok\. [1-9]' "$log" || return 2
    return 0
  fi
  grep -qE '^test .+ FAILED$' "$log" && return 1
  return 2
}

chosen=()
for patch in "${patches[@]}"; do
  if [[ "$(basename "$patch") $(tests_of "$patch")" == *"${ONLY:-}"* ]]; then
    chosen+=("$patch")
  fi
done
[[ ${#chosen[@]} -gt 0 ]] || die "no patch has ${ONLY:-} in its name or tests"

say "the tests pass without any mutation"
while IFS= read -r arguments; do
  # shellcheck disable=SC2086
  in_tree cargo test "${quick[@]}" $arguments --no-run || { tail -n 40 "$log"; die "the sources do not compile"; }
  run_tests "$arguments" || { tail -n 40 "$log"; die "cargo test $arguments fails, or runs nothing, without a mutation"; }
done < <(for patch in "${chosen[@]}"; do tests_of "$patch"; done | sort -u)

undo() {
  local file
  # With a time of its own, so that it is built again.
  while IFS= read -r file; do
    cp "$file" "$tree/$file"
  done < <(sed -n 's|^+++ b/||p' "$1")
}

caught=0
survivors=()
for patch in "${chosen[@]}"; do
  name=$(basename "$patch" .patch)
  began=$SECONDS
  apply "$tree" "$patch" || die "$patch does not apply"
  verdict=''
  if ! build "$patch"; then
    grep -m 3 -E '^error' "$log" || tail -n 5 "$log"
    verdict='DOES NOT COMPILE, which catches nothing'
  else
    while IFS= read -r arguments; do
      code=0
      run_tests "$arguments" || code=$?
      if [[ $code -eq 1 ]]; then
        by=$(sed -nE 's/^test (.+) \.\.\. FAILED$/\1/p' "$log" | awk 'NR <= 3 { printf "%s%s", sep, $0; sep = ", " } END { if (NR > 3) printf " and %d more", NR - 3 }')
        verdict="caught by $by"
        break
      elif [[ $code -eq 2 ]]; then
        verdict="NO VERDICT: cargo test $arguments hung or ran nothing"
      fi
    done < <(tests_of "$patch")
  fi
  undo "$patch"
  printf '%-45s %s (%d s)\n' "$name" "${verdict:-SURVIVED}" $((SECONDS - began))
  if [[ "$verdict" == caught* ]]; then
    caught=$((caught + 1))
  else
    survivors+=("$name: $(what_of "$patch")")
  fi
done

say "$caught of ${#chosen[@]} mutants caught"
if [[ ${#survivors[@]} -gt 0 ]]; then
  printf '  not caught: %s\n' "${survivors[@]}"
  die "the tests have a hole: write the test that is missing (controller/core/tests/rules), do not drop the mutant"
fi
