# Take the director away with all that it made. sh -s -- CHECK(yes|no) ROOT KEEP_CONFIG(yes|no) KEEP_TABLE(yes|no)
#
# One rule: the table goes before the program that knows what of it is its own. Where that fails, everything else stays.
set -eu
check=$1 root=$2 keep_config=$3 keep_table=$4
program=$root/current/bin/director
is_dry() { [ "$check" = yes ]; }
gone() { # gone PATHS...: remove what is there, and say so
    for path; do
        if [ -e "$path" ] || [ -L "$path" ]; then
            echo "removed $path"
            is_dry || rm -rf "$path"
        fi
    done
}

if systemctl is-active --quiet director.service || systemctl is-enabled --quiet director.service 2>/dev/null; then
    echo "stopped director.service"
    is_dry || systemctl disable --quiet --now director.service
fi
if [ -e /var/lib/director ]; then
    if [ ! -x "$program" ]; then
        echo "/var/lib/director remembers what a director made here, and $program is not there to take it back:" \
            "install it again, or remove that folder if you know that nothing is left" >&2
        exit 1
    fi
    if ! is_dry; then
        if [ "$keep_table" = yes ]; then "$program" down --keep-table >&2; else "$program" down >&2; fi
    fi
fi
if [ -e /etc/systemd/system/director-firewall.service ]; then
    is_dry || systemctl disable --quiet --now director-firewall.service
fi
if [ -e /etc/sysctl.d/60-director.conf ] && [ -e "$root/director.sysctls" ]; then
    is_dry || sysctl -q -e -p "$root/director.sysctls" || true
fi
firewalld=no
[ ! -e /etc/firewalld/policies/director.xml ] || firewalld=yes

gone /etc/systemd/system/director-firewall.service /etc/systemd/system/director.service /etc/systemd/system/director.service.d \
    /etc/firewalld/policies/director.xml /etc/sysctl.d/60-director.conf "$root/director.sysctls" "$root/.settled-director" \
    /etc/modules-load.d/director.conf /etc/modprobe.d/director.conf /etc/tmpfiles.d/director.conf /etc/sysusers.d/director.conf
[ "$keep_config" = yes ] || gone /etc/director
# A real server on this machine has its part there, and its role takes that away.
[ -e /etc/systemd/system/director-realserver.service ] || gone /var/lib/director
gone /run/director
if ! is_dry; then
    systemctl daemon-reload
    systemctl reset-failed director.service 2>/dev/null || true
    [ "$firewalld" = no ] || firewall-cmd --quiet --reload || true
    [ ! -e /run/xtables.lock ] || chgrp root /run/xtables.lock
fi
for kind in passwd group; do
    if getent "$kind" director >/dev/null; then
        case $kind in
        passwd) echo "removed user director" && { is_dry || userdel director; } ;;
        group) echo "removed group director" && { is_dry || groupdel director; } ;;
        esac
    fi
done
# Modules that nobody uses any more; those in use refuse by themselves.
if ! is_dry && [ "$keep_table" = no ] && [ -d /sys/module/ip_vs ]; then
    for path in /sys/module/ip_vs_*; do
        [ ! -d "$path" ] || modprobe --quiet --remove "${path##*/}" 2>/dev/null || true
    done
    modprobe --quiet --remove ip_vs 2>/dev/null || true
fi
