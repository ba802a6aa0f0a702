#!/usr/bin/env bash
# Upgrades the operator in the middle of Sessions, from an older release to what is in this checkout, and goes back (docs/upgrade.md). The
# older one is built from its commit: some minutes the first time, and 2 GB in the cache folder.
#
#   BOS_OLD_COMMIT         the older release (default: the first that anybody was told of)
#   BOS_OLD_OPERATOR_BIN   its operator, where it is built already
#   CARGO_TARGET_DIR       where this one is built (default: bos-operator/target in the cache folder)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

commit="${BOS_OLD_COMMIT:-b6250a789433cad7f741a284339b28b287146280}"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/bos-operator"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
sources="$cache/upgrade/$commit"

if [[ ! -d $sources ]]; then
  git rev-parse -q --verify "$commit^{commit}" >/dev/null || {
    echo "upgrade: commit $commit is not in this clone; a shallow one gets it by: git fetch --unshallow" >&2
    exit 1
  }
  mkdir -p "$cache/upgrade"
  # Whole or not at all.
  unpacked=$(mktemp -d "$cache/upgrade/unpacking-XXXXXX")
  git archive "$commit" | tar -x -C "$unpacked"
  chmod 755 "$unpacked"
  mv "$unpacked" "$sources"
fi

if [[ -z ${BOS_OLD_OPERATOR_BIN:-} ]]; then
  echo "== building the operator of ${commit:0:7} in $cache/upgrade-target (some minutes the first time)"
  (
    cd "$sources"
    # Nobody looks into it with a debugger.
    export CARGO_TARGET_DIR="$cache/upgrade-target" CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0
    cargo build -q --locked --workspace --bin bos-operator
  )
  BOS_OLD_OPERATOR_BIN="$cache/upgrade-target/debug/bos-operator"
fi
export BOS_OLD_OPERATOR_BIN BOS_OLD_MANIFESTS="$sources/manifests"

echo "== upgrading from ${commit:0:7} in the middle of Sessions, and back"
cargo test -q --workspace --test upgrade -- --ignored --nocapture
