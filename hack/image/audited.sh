#!/usr/bin/env bash
# Checks that a program says which crates are in it, as cargo-auditable has it do. Scanners of images read that.
#
#   audited.sh PROGRAM PACKAGE    PACKAGE: of this workspace, from which the program was built
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/contents.sh"
[[ $# -eq 2 ]] || die "usage: audited.sh PROGRAM PACKAGE"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# It always writes a program too.
objcopy --dump-section ".dep-v0=$work/section" "$1" "$work/program" 2>/dev/null || true
[[ -s "$work/section" ]] || die "$1 does not name its crates: it was not built with cargo auditable"
# JSON, compressed as zlib does it. That is gzip but for head and tail; gzip misses the tail, and jq sees whether all is there.
{ printf '\x1f\x8b\x08\0\0\0\0\0\0\0'; tail -c +3 "$work/section"; } | { gzip -dc 2>/dev/null || true; } \
  | jq -r '.packages[] | [.name, .version] | @tsv' | LC_ALL=C sort -u >"$work/named"
# It names macros and some optional crates besides.
"$here/crates.sh" "$2" | cut -f 1,2 | LC_ALL=C sort -u | LC_ALL=C comm -23 - "$work/named" >"$work/missing"
[[ ! -s "$work/missing" ]] || die "$1 does not name: $(tr '\t\n' ' ,' <"$work/missing")"
say "${1##*/} names $(wc -l <"$work/named") crates"
