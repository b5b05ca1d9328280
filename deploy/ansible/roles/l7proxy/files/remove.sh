# Take l7proxy away: it finishes what it answers, then goes. sh -s -- CHECK(yes|no) ROOT KEEP_CONFIG(yes|no)
set -eu
check=$1 root=$2 keep_config=$3
is_dry() { [ "$check" = yes ]; }
gone() {
    for path; do
        if [ -e "$path" ] || [ -L "$path" ]; then
            echo "removed $path"
            is_dry || rm -rf "$path"
        fi
    done
}

for unit in l7proxy.socket l7proxy.service; do
    if [ -e "/etc/systemd/system/$unit" ]; then
        echo "stopped $unit"
        is_dry || systemctl disable --quiet "$unit"
    fi
done
# Both at once: a socket alone that goes would be wanted again, a service alone would be started by it.
is_dry || [ ! -e /etc/systemd/system/l7proxy.service ] || systemctl stop l7proxy.socket l7proxy.service
if [ -e /etc/systemd/system/l7proxy-firewall.service ]; then
    is_dry || systemctl disable --quiet --now l7proxy-firewall.service
fi
if [ -e "$root/l7proxy.sysctls" ]; then
    is_dry || sysctl -q -e -p "$root/l7proxy.sysctls" || true
fi
firewalld=no
[ ! -e /etc/firewalld/policies/l7proxy.xml ] || firewalld=yes
gone /etc/systemd/system/l7proxy-firewall.service /etc/systemd/system/l7proxy.service /etc/systemd/system/l7proxy.service.d \
    /etc/systemd/system/l7proxy.socket /etc/systemd/system/l7proxy.socket.d /etc/firewalld/policies/l7proxy.xml \
    /etc/sysctl.d/60-l7proxy.conf "$root/l7proxy.sysctls" "$root/.settled-l7proxy" /etc/sysusers.d/l7proxy.conf /var/lib/l7proxy /run/l7proxy
[ "$keep_config" = yes ] || gone /etc/l7proxy
if ! is_dry; then
    systemctl daemon-reload
    systemctl reset-failed l7proxy.service l7proxy.socket 2>/dev/null || true
    [ "$firewalld" = no ] || firewall-cmd --quiet --reload || true
fi
if getent passwd l7proxy >/dev/null; then
    echo "removed user l7proxy"
    is_dry || userdel l7proxy
fi
if getent group l7proxy >/dev/null; then
    echo "removed group l7proxy"
    is_dry || groupdel l7proxy
fi
