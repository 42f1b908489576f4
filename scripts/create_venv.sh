#!/bin/sh
# Build a fresh virtual environment with this project: sh scripts/create_venv.sh FOLDER CONSTRAINTS [WHAT]
# WHAT is what pip installs: "." for the project alone, by default with its development tools.
# Debian and Ubuntu ship python3 without ensurepip; its package is installed when that needs no password, else named.
set -eu
folder=${1:?usage: create_venv.sh FOLDER CONSTRAINTS}
constraints=${2:?usage: create_venv.sh FOLDER CONSTRAINTS}
what=${3:-.[dev]}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed, found: $(${PYTHON:-python3} --version 2>&1 || true)." \
        "On Debian or Ubuntu: sudo apt-get install python3.11 python3.11-venv; or name one: make test PYTHON=/path/to/python3"
}

install_ensurepip() {
    package="python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=sudo
    else
        fail "this Python cannot create environments (no ensurepip). Run: sudo apt-get install $package"
    fi
    command -v apt-get >/dev/null || fail "this Python cannot create environments (no ensurepip); install its venv package"
    echo "Installing $package, which this Python needs to create environments ..."
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null
}

python=$(find_python)
"$python" -c 'from ensurepip import version' 2>/dev/null || install_ensurepip "$python"
[ -t 1 ] && quiet= || quiet=-qq # a progress bar for a person, silence but for errors in a log

echo "Creating $folder with $("$python" --version): PyTorch and the other packages take one to three minutes ..."
rm -rf "$folder"
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install $quiet --disable-pip-version-check -c "$constraints" -e "$what"
