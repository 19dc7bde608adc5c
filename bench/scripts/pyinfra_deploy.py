"""The same users by pyinfra: its own operations. `accounts`, `gone` and `names` are the host's data."""

# ruff: noqa: S604
import io

from pyinfra import host
from pyinfra.operations import files, server

for account in host.data.accounts:
    name, jail = account["name"], f"/sftp/jail/{account['name']}"
    server.user(
        user=name,
        uid=account["uid"],
        group="sftp-only",
        home="/uploads",
        ensure_home=False,
        create_home=False,
        shell="/usr/sbin/nologin",
        _sudo=True,
    )
    for folder in (jail, f"{jail}/dev"):
        files.directory(path=folder, user="root", group="root", mode="755", _sudo=True)
    files.directory(path=f"{jail}/uploads", user=name, group="sftp-only", mode="755", _sudo=True)
    # files.link takes a socket for no file.
    server.shell(f"[ {jail}/dev/log -ef /sftp/log/socket ] || ln -f /sftp/log/socket {jail}/dev/log", _sudo=True)
    files.put(
        src=io.StringIO(f"restrict {account['key']}\n"),
        dest=f"/etc/ssh/sftp-jail/keys/{name}",
        user="root",
        group="root",
        mode="644",
        _sudo=True,
    )

written = files.put(
    src=io.StringIO(host.data.names), dest="/sftp/state/log-names.json", user="root", mode="644", _sudo=True
)
server.shell("systemctl kill --signal=HUP --kill-who=main sftp-jail-log", _sudo=True, _if=written.did_change)

for name in host.data.gone:
    files.file(path=f"/etc/ssh/sftp-jail/keys/{name}", present=False, _sudo=True)
    server.shell(f"pkill -KILL -u {name} || true", _sudo=True)
    files.directory(path="/sftp/archive", mode="700", _sudo=True)
    server.shell(f"tar -cf /sftp/archive/{name}.tar -C /sftp/jail/{name} uploads", _sudo=True)
    server.user(user=name, present=False, _sudo=True)
    files.directory(path=f"/sftp/jail/{name}", present=False, _sudo=True)
