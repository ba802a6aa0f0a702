#!/usr/bin/env bash
# Prints the crates that a program says are in it: name and version, with a tab. cargo-auditable has written them there.
#
#   audited.sh PROGRAM
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/contents.sh"
[[ $# -eq 1 ]] || die "usage: audited.sh PROGRAM"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# It always writes a program too.
objcopy --dump-section ".dep-v0=$work/section" "$1" "$work/program" 2>/dev/null || true
[[ -s "$work/section" ]] || die "$1 does not name its crates: it was not built with cargo auditable"
# JSON, compressed as zlib does it. That is gzip but for head and tail; gzip misses the tail, and jq sees whether all is there.
{ printf '\x1f\x8b\x08\0\0\0\0\0\0\0'; tail -c +3 "$work/section"; } | { gzip -dc 2>/dev/null || true; } \
  | jq -r '.packages[] | select(.kind != "build") | [.name, .version] | @tsv' | LC_ALL=C sort -u
