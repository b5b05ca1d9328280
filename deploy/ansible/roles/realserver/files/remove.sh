# Take the real server's part away: VIPs, tunnels, settings, the unit. sh -s -- CHECK(yes|no) ROOT
set -eu
check=$1 root=$2
name=director-realserver
is_dry() { [ "$check" = yes ]; }
gone() {
    for path; do
        if [ -e "$path" ] || [ -L "$path" ]; then
            echo "removed $path"
            is_dry || rm -rf "$path"
        fi
    done
}

if [ -e "/etc/systemd/system/$name.service" ]; then
    echo "stopped $name.service"
    if ! is_dry; then
        systemctl disable --quiet --now "$name.service"
        # Stopping it undoes it; where it was not running, or that failed, this does, or says why not.
        "$root/current/bin/director" realserver apply --undo >&2
    fi
fi
if [ -e "/etc/systemd/system/$name-firewall.service" ]; then
    is_dry || systemctl disable --quiet --now "$name-firewall.service"
fi
if [ -e "$root/$name.sysctls" ]; then
    is_dry || sysctl -q -e -p "$root/$name.sysctls" || true
fi
firewalld=no
[ ! -e "/etc/firewalld/policies/$name.xml" ] || firewalld=yes
gone "/etc/systemd/system/$name-firewall.service" "/etc/systemd/system/$name.service" "/etc/systemd/system/$name.service.d" \
    "/etc/firewalld/policies/$name.xml" "/etc/sysctl.d/60-$name.conf" "$root/$name.sysctls" "$root/.settled-$name" "/etc/$name"
# With a director on this machine, by its role or a package, these folders are its own.
if [ ! -e /etc/systemd/system/director.service ] && ! systemctl --quiet is-enabled director.service 2>/dev/null &&
    ! systemctl --quiet is-active director.service 2>/dev/null; then
    gone /var/lib/director /run/director
fi
if ! is_dry; then
    systemctl daemon-reload
    systemctl reset-failed "$name.service" 2>/dev/null || true
    [ "$firewalld" = no ] || firewall-cmd --quiet --reload || true
fi
