#!/usr/bin/env bash
# Prints what is in the image, as CycloneDX 1.5: the crates of the programs and the packages of Debian.
#
#   sbom.sh ROOT VERSION TIME    ROOT: the root file system that rootfs.sh made
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/contents.sh"
[[ $# -eq 3 ]] || die "usage: sbom.sh ROOT VERSION TIME"
# Names the Debian.
source "$1/etc/os-release"

crates() {
  # Licences of before 2021 are written with a slash.
  "$here/crates.sh" "${programs[@]}" | jq -R 'split("\t") | {
    type: "library", name: .[0], version: .[1], purl: "pkg:cargo/\(.[0])@\(.[1])",
    licenses: [{expression: (.[3] | gsub(" */ *"; " OR "))}]
  } + if .[2] == "" then {} else {hashes: [{alg: "SHA-256", content: .[2]}]} end'
}

debian() {
  awk -v OFS='\t' '/^Package:/ { name = $2 } /^Version:/ { version = $2 } /^Architecture:/ { architecture = $2 }
    /^$/ { print name, version, architecture }' "$1/var/lib/dpkg/status" \
    | jq -R --arg distro "$ID-$VERSION_ID" --arg vendor "$ID" 'split("\t") | {
      type: "library", name: .[0], version: .[1],
      purl: "pkg:deb/\($vendor)/\(.[0])@\(.[1] | @uri)?arch=\(.[2])&distro=\($distro)"
    }'
}

components=$(crates; debian "$1")
jq -n --arg version "$2" --arg time "$3" --slurpfile components <(printf '%s' "$components") '{
  bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
  metadata: {timestamp: $time, component: {type: "container", name: "bos-operator", version: $version}},
  components: ($components | map(. + {"bom-ref": .purl}))
}'
