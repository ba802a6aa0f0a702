# Runs the command of a container as far apart from this machine as a container is: process ids, /proc, /run and mounts of
# its own, and the root file system under a layer in memory that takes what it writes. The network is this machine's.
#
#   outside FOLDER ROOT-MODE COUNT (SOURCE TARGET MODE)... DIR COMMAND PROGRAM [ARG]...   in a mount namespace of its own; MODE is ro or rw
#
# COMMAND is looked for before PROGRAM, which leads to it, is started. Once it is certain that there is something to run, FOLDER/pid
# appears. Until then trouble goes to FOLDER/setup and not to the container's log.
set -eu
stage=$1
folder=$2
root=$folder/root
shift 2

# at TARGET: where it lies in the new root. Links, such as /var/run, are followed as the container will see them.
at() { printf '%s%s' "$root" "$(chroot "$root" realpath -m -- "$1")"; }

new_root() {
  # Before there are mounts of ours among them.
  machine=$(cat /proc/self/mountinfo)
  mkdir "$root" "$folder/layer"
  mount -t tmpfs tmpfs "$folder/layer"
  mkdir "$folder/layer/upper" "$folder/layer/work"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/layer/upper,workdir=$folder/layer/work" "$root"
  printf '%s\n' "$machine" | while read -r _ _ _ _ mounted _; do
    case $mounted in
      / | /proc | /proc/* | /run | /run/* | /dev/* | /sys/*) ;;
      /dev | /sys) mount --rbind "$mounted" "$root$mounted" ;;
      # A file system that even root may not look into is none that a container needs.
      *) mounted=$(printf '%b' "$mounted") && mount --bind "$mounted" "$root$mounted" || : ;;
    esac
  done
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
}

bring_in() {
  target=$(at "$2")
  if [ -d "$1" ]; then
    mkdir -p "$target"
  else
    mkdir -p "${target%/*}"
    [ -e "$target" ] || : >"$target"
  fi
  mount --bind "$1" "$target"
  [ "$3" = rw ] || mount -o remount,bind,ro "$target"
}

case $stage in
  outside)
    exec 3>&2 2>"$folder/setup"
    root_mode=$1 count=$2
    shift 2
    new_root
    while [ "$count" -gt 0 ]; do
      bring_in "$1" "$2" "$3"
      shift 3
      count=$((count - 1))
    done
    mkdir -p "$(at "$1")"
    if [ "$root_mode" = ro ]; then
      mount -o remount,bind,ro "$root/run"
      mount -o remount,bind,ro "$root"
    fi
    exec unshare --pid -- /bin/sh "$0" watch "$folder" "$@"
    ;;
  watch)
    # Its child is process 1 of the new namespace; with it ends whatever it has started. A signal n that ended it is code 128+n.
    setpriv --pdeathsig KILL -- /bin/sh "$0" inside "$folder" "$@" || exit $?
    exit 0
    ;;
  inside)
    dir=$1 command=$2
    shift 2
    mount -t proc proc "$root/proc"
    if ! chroot "$root" /bin/sh -c 'cd -- "$1" && command -v -- "$2" >/dev/null' sh "$dir" "$command"; then
      printf 'exec: "%s": no such executable in the container\n' "$command" >&2
      exit 1
    fi
    # /proc is still the machine's here, and so is the id.
    read -r pid _ </proc/self/stat
    printf '%s\n' "$pid" >"$folder/pid.new"
    mv "$folder/pid.new" "$folder/pid"
    exec chroot "$root" /bin/sh -c 'cd -- "$1" && shift && exec "$@"' sh "$dir" "$@" 2>&3 3>&-
    ;;
esac
