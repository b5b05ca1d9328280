#!/bin/sh
# wheels.sh SOURCE FOLDER: makes wheels of this tree and of all it needs, once for each state of the tree, in
# FOLDER/RELEASE, and prints RELEASE. Its name is made of what the tree holds, since a release is never changed.
set -eu
source=$1 folder=$2
cd "$source"
# What no wheel has anything of.
sum=$(find . \( -name '.?*' -o -path ./build -o -path ./dist -o -path ./tests -o -path ./vagrant -o -path ./docs -o -name '*.so' \
    -o -name '*.egg-info' -o -name __pycache__ \) -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)
release=tree-$sum
if [ ! -d "$folder/$release" ]; then
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    tar -cf - --exclude='./.?*' --exclude='*.so' --exclude=./build --exclude=./tests . | tar -xf - -C "$copy"
    chmod -R u+w "$copy"
    python3 -m venv "$copy/.venv"
    mkdir -p "$folder"
    rm -rf "$folder/$release.new"
    # Nothing on standard output but the release's name.
    "$copy/.venv/bin/pip" wheel --quiet --disable-pip-version-check --constraint "$copy/constraints.txt" \
        --wheel-dir "$folder/$release.new" "$copy" >&2
    mv "$folder/$release.new" "$folder/$release"
fi
echo "$release"
