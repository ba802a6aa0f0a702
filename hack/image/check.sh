#!/usr/bin/env bash
# Looks at an image that build.sh made, and runs its programs inside: what a registry, a scanner and a kubelet would find.
#
#   check.sh OUT [--released]    OUT: the folder given to build.sh; --released: also what only a release has
#
# Needs root (or sudo), for the programs run in a root file system and mount and network namespaces of their own.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/contents.sh"
[[ $# -eq 1 || ( $# -eq 2 && $2 == --released ) ]] || die "usage: check.sh OUT [--released]"
out=$(cd "$1" && pwd)
released=${2:-}
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || die "root is needed: what is in the image is run in namespaces of its own"
  exec sudo "$here/check.sh" "$@"
fi
for tool in umoci jq readelf objcopy unshare setpriv; do
  command -v "$tool" >/dev/null || die "$tool is needed (Debian packages: umoci jq binutils util-linux)"
done

# As in the manifests.
user=65532
# MiB, as it is pulled and on disk. Programs of the test profile are somewhat larger.
if [[ -n "$released" ]]; then most_packed=35 most_unpacked=100; else most_packed=45 most_unpacked=150; fi
bundle=etc/ssl/certs/ca-certificates.crt

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A stranger must get into it.
chmod 0755 "$work"
blob() { cat "$out/oci/blobs/sha256/${1#sha256:}"; }
manifest=$(blob "$(jq -r '.manifests[0].digest' "$out/oci/index.json")")
config=$(blob "$(jq -r '.config.digest' <<<"$manifest")")
version=$(jq -r '.config.Labels["org.opencontainers.image.version"]' <<<"$config")

# Another program than the one that made it reads it, and checks every digest.
umoci unpack --image "$out/oci:$version" "$work/bundle" >"$work/unpack" 2>&1 || { cat "$work/unpack" >&2; die "umoci cannot unpack it"; }
root="$work/bundle/rootfs"

# at PATH: the file it leads to within the image, links followed as they are there.
at() {
  local path=$1 link
  while [[ -L "$root$path" ]]; do
    link=$(readlink "$root$path")
    [[ "$link" == /* ]] && path=$link || path=$(dirname "$path")/$link
  done
  [[ -e "$root$path" ]] || return 1
  printf '%s' "$root$path"
}

check_config() {
  jq -e --arg user "$user:$user" '.config.User == $user' <<<"$config" >/dev/null || die "its user is not $user"
  local entrypoint name
  entrypoint=$(jq -r '.config.Entrypoint[0]' <<<"$config")
  [[ -x $(at "$entrypoint") ]] || die "its entry point is not in it: $entrypoint"
  for name in title description licenses version revision; do
    jq -e --arg name "org.opencontainers.image.$name" '(.config.Labels[$name] // "") | length > 0 and . != "unknown"' <<<"$config" >/dev/null \
      || die "the label org.opencontainers.image.$name says nothing"
  done
}

# What the manifests run is in it, and they ask for this version.
check_manifests() {
  local manifests="$here/../../manifests" command tag count=0
  while read -r command; do
    [[ -x "$root$command" ]] || die "the manifests run $command, which is not in it"
    count=$((count + 1))
  done < <(grep -rhoP '^ +command: \[\K[^],]+' "$manifests/base" "$manifests/webhook")
  [[ "$count" -eq ${#programs[@]} ]] || die "the manifests run $count programs of ${#programs[@]}"
  for tag in $(grep -rhoP '^  newTag: \K.*' "$manifests/base" "$manifests/webhook"); do
    [[ "$tag" == "$version" ]] || die "the manifests want version $tag, and this is $version"
  done
}

# The engine makes the image of what these scripts made.
check_dockerfile() {
  local line
  for line in 'RUN hack/image/release.sh /out/programs/usr/bin' 'RUN hack/image/rootfs.sh /out/root' \
    'COPY --from=build /out/root/ /' 'COPY --from=build /out/programs/ /'; do
    grep -qxF "$line" "$here/../../Dockerfile" || die "the Dockerfile does not say: $line"
  done
}

# Nothing can be started but our programs, by whoever gets in.
check_files() {
  local file strange
  for file in "${programs[@]}"; do
    [[ -x "$root/usr/bin/$file" ]] || die "$file is not in it"
  done
  strange=$(find "$root" -type f -perm /111 ! -path '*/lib/*.so*' -printf '/%P\n' | grep -vxF "$(printf '/usr/bin/%s\n' "${programs[@]}")" || true)
  [[ -z "$strange" ]] || die "these can be started too: $strange"
  strange=$(find "$root" -type f -exec sh -c 'for file; do [ "$(head -c 2 "$file" | tr -d "\0")" != "#!" ] || printf "%s\n" "$file"; done' sh {} +)
  [[ -z "$strange" ]] || die "these are scripts: $strange"
  strange=$(find "$root" ! -type l \( -perm /7000 ! -path "$root/tmp" -o -perm /022 ! -path "$root/tmp" \) -printf '/%P (%m)\n')
  [[ -z "$strange" ]] || die "others may change these, or they give rights: $strange"
  strange=$(find "$root" ! -uid 0 -o ! -gid 0)
  [[ -z "$strange" ]] || die "these are not root's: $strange"
  strange=$(find "$root" -type l -printf '/%P\n' | while read -r file; do at "$file" >/dev/null || printf '%s ' "$file"; done)
  [[ -z "$strange" ]] || die "these links lead nowhere: $strange"
}

# library NAME: where the loader finds it, with no cache of names.
library() {
  local folder
  for folder in "$root"/lib/*-linux-gnu* "$root"/usr/lib/*-linux-gnu* "$root"/lib64; do
    if [[ -e "$folder/$1" ]]; then
      printf '%s' "$folder/$1"
      return
    fi
  done
  return 1
}

# Every library that a program needs, and that those need, is in it, and so is the loader.
check_libraries() {
  local program interpreter file name found
  local -A seen=()
  for program in "${programs[@]}"; do
    interpreter=$(readelf --wide --program-headers "$root/usr/bin/$program" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
    [[ -n "$interpreter" ]] || die "$program has no loader"
    at "$interpreter" >/dev/null || die "$program needs the loader $interpreter"
    local todo=("$root/usr/bin/$program")
    while [[ ${#todo[@]} -gt 0 ]]; do
      file=${todo[0]}
      todo=("${todo[@]:1}")
      while read -r name; do
        found=$(library "$name") || die "${file##*/} needs $name"
        [[ -n "${seen[$name]:-}" ]] || todo+=("$found")
        seen[$name]=1
      done < <(readelf --wide --dynamic "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    done
  done
  [[ ${#seen[@]} -ge 3 ]] || die "the programs need next to no library; readelf was not understood"
  say "libraries: $(printf '%s\n' "${!seen[@]}" | sort | tr '\n' ' ')"
}

check_authorities() {
  local count
  count=$(grep -c '^-----BEGIN CERTIFICATE-----$' "$root/$bundle" 2>/dev/null || true)
  [[ "${count:=0}" -ge 100 ]] || die "there are only $count certificate authorities in /$bundle"
  [[ "$count" -eq $(grep -c '^-----END CERTIFICATE-----$' "$root/$bundle") ]] || die "/$bundle is broken"
  say "$count certificate authorities"
}

# inside PROGRAM [ARG]...: as the manifests have it run: read-only, without rights, another user than root, settings in /etc/bos.
# There is no network. It replaces this process.
inside() {
  exec unshare --mount --net --ipc --uts -- bash -c '
    set -e
    mount --bind "$0" "$0"
    mount --bind "$1" "$0/etc/bos"
    mount -o remount,bind,ro,nosuid,nodev "$0"
    exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid --inh-caps=-all -- \
      env -i PATH="$PATH" KUBECONFIG=/etc/bos/kubeconfig S3_ACCESS_KEY=a S3_SECRET_KEY=b \
      chroot --userspec="$2:$2" --groups= "$0" "${@:3}"' "$root" "$work/settings" "$user" "$@"
}

check_programs_run() {
  local program said
  for program in "${programs[@]}"; do
    said=$(inside "/usr/bin/$program" --version) || die "$program does not run"
    [[ "$said" == "$program $version" ]] || die "$program --version says: $said"
    said=$(inside "/usr/bin/$program" --help) || die "$program --help fails"
    grep -q '^Usage:' <<<"$said" || die "$program --help says: $said"
  done
}

# Without authorities it ends before it asks the API server; and process 1 of a pod must end when it is told to.
check_operator_starts() {
  local log="$work/log" pid code=0 end=$((SECONDS + 60))
  # Not to be listened at: there is no network.
  cat >"$work/settings/kubeconfig" <<'END'
{"apiVersion": "v1", "kind": "Config", "current-context": "none",
 "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:6443"}}],
 "users": [{"name": "none", "user": {"token": "none"}}],
 "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}]}
END
  (inside /usr/bin/bos-operator --log-format=json) >"$log" 2>&1 &
  pid=$!
  until grep -q 'waiting: the API server does not answer' "$log"; do
    if ! kill -0 "$pid" 2>/dev/null || (( SECONDS > end )); then
      kill -KILL "$pid" 2>/dev/null || true
      cat "$log" >&2
      die "bos-operator does not get as far as asking the API server"
    fi
    sleep 0.1
  done
  kill -TERM "$pid"
  wait "$pid" || code=$?
  [[ "$code" -eq 0 ]] || { cat "$log" >&2; die "bos-operator ended with code $code at SIGTERM"; }
}

check_size() {
  local packed unpacked program
  packed=$(jq '[.layers[].size] | add / 1048576 | ceil' <<<"$manifest")
  unpacked=$(du --summarize --apparent-size --block-size=1M "$root" | cut -f1)
  for program in "${programs[@]}"; do
    say "$(printf '%-12s %4d MiB' "$program" "$(du --apparent-size --block-size=1M "$root/usr/bin/$program" | cut -f1)")"
  done
  say "size: $packed MiB to pull (at most $most_packed), $unpacked MiB on disk (at most $most_unpacked)"
  [[ "$packed" -le "$most_packed" && "$unpacked" -le "$most_unpacked" ]] || die "it is larger than it may be"
}

# That it names what is there: each package of Debian, each crate, once, with where it comes from.
check_sbom() {
  local sbom="$out/sbom.cdx.json" package
  jq -e '.bomFormat == "CycloneDX" and .specVersion == "1.5" and (.components | length > 100)
    and (.components | all(.name and .version and (.purl | test("^pkg:(cargo|deb)/.+@.+"))))
    and (.components | map(.purl) | length == (unique | length))
    and (.components | map(select(.purl | startswith("pkg:cargo/")) | select(.name | startswith("bos-") | not)) | all(.hashes[0].content | length == 64))' \
    "$sbom" >/dev/null || die "the list of parts is not as it should be: $sbom"
  for package in "${packages[@]}" "${programs[@]}" tokio rustls ring; do
    jq -e --arg name "$package" '.components | any(.name == $name)' "$sbom" >/dev/null || die "the list of parts does not name $package"
  done
  say "$(jq -r '.components | "\(map(select(.purl | startswith("pkg:cargo/"))) | length) crates and \(map(select(.purl | startswith("pkg:deb/"))) | length) packages in the list of parts"' "$sbom")"
}

# What the programs themselves say is in them. Only a release has it.
check_audited() {
  local program
  for program in "${programs[@]}"; do
    "$here/audited.sh" "$root/usr/bin/$program" "$program"
  done
}

mkdir "$work/settings"
# A runtime makes the mount points.
mkdir -p "$root/etc/bos"
check_dockerfile
check_config
check_manifests
check_files
check_libraries
check_authorities
check_programs_run
check_operator_starts
check_sbom
[[ -z "$released" ]] || check_audited
check_size
say "the image is as it should be"
