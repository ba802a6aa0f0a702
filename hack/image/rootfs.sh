#!/usr/bin/env bash
# Makes the root file system of the image, but for our programs, from packages of this machine's Debian (the programs are built
# here too, so the C library is the one they were linked with). No package's script is run, and there is no shell in it.
#
#   rootfs.sh FOLDER    the folder must not exist
#
# Packages are kept in the cache folder, and fetched again when there are newer ones. Root is not needed, but for `apt-get update`
# on a machine that never made one.
set -euo pipefail
# The modes of files are part of the image.
umask 022
source "$(dirname "${BASH_SOURCE[0]}")/contents.sh"
[[ $# -eq 1 && ! -e "$1" ]] || die "usage: rootfs.sh FOLDER, which must not exist yet"
command -v apt-get >/dev/null || die "the image is made of Debian packages, and there is no apt-get here; use the Dockerfile"

root=$1
debs="$cache/image/debs"
mkdir -p "$root" "$debs"

# fetch PACKAGE...: prints the paths of their files. apt-get checks them against the signed lists, also those that are there already.
fetch() {
  local shown
  shown=$(apt-cache show --no-all-versions "$@") || return
  # As root it would say that it could not become another user: nobody else may read the cache folder.
  (cd "$debs" && apt-get download -qq -o APT::Sandbox::User=root "$@") >&2 || return
  awk -v folder="$debs" '
    /^Package:/ { name = $2 } /^Version:/ { version = $2; gsub(":", "%3a", version) }
    /^Architecture:/ { printf "%s/%s_%s_%s.deb\n", folder, name, version, $2 }' <<<"$shown"
}

unpack() {
  local file=$1
  dpkg-deb --extract "$file" "$root"
  # What scanners, and people, read to know what is in here.
  mkdir -p "$root/var/lib/dpkg"
  dpkg-deb --field "$file" | sed '/^Package:/a Status: install ok installed' >>"$root/var/lib/dpkg/status"
  printf '\n' >>"$root/var/lib/dpkg/status"
}

# Licences of some packages are in another, to which their folder is a link.
licences() {
  local link package file
  find "$root/usr/share/doc" -xtype l | while read -r link; do
    package=$(readlink "$link")
    file=$(fetch "$package")
    rm "$link"
    mkdir "$link"
    dpkg-deb --fsys-tarfile "$file" | tar -xO "./usr/share/doc/$package/copyright" >"$link/copyright"
  done
}

# What no program of ours reads. All that is a script is among it.
slim() {
  find "$root/usr/share/doc" -mindepth 3 -delete
  find "$root/usr/share/doc" -mindepth 2 ! -name copyright -delete
  rm -rf "$root"/usr/share/{base-files,bug,dict,info,lintian,locale,man} "$root"/etc/{update-motd.d,profile.d,skel,ca-certificates}
  # Anybody may write into these.
  rm -rf "$root"/var/{local,lock,tmp}
  rm -rf "$root"/usr/lib/*/{gconv,audit} "$root"/usr/sbin/update-ca-certificates
}

# What the script of the package would do: all authorities in one file.
authorities() {
  mkdir -p "$root/etc/ssl/certs"
  find "$root/usr/share/ca-certificates" -name '*.crt' | LC_ALL=C sort | while read -r file; do
    cat "$file"
    # Not all of them end with a new line.
    [[ -z "$(tail -c 1 "$file")" ]] || printf '\n'
  done >"$root/etc/ssl/certs/ca-certificates.crt"
  rm -rf "$root/usr/share/ca-certificates"
}

# Files that Debian makes when it is installed.
accounts() {
  printf '%s\n' 'root:x:0:0:root:/root:/nonexistent' 'bos:x:65532:65532:bos:/:/nonexistent' >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'bos:x:65532:' >"$root/etc/group"
  # Without it the C library asks DNS for localhost.
  printf '%s\n' 'hosts: files dns' >"$root/etc/nsswitch.conf"
}

found=$(fetch "${packages[@]}") || {
  say "this machine's lists of packages are missing or old; fetching them"
  apt-get update -qq >&2 || die "apt-get update failed: it needs root and a mirror"
  found=$(fetch "${packages[@]}") || die "cannot fetch the packages ${packages[*]}"
}
mapfile -t files <<<"$found"
[[ ${#files[@]} -eq ${#packages[@]} ]] || die "asked for ${packages[*]} and got: ${files[*]}"
for file in "${files[@]}"; do
  unpack "$file"
done
licences
slim
authorities
accounts
say "root file system of $(printf '%s ' "${files[@]##*/}")"
