# Install RELEASE beside the others and switch `current` to it at once.
# sh -s -- ROOT RELEASE PYTHON MADE_OF FOLDER ARCHIVE REQUIREMENT [PIP ARGUMENTS]
#
# One rule: what a running program uses is never changed. A release is built at its own place, is complete when .complete
# stands in it, and goes only when neither `current`, nor the one before it, nor a process needs it.
set -eu
umask 022
root=$1 release=$2 python=$3 made_of=$4 folder=$5 archive=$6 requirement=$7
shift 7
at=$root/releases/$release
former=$(readlink "$root/current" || true)

if [ ! -f "$at/.complete" ] && [ -e "$at" ] &&
    { [ "$former" = "releases/$release" ] || grep -qsaF "$at/" /proc/[0-9]*/cmdline; }; then
    echo "$at is in use, and this role has not made it (a package, an installation by hand): it is left alone." \
        "Give another program_release; or take that one away first" >&2
    exit 1
fi
if [ ! -f "$at/.complete" ] && [ "${archive%.deb}" != "$archive" ]; then
    # The package makes the release itself, and switches to it.
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -qq --no-install-recommends "$archive" >&2 || {
        echo "the same again, with fresh lists of packages" >&2
        apt-get update -qq >&2
        apt-get install -qq --no-install-recommends "$archive" >&2
    }
    [ -d "$at" ] || { echo "the package has brought another release: program_release is to be one of $(ls "$root/releases")" >&2; exit 1; }
    printf '%s\n' "$made_of" >"$at/.complete"
    echo "installed $release"
elif [ ! -f "$at/.complete" ]; then
    [ -n "$python" ] || python=$(for each in python3 python3.11 python3.12 python3.13 python3.14; do
        "$each" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
            command -v "$each" && break
    done) || { echo "no Python 3.11 or newer with venv was found, also after installing packages" >&2; exit 1; }
    rm -rf "$at"
    mkdir -p "$at"
    if [ -n "$archive" ]; then
        folder=$at/wheels
        mkdir "$folder"
        "$python" -c 'import shutil, sys; shutil.unpack_archive(sys.argv[1], sys.argv[2])' "$archive" "$folder"
        inner=$(find "$folder" -name 'lvs_director-*.whl' | head -n 1)
        [ -n "$inner" ] || { echo "$archive holds no lvs_director-*.whl" >&2; exit 1; }
        folder=$(dirname "$inner")
    fi
    "$python" -m venv "$at"
    if [ -n "$folder" ]; then set -- --no-index --find-links "$folder" "$@"; fi
    "$at/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@" "$requirement"
    rm -rf "$at/wheels"
    "$at/bin/director" --version >/dev/null
    "$at/bin/l7proxy" --version >/dev/null
    if command -v restorecon >/dev/null; then restorecon -R "$at" || true; fi
    printf '%s\n' "$made_of" >"$at/.complete"
    echo "installed $release"
fi

# All else comes first: once `current` is switched, the next run finds nothing to do.
mkdir -p /etc/sysusers.d # where the users' files go; some systems have none of their own
for each in director l7proxy; do
    [ "$(readlink "/usr/local/sbin/$each" || true)" = "$root/current/bin/$each" ] ||
        ln -sfn "$root/current/bin/$each" "/usr/local/sbin/$each"
done
former=$(readlink "$root/current" || true) # a package may have switched
if [ "$former" != "releases/$release" ]; then
    if [ -n "$former" ]; then printf '%s\n' "${former#releases/}" >"$root/.former"; fi
    ln -sfn "releases/$release" "$root/.current.new"
    mv -T "$root/.current.new" "$root/current"
    echo "current is $release now, was ${former:-nothing}"
fi

kept=$(cat "$root/.former" 2>/dev/null || true)
for old in "$root"/releases/*/; do
    name=$(basename "$old")
    if [ "$name" = "$release" ] || [ "$name" = "$kept" ]; then continue; fi
    if grep -qsaF "$root/releases/$name/" /proc/[0-9]*/cmdline; then continue; fi
    rm -rf "$old"
    echo "removed $name"
done
