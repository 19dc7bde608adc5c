#!/bin/bash
# The floor: what a careful administrator would have a server do by hand, as root, for a jail that is there.
#
# Reads lines, `present NAME UID KEY` and `absent NAME`; makes what is missing, and leaves alone what is there. With the
# argument `absent`, every NAME is to be absent.
set -eu
names=/sftp/state/log-names.json
rows=/sftp/state/bench-rows
keys=/etc/ssh/sftp-jail/keys
socket=/sftp/log/socket
changed=

exec 9> /run/bench-floor.lock
flock 9
[ -e "$rows" ] || echo '{"index": "0", "value": "root"}' > "$rows"

while read -r state user uid key; do
    jail=/sftp/jail/$user
    if [ "${1:-$state}" = absent ]; then
        id "$user" > /dev/null 2>&1 || continue
        rm -f "$keys/$user"
        chage -E 0 "$user"
        pkill -KILL -u "$user" || true
        install -d -m 700 /sftp/archive
        tar -cf "/sftp/archive/$user.tar" -C "$jail" uploads
        userdel "$user"
        rm -rf --one-file-system "$jail"
        sed -i "/\"value\": \"$user\"/d" "$rows"
        changed=yes
        continue
    fi
    if ! id "$user" > /dev/null 2>&1; then
        useradd --uid "$uid" --gid sftp-only --no-user-group --no-create-home --no-log-init --home-dir /uploads \
            --shell /usr/sbin/nologin --password '*' --inactive -1 --key PASS_MAX_DAYS=-1 "$user"
        echo "{\"index\": \"$uid\", \"value\": \"$user\"}, {\"index\": \"$user\", \"value\": \"$user\"}" >> "$rows"
        changed=yes
    fi
    if [ ! -d "$jail/uploads" ]; then
        mkdir -p "$jail/dev" "$jail/uploads"
        chown "$user:sftp-only" "$jail/uploads"
    fi
    [ "$jail/dev/log" -ef "$socket" ] || ln -f "$socket" "$jail/dev/log"
    if [ ! -e "$keys/$user" ] || [ "$(< "$keys/$user")" != "restrict $key" ]; then
        echo "restrict $key" > "$keys/.new"
        mv "$keys/.new" "$keys/$user"
    fi
done

if [ "$changed" ]; then
    echo "{\"version\": 1, \"nomatch\": \"\", \"type\": \"string\", \"table\": [$(paste -sd, "$rows")]}" > "$names.new"
    mv "$names.new" "$names"
    systemctl kill --signal=HUP --kill-who=main sftp-jail-log
fi
