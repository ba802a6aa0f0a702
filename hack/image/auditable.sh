#!/usr/bin/env bash
# Builds cargo-auditable once (40 s on two cores) and prints the folder it is in as its last line on stdout.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/contents.sh"

tools="$cache/tools"
marker="$tools/.cargo-auditable-$auditable_version"
# It has no --version of its own.
if [[ ! -x "$tools/bin/cargo-auditable" || ! -e "$marker" ]]; then
  # A target folder of its own, so that our own builds need not wait for its lock. Speed of the build is all that counts.
  CARGO_TARGET_DIR="$tools/target-auditable" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    nice -n 10 cargo install cargo-auditable --version "$auditable_version" --locked --force --root "$tools" >&2
  rm -rf "$tools/target-auditable" "$tools"/.cargo-auditable-*
  touch "$marker"
fi
printf '%s\n' "$tools/bin"
