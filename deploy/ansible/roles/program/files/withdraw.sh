# Take back files of NAME that no variable asks for any more, and what they did. sh -s -- ROOT NAME PATHS...
set -eu
root=$1 name=$2
shift 2
for path; do
    [ -e "$path" ] || continue
    case $path in
    *-firewall.service)
        systemctl disable --quiet --now "${path##*/}"
        rm "$path"
        systemctl daemon-reload
        ;;
    /etc/sysctl.d/*)
        rm "$path"
        if [ -e "$root/$name.sysctls" ]; then
            sysctl -q -e -p "$root/$name.sysctls" || true
            rm "$root/$name.sysctls"
        fi
        ;;
    /etc/firewalld/*)
        rm "$path"
        firewall-cmd --quiet --reload || true
        ;;
    *) rm "$path" ;;
    esac
    echo "removed $path"
done
