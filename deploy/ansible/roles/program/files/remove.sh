# Remove the program where no role needs it any more. sh -s -- ROOT CHECK(yes|no)
set -eu
root=$1 check=$2
for unit in director director-realserver l7proxy; do
    # A package brings the units of both programs: of those, only one that is enabled or runs needs it.
    if [ -e "/etc/systemd/system/$unit.service" ] || systemctl --quiet is-enabled "$unit.service" 2>/dev/null ||
        systemctl --quiet is-active "$unit.service" 2>/dev/null; then
        # Not in check mode, in which that unit is there still, and may be the one that would go.
        if [ "$check" = no ]; then echo "kept: $unit.service needs it" && exit 0; fi
    fi
done
for each in director l7proxy; do
    case "$(readlink "/usr/local/sbin/$each" || true)" in
    "$root"/*) echo "removed /usr/local/sbin/$each" && { [ "$check" = yes ] || rm "/usr/local/sbin/$each"; } ;;
    esac
done
if dpkg-query -W -f '${Status}' lvs-director 2>/dev/null | grep -q 'ok installed'; then
    echo "removed the package lvs-director"
    [ "$check" = yes ] || DEBIAN_FRONTEND=noninteractive apt-get purge -qq lvs-director >&2
fi
if [ -e "$root" ]; then
    echo "removed $root"
    [ "$check" = yes ] || rm -rf "$root"
    [ "$check" = yes ] || rmdir /etc/sysusers.d 2>/dev/null || true # install.sh made it
fi
