# What stands on this machine, as KEY=VALUE lines; nothing is changed. sh -s -- ROOT RELEASE PYTHON NAME FOLDER PATHS...
set -eu
root=$1 release=$2 python=$3 name=$4 folder=$5
shift 5
at=$root/releases/$release

ID= ID_LIKE= VERSION_ID= PRETTY_NAME=
if [ -r /etc/os-release ]; then . /etc/os-release; fi
case " $ID $ID_LIKE " in
*" debian "* | *" ubuntu "*) family=debian ;;
*" rhel "* | *" fedora "* | *" centos "*) family=redhat ;;
*) family=other ;;
esac
echo "os=${PRETTY_NAME:-unknown}"
echo "family=$family"
echo "current=$(basename "$(readlink "$root/current" 2>/dev/null || true)")"
for path; do
    [ ! -f "$path" ] || echo "$path=$(stat -c '%a %U %G' "$path") $(sha256sum <"$path" | cut -d ' ' -f 1)"
done
stamp=$root/.settled-$name settled=no # settle.sh's: it has seen all that is not younger
if [ -d "$folder" ] && { getent group "$name" || [ ! -e "/etc/sysusers.d/$name.conf" ]; } >/dev/null && [ -e "$stamp" ]; then
    settled=yes
    for path; do
        case $path in "$folder"/*) continue ;; esac
        [ ! "$path" -nt "$stamp" ] || settled=no
    done
fi
echo "settled=$settled"
if [ -f "$at/.complete" ]; then
    echo "made_of=$(cat "$at/.complete")"
    exit 0
fi
echo "made_of="

# A Python is wanted: 3.11 or newer, with what makes a venv.
seen=none
for name in ${python:-python3 python3.11 python3.12 python3.13 python3.14}; do
    version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    seen="$seen $name=$version"
    "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    echo "python=$(command -v "$name")"
    if "$name" -c 'import ensurepip, venv' 2>/dev/null; then echo "venv=yes"; else echo "venv=no"; fi
    break
done
echo "seen=${seen#none }"
