#!/usr/bin/env bash
# Makes the image as an OCI layout, without an engine: the last stage of the Dockerfile, from the same files. The same input gives
# the same digest.
#
#   build.sh PROGRAMS OUT    PROGRAMS: the folder with the built programs; OUT: a folder, which is made anew
#
#   VERSION             of the label and the tag (default: that of the workspace)
#   REVISION            of the label (default: the commit; with -dirty when the checkout is changed)
#   SOURCE_DATE_EPOCH   the time of all files and of the image (default: that of the commit)
#
# Leaves OUT/oci (for example for `skopeo copy oci:OUT/oci:VERSION docker://REGISTRY/bos-operator:VERSION`) and OUT/sbom.cdx.json.
set -euo pipefail
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/contents.sh"
[[ $# -eq 2 ]] || die "usage: build.sh PROGRAMS OUT"
for tool in jq strip dpkg tar gzip sha256sum; do
  command -v "$tool" >/dev/null || die "$tool is needed (Debian packages: jq binutils dpkg tar gzip coreutils)"
done

built=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
cd "$here/../.."
revision() {
  local commit
  commit=$(git rev-parse HEAD) || return
  [[ -z "$(git status --porcelain)" ]] && printf '%s' "$commit" || printf '%s-dirty' "$commit"
}
VERSION="${VERSION:-$(cargo pkgid --locked -p bos-operator | sed 's/.*[#@]//')}"
REVISION="${REVISION:-$(revision)}"
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
architecture=$(dpkg --print-architecture)
created=$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$out/oci" "$out/sbom.cdx.json"
blobs="$out/oci/blobs/sha256"
mkdir -p "$blobs"

# blob FILE: moves it to its place and prints its digest.
blob() {
  local digest
  digest=$(sha256sum "$1" | cut -c1-64)
  mv "$1" "$blobs/$digest"
  printf '%s' "$digest"
}

# layer FOLDER: packs it, and adds it to the lists of layers and of what they are unpacked. Nothing of this machine gets in but the
# files and their modes: not their order, owners, times, nor gzip's.
layers='[]'
unpacked='[]'
layer() {
  local tarball="$work/layer.tar" digest
  tar --create --file "$tarball" --directory "$1" --format=gnu --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
    --owner=root:0 --group=root:0 --numeric-owner .
  unpacked=$(jq -c --arg digest "sha256:$(sha256sum "$tarball" | cut -c1-64)" '. + [$digest]' <<<"$unpacked")
  gzip --no-name -6 "$tarball"
  local size
  size=$(stat --format=%s "$tarball.gz")
  digest=$(blob "$tarball.gz")
  layers=$(jq -c --arg digest "sha256:$digest" --argjson size "$size" \
    '. + [{mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: $digest, size: $size}]' <<<"$layers")
}

# What the last stage of the Dockerfile says of the image, as the `config` of its configuration.
config() {
  local config='{}' instruction rest
  while read -r instruction rest; do
    rest=${rest//'${VERSION}'/$VERSION}
    rest=${rest//'${REVISION}'/$REVISION}
    case "$instruction" in
      '' | '#'* | ARG | COPY | FROM) ;; # the copies are the layers below
      USER) config=$(jq --arg user "$rest" '.User = $user' <<<"$config") ;;
      ENV) config=$(jq --arg variable "$rest" '.Env += [$variable]' <<<"$config") ;;
      ENTRYPOINT) config=$(jq --argjson command "$rest" '.Entrypoint = $command' <<<"$config") ;;
      LABEL) config=$(jq --arg name "${rest%%=*}" --argjson value "${rest#*=}" '.Labels[$name] = $value' <<<"$config") ;;
      *) die "the last stage of the Dockerfile has an instruction that is not known here: $instruction" ;;
    esac
  done < <(sed -n '/^FROM scratch$/,$p' Dockerfile)
  printf '%s' "$config"
}

# describe MEDIA-TYPE FILE: its descriptor; the file becomes a blob.
describe() {
  local size digest
  size=$(stat --format=%s "$2")
  digest=$(blob "$2")
  jq -n --arg type "$1" --arg digest "sha256:$digest" --argjson size "$size" '{mediaType: $type, digest: $digest, size: $size}'
}

"$here/rootfs.sh" "$work/root"
mkdir -p "$work/programs/usr/bin"
for program in "${programs[@]}"; do
  # A release is stripped already; what tests use is not.
  strip --strip-all -o "$work/programs/usr/bin/$program" "$built/$program"
done
chmod 0755 "$work"/programs/usr/bin/*
"$here/sbom.sh" "$work/root" "$VERSION" "$created" >"$out/sbom.cdx.json"

# The order of the copies in the Dockerfile.
layer "$work/root"
layer "$work/programs"
config=$(config)
jq -n --arg created "$created" --arg architecture "$architecture" --argjson config "$config" --argjson unpacked "$unpacked" \
  '{created: $created, architecture: $architecture, os: "linux", config: $config, rootfs: {type: "layers", diff_ids: $unpacked},
    history: [$unpacked[] | {created: $created, created_by: "hack/image/build.sh"}]}' >"$work/config"
described=$(describe application/vnd.oci.image.config.v1+json "$work/config")
jq -n --argjson config "$described" --argjson layers "$layers" \
  '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: $layers}' >"$work/manifest"
described=$(describe application/vnd.oci.image.manifest.v1+json "$work/manifest")
jq -n --argjson manifest "$described" --arg architecture "$architecture" --arg tag "$VERSION" \
  '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [$manifest
    + {platform: {architecture: $architecture, os: "linux"}, annotations: {"org.opencontainers.image.ref.name": $tag}}]}' >"$out/oci/index.json"
printf '{"imageLayoutVersion":"1.0.0"}\n' >"$out/oci/oci-layout"
say "made $out/oci, tag $VERSION, $(jq -r '.manifests[0].digest' "$out/oci/index.json")"
