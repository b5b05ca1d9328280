# Have the system read the files of NAME that were put in place. sh -s -- ROOT NAME FOLDER
set -eu
root=$1 name=$2 folder=$3

if [ -e "/etc/sysusers.d/$name.conf" ]; then systemd-sysusers "/etc/sysusers.d/$name.conf"; fi
if [ -e "/etc/tmpfiles.d/$name.conf" ]; then systemd-tmpfiles --create "/etc/tmpfiles.d/$name.conf"; fi
getent group "$name" >/dev/null && group=$name || group=root
install -d -m 0750 -o root -g "$group" "$folder"
if [ "$name" = l7proxy ]; then install -d -m 0750 -o root -g "$group" "$folder/tls"; fi
systemctl daemon-reload

if [ -e "/etc/sysctl.d/60-$name.conf" ]; then
    # What there was before is remembered, for the day when the role goes.
    before=$root/$name.sysctls now=/etc/sysctl.d/60-$name.conf
    if [ -e "$before" ]; then # and what is not named any more goes back to it
        : >"$before.new"
        while read -r key rest; do
            if grep -qF "$key = " "$now"; then echo "$key $rest" >>"$before.new"; else sysctl -q -w "$key=${rest#= }" || true; fi
        done <"$before"
        mv "$before.new" "$before"
    fi
    sed -n 's/^\([a-z][^ ]*\) = .*/\1/p' "$now" | while read -r key; do
        grep -qsF "$key = " "$before" || printf '%s = %s\n' "$key" "$(sysctl -n "$key" | tr '\t' ' ')" >>"$before"
    done
    sysctl -q -p "$now"
fi
if [ -e "/etc/systemd/system/$name-firewall.service" ]; then
    systemctl enable --quiet "$name-firewall.service"
    systemctl restart "$name-firewall.service"
fi
if [ -e "/etc/firewalld/policies/$name.xml" ]; then firewall-cmd --quiet --reload; fi
touch "$root/.settled-$name" # the next run knows by it that this one came so far
echo settled
