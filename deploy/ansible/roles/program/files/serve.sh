# Have UNIT run, enabled, with the release and the files that are there now, by the mildest means; else say why not.
# sh -s -- ROOT CHECK(yes|no) UNIT FILE CHANGED(nothing|file|unit|socket) HOW(restart|usr2) WITHIN_S
#
# One rule: it looks at what runs, not only at what this run of Ansible changed: a run that broke off is made up for.
set -eu
root=$1 check=$2 unit=$3 file=$4 changed=$5 how=$6 within_s=$7
service=$unit.service

property() { systemctl show --property "$1" --value "$service"; }
moment() { systemctl show --timestamp=unix --property "$1" --value "$service" | tr -dc 0-9; }
running() { # the release that the main process was started from
    pid=$(property MainPID)
    [ "$pid" != 0 ] || return 0
    tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | sed -n "1s|^$root/releases/\([^/]*\)/.*|\1|p"
}
fail() {
    echo "$1"
    systemctl --no-pager --lines=0 status "$service" || true
    echo "The last lines of its log (journalctl -u $service):"
    journalctl --no-pager --output=cat --lines=20 --unit "$service" || true
    exit 1
} >&2
within() { # within SENTENCE COMMAND...: until COMMAND is true
    sentence=$1 left=$((within_s * 5))
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "$sentence, ${within_s} s later"
        sleep 0.2
    done
}
is_of_current() { [ "$(running)" = "$current" ]; }
# Of a reload that failed only this property tells: the unit is active again, with the file before.
took_the_last() { case $(property ReloadResult) in success | '') true ;; *) false ;; esac; }
is_active() { [ "$(property ActiveState)" = active ]; }

if [ "$check" = yes ] && { [ ! -d /run/systemd/system ] || ! systemctl cat "$service" >/dev/null 2>&1; }; then
    echo "enable $service"
    echo "start $service"
    exit 0
fi
current=$(basename "$(readlink "$root/current" || true)")
[ "$check" = yes ] || [ "$(property NeedDaemonReload)" = no ] || systemctl daemon-reload
state=$(property ActiveState)
was=$(running)
# The youngest file of its folder: secrets and certificates count as well.
case $file in /etc/systemd/*) folder=$file ;; *) folder=$(dirname "$file") ;; esac
written=$(find "$folder" -type f -exec stat -c %Y {} + 2>/dev/null | sort -n | tail -n 1)
written=${written:-0}
since=$(moment StateChangeTimestamp)
started=$(moment InactiveExitTimestamp)
is_younger() { [ "$(stat -c %Y "/etc/systemd/system/$1" 2>/dev/null || echo 0)" -gt "${2:-0}" ]; }

todo=
if [ "$state" != active ] && [ "$state" != reloading ]; then
    todo=start
elif [ "$changed" = socket ] || is_younger "$unit.socket" "$started"; then
    todo=socket
elif [ "$changed" = unit ] || { [ "$how" != reload ] && is_younger "$service" "$started"; }; then
    todo=restart
elif [ -n "$was" ] && [ -n "$current" ] && [ "$was" != "$current" ]; then
    todo=$how
elif [ "$changed" = file ] || is_younger "$service" "$since" || [ "$written" -gt "${since:-0}" ] || ! took_the_last; then
    todo=reload
fi
enabled=$(systemctl is-enabled "$service" 2>/dev/null || true)
[ "$enabled" = enabled ] || echo "enable $service"
[ -z "$todo" ] || echo "$todo $service${was:+, release $was}"
[ "$check" = no ] || exit 0

[ "$enabled" = enabled ] || systemctl enable --quiet "$service"
case $todo in
start)
    systemctl reset-failed "$service" 2>/dev/null || true
    systemctl start "$service" || fail "$service does not start"
    ;;
socket) systemctl restart "$unit.socket" "$service" || fail "$service does not start again with its new sockets" ;;
restart) systemctl restart "$service" || fail "$service does not start again" ;;
usr2)
    kill -USR2 "$(property MainPID)"
    within "$service has not become release $current: it goes on with $was" is_of_current
    # It has read its file too, of which systemd knows nothing: the next run would find it written since.
    [ "$written" -le "${since:-0}" ] || systemctl reload "$service" || fail "$service has not taken its new file"
    ;;
reload) systemctl reload "$service" || fail "$service has not taken its new file, and goes on with the one before" ;;
esac
within "$service is not active" is_active
