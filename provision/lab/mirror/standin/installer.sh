#!/bin/sh
# @@NAME@@: a stand-in Miniconda, made of real parts by `provision lab mirror`.
# It needs sh, tar, gzip and coreutils, and checks the sha256 of what it carries before it writes anything.
set -eu

payload_offset=@@PAYLOAD_OFFSET@@
payload_sha256=@@PAYLOAD_SHA256@@
needed_kib=@@NEEDED_KIB@@
python=@@PYTHON@@

usage() {
    cat <<'TEXT'
usage: sh @@NAME@@ [-b] [-p PREFIX] [-u] [-f] [-h]

-b         run in batch mode: ask nothing
-p PREFIX  where to install; without it $HOME/miniconda3
-u, -f     go on where PREFIX exists: update the installation that is there
-h         print this text and end with status 2
TEXT
}
fail() {
    echo "error: $1" >&2
    exit 1
}

batch=0 force=0 prefix="${HOME:-/opt}/miniconda3"
while getopts bp:ufh option; do
    case "$option" in
        b) batch=1 ;;
        p) prefix=$OPTARG ;;
        u | f) force=1 ;;
        h)
            usage
            exit 2
            ;;
        *)
            usage >&2
            exit 1
            ;;
    esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || { usage >&2; exit 1; }

if [ "$batch" -eq 0 ]; then
    printf 'Install to [%s] (Enter, or another folder): ' "$prefix"
    read -r answer
    prefix=${answer:-$prefix}
fi
case "$prefix" in
    /*) ;;
    *) prefix=$(pwd)/$prefix ;;
esac
case "$prefix" in
    *[[:space:]]*) fail "the prefix may hold no white space: $prefix" ;;
esac
[ "$force" -eq 1 ] || [ ! -e "$prefix" ] || fail "$prefix exists; -u updates the installation that is there"

payload() {
    tail -c "+$payload_offset" "$0"
}
found_sha256=$(payload | sha256sum)
[ "${found_sha256%% *}" = "$payload_sha256" ] ||
    fail "this installer is damaged: its payload has sha256 ${found_sha256%% *}, not $payload_sha256"

existing=$prefix
while [ ! -d "$existing" ]; do existing=$(dirname "$existing"); done
free_kib=$(df -Pk "$existing" | { read -r _; read -r _ _ _ kib _; echo "$kib"; })
[ "$free_kib" -ge "$needed_kib" ] || fail "$existing has $free_kib KiB free; this needs $needed_kib KiB"

made=0
[ -d "$prefix" ] || { mkdir -p "$prefix"; made=1; }
undo() {
    status=$?
    if [ "$status" -ne 0 ] && [ "$made" -eq 1 ]; then
        rm -rf "$prefix"
        echo "error: the installation did not succeed; $prefix is removed" >&2
    fi
    exit "$status"
}
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

echo "Unpacking into $prefix ..."
mkdir -p "$prefix/conda-meta"
payload | tar -xzf - -C "$prefix"
touch "$prefix/conda-meta/history"

# The carried conda installs itself from the unpacked packages, as it installs everything else.
unset LD_LIBRARY_PATH PYTHONHOME CONDARC CONDA_PREFIX || true
modules=
for folder in "$prefix"/pkgs/*/lib/"$python"/site-packages; do
    modules=$modules${modules:+:}$folder
done
PYTHONPATH=$modules PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 \
    CONDA_PKGS_DIRS=$prefix/pkgs CONDA_SOLVER=classic CONDA_ROOT_PREFIX=$prefix CONDA_REGISTER_ENVS=false \
    "$prefix"/pkgs/python-*/bin/"$python" -m conda install --offline --yes --quiet \
    --prefix "$prefix" --file "$prefix/pkgs/explicit.txt"
version=$("$prefix/bin/conda" --version) || fail "$prefix/bin/conda does not run"
echo "Installed $version in $prefix."
exit 0
@@END_HEADER@@
