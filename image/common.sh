# Sourced by the commands in this folder: where things are, how they stop, and a clean environment.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC

image=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$image")
cache=${BLF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/blf}
name=$(basename "$0")

# Exit codes are those of blf-host: 1 failed, 2 usage, 5 environment.
say() { echo "image/$name: $*" >&2; }
die() { say "$2"; exit "$1"; }

sha256() { sha256sum -- "$1" | cut -d' ' -f1; }

# The toolchain that rust-toolchain.toml names.
sysroot() {
    command -v rustc >/dev/null || die 5 "rustc not found; install rustup and the toolchain of rust-toolchain.toml"
    (cd "$root" && rustc --print sysroot)
}

# One line per input without comments.
lines() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' -- "$1"; }
