#!/usr/bin/env bash
# Builds etcd, kube-apiserver, kube-controller-manager and kubectl once, from the modules in go.mod, into a cache
# folder outside the checkout, and prints that folder as its last line on stdout (progress goes to stderr).
#
#   build.sh [NAME...]  only these binaries (default: all four)
#
#   KUBEBUILDER_ASSETS  a folder that already has some of the binaries: only the missing ones are built
#   BOS_CACHE           where the cache lies (default: $XDG_CACHE_HOME, else ~/.cache)
#
# Cold, on two cores, this takes about eight minutes, 2.7 GB of memory and 5 GB of disk; after that, no time at all.
# It is safe to interrupt it and to run it several times at once.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here"

say() { printf '%s\n' "control plane: $*" >&2; }
die() { say "$*"; exit 1; }

command -v go >/dev/null || die "Go is needed to build it (go.mod names the version); or set KUBEBUILDER_ASSETS"
command -v flock >/dev/null || die "flock (util-linux) is needed"

export CGO_ENABLED=0 GOWORK=off
version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' go.mod)
IFS=. read -r major minor _ <<<"${version#v}"
# Without these the API server calls itself v0.0.0-master, and clients that look at the version are misled.
stamp=k8s.io/component-base/version
ldflags="-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor"
flags=(-mod=readonly -buildvcs=false -trimpath -ldflags "$ldflags")

go_version=$(go version) || die "the Go toolchain does not work"
key=$({ cat go.mod go.sum; printf '%s\n' "$go_version" "${flags[@]}"; } | sha256sum | cut -c1-16)
out="${BOS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bos-operator}/control-plane/$key"

# name, package, and about how long a cold build takes on two cores
binaries=(
  "etcd go.etcd.io/etcd/server/v3 45 s"
  "kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver 5 min"
  "kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager 2 min"
  "kubectl k8s.io/kubernetes/cmd/kubectl 25 s"
)

wanted=("$@")
for name in "${wanted[@]}"; do
  grep -qxF -e "$name" <<<"$(printf '%s\n' "${binaries[@]%% *}")" || die "there is no $name to build; there are: ${binaries[*]%% *}"
done

is_wanted() { [[ ${#wanted[@]} -eq 0 || " ${wanted[*]} " == *" $1 "* ]]; }

have() { [[ -x "$out/$1" || ( -n "${KUBEBUILDER_ASSETS:-}" && -x "$KUBEBUILDER_ASSETS/$1" ) ]]; }

missing() {
  local line name
  for line in "${binaries[@]}"; do
    name=${line%% *}
    ! is_wanted "$name" || have "$name" || printf '%s\n' "$line"
  done
}

if [[ -z "$(missing)" ]]; then
  mkdir -p "$out"
  printf '%s\n' "$out"
  exit 0
fi

mkdir -p "$out"
exec 9>"$out/.lock"
if ! flock -n 9; then
  say "another build is running; waiting for it"
  flock 9
fi

builder=
ticker=
cleanup() {
  [[ -z "$ticker" ]] || kill "$ticker" 2>/dev/null || true
  [[ -z "$builder" ]] || kill "$builder" 2>/dev/null || true
  rm -f "$out"/.*.partial
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -f "$out"/.*.partial

# A sign of life every 15 seconds, for whoever waits.
tick() {
  local name=$1 since=$SECONDS nap=
  trap '[[ -z "$nap" ]] || kill "$nap" 2>/dev/null; exit 0' TERM
  while true; do
    sleep 15 &
    nap=$!
    wait "$nap"
    say "  $name: $((SECONDS - since)) s so far"
  done
}

build() {
  local name=$1 package=$2 partial="$out/.$1.partial" since=$SECONDS
  tick "$name" 9>&- >/dev/null &
  ticker=$!
  go build "${flags[@]}" -o "$partial" "$package" 9>&- >&2 &
  builder=$!
  wait "$builder" || { builder=; die "building $name failed; the messages above say why"; }
  builder=
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  ticker=
  mv -f "$partial" "$out/$name"
  say "  $name is ready after $((SECONDS - since)) s"
}

# Looked at again: whoever held the lock before may have built everything.
mapfile -t todo < <(missing)
number=0
for line in "${todo[@]}"; do
  read -r name package about <<<"$line"
  number=$((number + 1))
  say "building $name ($number of ${#todo[@]}), about $about when nothing is cached"
  build "$name" "$package"
done
[[ -z "$(missing)" ]] || die "still missing after the build: $(missing)"
printf '%s\n' "$out"
