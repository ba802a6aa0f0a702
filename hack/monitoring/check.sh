#!/usr/bin/env bash
# Has promtool check the alerts of manifests/monitoring, and see each of them fire and not fire. promtool is the one in the PATH; where
# there is none, it is unpacked from Debian's package `prometheus` into the cache folder. Nothing is installed, so no server starts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools="${XDG_CACHE_HOME:-$HOME/.cache}/bos-operator/tools/bin"

fetch_promtool() {
  command -v apt-get >/dev/null || { echo "promtool is needed, and there is no apt-get to get it with" >&2; return 1; }
  local made
  made=$(mktemp -d)
  # apt-get hands the download to a user of its own where it can.
  chmod 777 "$made"
  (
    cd "$made"
    # A fresh machine does not know yet what there is.
    apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }
    dpkg -x prometheus_*.deb unpacked
  )
  mkdir -p "$tools"
  mv "$made/unpacked/usr/bin/promtool" "$tools/"
  rm -rf "$made"
}

PATH="$PATH:$tools"
command -v promtool >/dev/null || fetch_promtool

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The spec of a PrometheusRule is a file of rules.
sed -n '/^spec:/,$p' manifests/monitoring/prometheus-rule.yaml | sed '1d; s/^  //' >"$folder/rules.yaml"
cp hack/monitoring/rules-test.yaml "$folder/"
promtool check rules "$folder/rules.yaml"
promtool test rules "$folder/rules-test.yaml"
