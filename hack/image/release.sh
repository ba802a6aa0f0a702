#!/usr/bin/env bash
# Builds the programs of the image as they are released, and copies them into a folder.
#
#   release.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/contents.sh"
[[ $# -eq 1 ]] || die "usage: release.sh FOLDER"

tools=$("$here/auditable.sh" | tail -n 1)
cd "$here/../.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
say "building ${programs[*]} for release (about 10 minutes on two cores when nothing is cached)"
PATH="$tools:$PATH" CARGO_TARGET_DIR="$target" cargo auditable build --release --locked "${programs[@]/#/--bin=}"
mkdir -p "$1"
install -m 0755 "${programs[@]/#/$target/release/}" "$1"
