#!/usr/bin/env bash
# Prints the crates that go into programs, one a line: name, version, SHA-256 of the package (none for our own), licence; with tabs.
#
#   crates.sh PACKAGE...    of this workspace
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/contents.sh"
[[ $# -gt 0 ]] || die "usage: crates.sh PACKAGE..."
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Macros run in the compiler and are not in the programs.
cargo tree --locked "${@/#/--package=}" -e normal,no-proc-macro --prefix none --no-dedupe --format $'{p}\t{l}' \
  | sed -e '/^$/d' -e 's/ v\([^ \t]*\)[^\t]*\t/\t\1\t/' | LC_ALL=C sort -u \
  | awk -F '\t' -v OFS='\t' '
    NR == FNR {
      split($0, word, "\"")
      if (/^name = /) name = word[2]
      if (/^version = /) version = word[2]
      if (/^checksum = /) checksum[name " " version] = word[2]
      next
    }
    { print $1, $2, checksum[$1 " " $2], $3 }' Cargo.lock -
