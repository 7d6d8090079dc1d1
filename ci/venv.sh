# Sourced by demo.sh and test.sh: a virtual environment in .venv, made once and reused.
#
#   xstefa_venv EXTRAS     EXTRAS: comma-separated extras of pyproject.toml, or empty
#
# Leaves the shell in the repository root with .venv/bin first on PATH.

# Whatever the caller's shell adds to Python's path would hide or replace what is installed here.
unset PYTHONPATH PYTHONHOME

xstefa_fail() {
    printf 'xstefa: %s\n' "$@" >&2
    exit 1
}

# xstefa_find_python [MINOR]: prints the full path of a Python 3.MINOR or newer that can make
# environments. 3.11, the default, comes first because the constraints were resolved with it; a newer
# one is taken only where there is none.
xstefa_find_python() {
    local minor="${1:-11}" candidate found oldest=""
    for candidate in "${XSTEFA_PYTHON:-}" {,/usr/bin/,/usr/local/bin/}python3."$minor" \
        "${HOME:-}"/.pyenv/versions/3."$minor"*/bin/python /opt/python*/bin/python3."$minor" \
        python3 python3.12 python3.13 python3.14 python; do
        [ -n "$candidate" ] || continue
        # Runs the candidate: a name on PATH can be a shim that stands for nothing.
        found=$("$candidate" -c 'import sys; print(sys.executable, "%d.%d" % sys.version_info[:2])' \
            2>/dev/null </dev/null) || continue
        if ! "$candidate" -c "import sys; sys.exit(sys.version_info < (3, $minor))" </dev/null; then
            oldest="$found"
            continue
        fi
        if ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null </dev/null; then
            oldest="$found, without the modules venv and ensurepip (on Debian: apt-get install python3-venv)"
            continue
        fi
        printf '%s\n' "${found% *}"
        return 0
    done
    printf 'xstefa: no Python 3.%s or newer with venv and ensurepip was found.\n' "$minor" >&2
    [ -z "$oldest" ] || printf 'xstefa: found only: %s\n' "$oldest" >&2
    printf 'xstefa: install it (on Debian: apt-get install python3.%s python3.%s-venv), or name one: XSTEFA_PYTHON=/path/to/python3.%s\n' "$minor" "$minor" "$minor" >&2
    return 1
}

xstefa_venv() {
    local extras="$1" root python stamp key
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
    cd "$root" || exit 1

    # Of no use: half made (interrupted before pip was in), or moved here from another folder, whose
    # path its scripts keep.
    if [ -d .venv ] && ! { .venv/bin/python -c 'import pip' 2>/dev/null &&
        [ "$(cat .venv/.made-in 2>/dev/null || echo "$root")" = "$root" ]; }; then
        echo "xstefa: the .venv found here does not work; making it again"
        rm -rf .venv
    fi
    if [ ! -d .venv ]; then
        python="$(xstefa_find_python)" || exit 1
        echo "xstefa: making .venv with $python"
        "$python" -m venv .venv </dev/null || {
            rm -rf .venv
            xstefa_fail "$python could not make a virtual environment (on Debian: apt-get install python3-venv)"
        }
        printf '%s\n' "$root" >.venv/.made-in
    fi

    # The stamp changes with what decides the installation, and exists only after a success.
    stamp=".venv/.installed-${extras:-none}"
    key="$(cat pyproject.toml ci/constraints.txt | cksum)"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$key" ]; then
        echo "xstefa: installing${extras:+ with extras $extras} (a few minutes the first time)"
        .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input \
            -c ci/constraints.txt -e ".${extras:+[$extras]}" </dev/null ||
            xstefa_fail "the installation failed; pip's message is above"
        printf '%s\n' "$key" >"$stamp"
    fi
    export PATH="$root/.venv/bin:$PATH"
    # Pictures are written to files; a desktop's interactive backend would need a display.
    export MPLBACKEND=Agg
}
