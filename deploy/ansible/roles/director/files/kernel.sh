# Load MODULES where they are missing; with CHECK only say whether they could be. sh -s -- CHECK(yes|no) MODULES...
set -eu
check=$1
shift
missing=
for module; do
    if [ -d "/sys/module/$module" ]; then continue; fi
    if [ "$module" = ip_vs ] && [ -e /proc/net/ip_vs ]; then continue; fi
    if ! command -v modprobe >/dev/null; then
        :
    elif [ "$check" = yes ]; then
        modprobe --quiet --dry-run "$module" && echo "load $module" && continue
    else
        modprobe --quiet "$module" && echo "load $module" && continue
    fi
    missing="$missing $module"
done
[ -n "$missing" ] || exit 0

release=$(uname -r)
. /etc/os-release 2>/dev/null || true
{
    echo "the kernel here, $release, has no$missing."
    if inside=$(systemd-detect-virt --container 2>/dev/null); then
        echo "This is a container ($inside): load them on its host, and start the container with CAP_NET_ADMIN."
    elif ! command -v modprobe >/dev/null; then
        echo "modprobe is not here, which loads modules: install kmod."
    elif [ ! -d "/lib/modules/$release" ]; then
        echo "/lib/modules/$release is not there: a newer kernel was installed, or this one has no modules. Reboot, or install it."
    else
        case " ${ID:-} ${ID_LIKE:-} " in
        *" ubuntu "*) echo "Install linux-modules-extra-$release." ;;
        *" rhel "* | *" fedora "*) echo "Install kernel-modules-$release." ;;
        *" debian "*) echo "Install linux-image-$(dpkg --print-architecture) and boot it: the cloud kernel has fewer modules." ;;
        *) echo "Install the package with the kernel's further modules." ;;
        esac
        echo "A scheduler alone that is missing: use another one in the file, or take it out of director_modules."
    fi
} >&2
exit 1
