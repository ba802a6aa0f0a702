# What is in the image, and what makes it. Sourced by the scripts beside it; the Dockerfile calls the same scripts, so that
# neither can say something else.

# One image for all three: operator and agents read each other's journals, so they must be of one version; and a site sets
# registry and tag once. Each manifest names its program as the command.
programs=(bos-operator bos-boa bos-webhook)

# What the programs need of Debian: folders and /etc/os-release (first: newer ones bring the links /lib and /bin), the C library,
# the unwinder, whom to trust. No time zones: all times are UTC.
packages=(base-files libc6 libgcc-s1 ca-certificates)

# Writes the list of crates into each program of a release, where scanners find it.
auditable_version=0.7.7

cache="${XDG_CACHE_HOME:-$HOME/.cache}/bos-operator"

say() { printf '%s\n' "image: $*" >&2; }
die() { say "$*"; exit 1; }
