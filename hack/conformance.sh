#!/usr/bin/env bash
# Checks docs/conformance.md against a run of all tests: each row has tests, and each test that is named was run and is ok.
#
#   conformance.sh check DOCUMENT OUTPUT CASES   OUTPUT is what `cargo test --workspace` printed, CASES what BOS_CASES named
#   conformance.sh self-test                     shows that this script notices what it is there for
#
# `make test` does both. Ends with 1 and names each item that is missing.
set -euo pipefail

# How many rows of each kind there must be.
rows='check=13 defect=36 rule=16 boot=13 reboot=17 off=9 acceptance=12 vboot=14 vconfigure=7 vshutdown=7 agent=9 install=14 ha=5 image=2 observe=7 secret=5'

# Every line of the tests as "TARGET::TEST VERDICT". Cargo names the target in the line before: its file, or for unit tests the program.
verdicts() {
  sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
    $1 == "Running" && $2 == "unittests" { target = program($NF) }
    $1 == "Running" && $2 ~ /^tests\// { target = $2; sub(/^tests\//, "", target); sub(/(\/main)?\.rs$/, "", target) }
    $1 == "Doc-tests" { target = "doc" }
    /^test .* \.\.\. (ok|FAILED|ignored)/ { print target "::" $2, $NF == "ok" ? "ok" : "not ok" }
    function program(path) { gsub(/^.*\/|-[0-9a-f]*\)$/, "", path); return path }
  '
}

check() {
  local document=$1 output=$2 cases=$3 ran
  [[ -s $output && -e $cases ]] || { echo "conformance: no test has been run: $output, $cases" >&2; return 1; }
  ran=$(mktemp)
  verdicts "$output" >"$ran"
  local code=0
  awk -v rows="$rows" -v ran="$ran" -v cases="$cases" '
    BEGIN {
      while ((getline line < ran) > 0) { split(line, part, " "); seen[part[1]]++; if (line ~ / ok$/ && line !~ / not ok$/) ok[part[1]]++ }
      # Each line: the target and the name of a case that was ok.
      while ((getline line < cases) > 0) done[line] = 1
    }
    function wrong(text) { print "conformance: " text; bad++ }
    # One name from the last column: TARGET::TEST, perhaps followed by a case in quotes.
    function test(id, name,    quote, target, title) {
      if (name !~ /^[a-z0-9_]+(::[a-z0-9_]+)+( "[^"]+")?$/) { wrong(id ": `" name "` is no name of a test"); return }
      quote = index(name, " ")
      title = quote ? substr(name, quote + 2, length(name) - quote - 2) : ""
      if (quote) name = substr(name, 1, quote - 1)
      named[name] = 1
      if (seen[name] > 1) wrong(id ": " name " names more than one test")
      else if (!seen[name]) wrong(id ": " name " was not run; is there such a test?")
      else if (!ok[name]) wrong(id ": " name " is not ok (failed or ignored)")
      target = name
      sub(/::.*/, "", target)
      if (title != "" && !((target " " title) in done)) wrong(id ": " name " has no case \"" title "\" that was ok")
    }
    /^## / { missing = $0 == "## Not there yet" }
    missing && /^\* / {
      print "conformance: not there yet: " substr($0, 3)
      if ($2 ~ /^[a-z]+-[0-9]+:$/) excused[substr($2, 1, length($2) - 1)] = 1
    }
    /^\| *[a-z]+-[0-9]+ *\|/ {
      count = split($0, cell, "|")
      id = cell[2]
      gsub(/ /, "", id)
      if (has[id]++) wrong(id " has two rows")
      tests[id] = split(cell[count - 1], quoted, "`")
      tests[id] = int(tests[id] / 2)
      for (i = 1; i <= tests[id]; i++) test(id, quoted[2 * i])
    }
    END {
      for (id in has) if (!tests[id] && !(id in excused)) wrong(id " names no test")
      for (id in excused) if (!has[id]) wrong(id " is not there yet and has no row")
      many = split(rows, kind, " ")
      for (k = 1; k <= many; k++) {
        split(kind[k], part, "=")
        for (i = 1; i <= part[2]; i++) { wanted[part[1] "-" i] = 1; total++; if (!has[part[1] "-" i]) wrong(part[1] "-" i " has no row") }
      }
      for (id in has) if (!(id in wanted)) wrong(id " is no row that is known")
      for (name in named) distinct++
      if (bad) { print "conformance: " bad " items are wrong"; exit 1 }
      print "conformance: " total " rows, " distinct " tests, all run and ok"
    }' "$document" || code=1
  rm -f "$ran"
  return "$code"
}

# --- the self-test: a document and a run that fit, then each of them changed

self_test() {
  local folder
  folder=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder is known now
  trap "rm -rf '$folder'" RETURN
  rows='rule=2 boot=1'
  cat >"$folder/document" <<'END'
## Rules
| Id | What | Tests |
|---|---|---|
| rule-1 | one | `rules::order::first`, `bos_core::limit::tests::second` |
| rule-2 | two | `boot::trouble "many silent nodes"` |
## Workflows
| boot-1 | three | |
## Not there yet
* boot-1: nobody has done it.
* Something that is no row.
END
  cat >"$folder/output" <<'END'
     Running unittests src/lib.rs (/somewhere/debug/deps/bos_core-0123456789abcdef)
test limit::tests::second ... ok
     Running tests/rules.rs (/somewhere/debug/deps/rules-0123456789abcdef)
test order::first ... ok
     Running tests/boot/main.rs (/somewhere/debug/deps/boot-0123456789abcdef)
test trouble ... ok
END
  echo 'boot many silent nodes' >"$folder/cases"
  check "$folder/document" "$folder/output" "$folder/cases" >"$folder/said" || { cat "$folder/said"; return 1; }
  [[ $(grep -c 'not there yet: \(boot-1\|Something\)' "$folder/said") == 2 ]] || { echo "conformance: what is not there is not printed"; return 1; }
  # notices FILE SED-COMMAND WORDS: with this change it fails, with these words.
  notices() {
    cp "$folder/$1" "$folder/kept"
    sed -i "$2" "$folder/$1"
    if cmp -s "$folder/$1" "$folder/kept"; then echo "conformance: \"$2\" changes nothing"; return 1; fi
    if check "$folder/document" "$folder/output" "$folder/cases" >"$folder/said" 2>&1 || ! grep -qF "$3" "$folder/said"; then
      echo "conformance: \"$2\" in $1 was not noticed:"
      cat "$folder/said"
      return 1
    fi
    cp "$folder/kept" "$folder/$1"
  }
  notices document 's/`rules::order::first`, .*|/ |/' 'rule-1 names no test' || return 1
  notices document 's/order::first/order::frist/' 'rules::order::frist was not run' || return 1
  notices document 's/`rules::order::first`/`the first`/' 'is no name of a test' || return 1
  notices document '/^| rule-2/d' 'rule-2 has no row' || return 1
  notices document 's/rule-2/rule-3/' 'rule-3 is no row that is known' || return 1
  notices document 's/rule-2/rule-1/' 'rule-1 has two rows' || return 1
  notices document '/^\* /d' 'boot-1 names no test' || return 1
  notices document 's/many silent/few silent/' 'has no case "few silent nodes"' || return 1
  notices output 's/order::first ... ok/order::first ... ignored, slow/' 'rules::order::first is not ok' || return 1
  notices output 's/trouble ... ok/trouble ... FAILED/' 'boot::trouble is not ok' || return 1
  notices output '/order::first/d' 'rules::order::first was not run' || return 1
  notices output 's/tests\/rules.rs/tests\/truth.rs/' 'rules::order::first was not run' || return 1
  notices output '/order::first/p' 'names more than one test' || return 1
  notices output 'd' 'no test has been run' || return 1
  notices cases 'd' 'has no case "many silent nodes"' || return 1
  notices cases 's/boot/capmc/' 'has no case "many silent nodes"' || return 1
}

case "${1:-}" in
  check) check "$2" "$3" "$4" ;;
  self-test) self_test ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
