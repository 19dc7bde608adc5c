"""Every operation of every user, in /var/log/sftp.log, by rsyslog.

internal-sftp runs inside the chroot, where there is no /dev/log. So rsyslog has one more socket, on the jails'
own file system, and each jail's dev/log is a hard link to it: no mount, and no restart for a new user. The
kernel tells rsyslog the uid that sent a line, which nobody can forge, and a lookup table turns it into the name
that internal-sftp's lines lack. rsyslog makes a new socket when it starts; the unit's drop-in renews the links.
"""

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from . import chroot, files, services, state
from .difference import Difference, refusal
from .failure import Failure
from .process import run
from .state import Jail, User

FOLDER = f"{state.TOP}/log"
SOCKET = f"{FOLDER}/socket"
LOG = "/var/log/sftp.log"
NAMES = f"{state.FOLDER}/log-names.json"

# After every file that may load imuxsock, which must not be loaded twice.
CONFIG = "/etc/rsyslog.d/90-sftp-jail.conf"
UNIT = f"/etc/systemd/system/{services.RSYSLOG}.d/sftp-jail.conf"
LOGROTATE = "/etc/logrotate.d/sftp-jail"

NAMES_PENDING = "log-names"

UNIT_TEXT = """\
# Written by jailctl, which puts it back when it is changed.
[Unit]
# Order alone: a volume that is not there must not keep the host's own log down.
After=sftp.mount
[Service]
# + leaves the unit's sandbox, where a hard link between its mounts would not be possible.
ExecStartPost=-+/usr/local/sbin/jailctl relink
"""

LOGROTATE_TEXT = f"""\
# Written by jailctl, which puts it back when it is changed.
{LOG} {{
	weekly
	rotate 52
	missingok
	notifempty
	compress
	delaycompress
	nocopytruncate
	su root adm
	create 0640 root adm
	postrotate
		/usr/lib/rsyslog/rsyslog-rotate
	endscript
}}
"""


def config() -> str:
    """rsyslog's configuration: one input, its ruleset and nobody else's."""
    loaded = any(
        re.search(r'^\s*(module\(.*"imuxsock"|\$ModLoad\s+imuxsock)', files.read(str(path)) or "", re.M | re.I)
        for path in (Path("/etc/rsyslog.conf"), *Path("/etc/rsyslog.d").glob("*.conf"))
        if str(path) != CONFIG
    )
    module = "" if loaded else 'module(load="imuxsock" SysSock.Use="off")\n'
    return f"""\
# Written by jailctl, which puts it back when it is changed.
{module}lookup_table(name="sftp_jail_names" file="{NAMES}" reloadOnHUP="on")
template(name="sftp_jail_line" type="list") {{
    property(name="timegenerated" dateFormat="rfc3339" date.inUTC="on")
    constant(value=" ")
    property(name="$.sftp_jail_user")
    constant(value=" ")
    property(name="syslogtag")
    property(name="msg" spIfNo1stSp="on")
    property(name="msg" dropLastLf="on")
    constant(value="\\n")
}}
ruleset(name="sftp_jail") {{
    set $.sftp_jail_user = lookup("sftp_jail_names", $!uid);
    if $.sftp_jail_user == "" then {{
        set $.sftp_jail_user = "uid:" & $!uid;
    }}
    action(type="omfile" file="{LOG}" template="sftp_jail_line"
           fileOwner="root" fileGroup="adm" fileCreateMode="0640")
}}
input(type="imuxsock" socket="{SOCKET}" annotate="on" parseTrusted="on" rateLimit.interval="0" ruleset="sftp_jail")
"""


def differences(jail: Optional[Jail]) -> Iterator[Difference]:
    """rsyslog listening at the jails' socket; without a jail, nothing of it left but the log."""
    texts: dict[str, Optional[str]] = {CONFIG: None, UNIT: None, LOGROTATE: None}
    if jail is not None:
        if shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            failure = Failure(
                "rsyslog is not installed, so nothing would be logged", "Install it: apt-get install rsyslog"
            )
            yield refusal("rsyslog", "not installed", "installed", failure)
        yield from files.directory_differences(FOLDER, 0o700)
        if files.read(NAMES) is None:
            yield Difference(NAMES, "missing", "there", lambda: _write_names({}))
        texts = {CONFIG: config(), UNIT: UNIT_TEXT, LOGROTATE: LOGROTATE_TEXT}
    changed = {path: text for path, text in texts.items() if files.read(path) != text}
    if changed:
        yield Difference(
            f"rsyslog, {', '.join(sorted(changed))}",
            "another configuration",
            "the jail's" if jail else "without the jail",
            lambda: services.install(services.RSYSLOG, changed, lambda: run("rsyslogd", "-N1"), _load),
        )
    if services.is_marked(services.RSYSLOG):
        yield Difference("rsyslog", "runs with an earlier configuration", "restarted", _load)
    if jail is not None:
        if not _is_listening():
            yield Difference(SOCKET, "nobody listens there, so nothing is logged", "rsyslog listens", _load)
        if services.is_marked(NAMES_PENDING):
            yield Difference(NAMES, "an earlier one is loaded", "loaded", _load_names)
        return
    yield from files.empty_directory_differences(os.path.dirname(UNIT))
    yield from files.file_differences(NAMES, None)
    yield from files.file_differences(SOCKET, None)
    yield from files.empty_directory_differences(FOLDER)


def _load() -> None:
    run("systemctl", "daemon-reload")
    # Else the sixth restart in ten seconds (systemd's DefaultStartLimitBurst) would leave rsyslog down.
    services.act("reset-failed", services.RSYSLOG)
    services.act("restart", services.RSYSLOG)
    services.clear(services.RSYSLOG)


def _is_listening() -> bool:
    """Whether somebody receives what is sent to the socket; the file alone outlives its rsyslog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(SOCKET)
        except OSError:
            return False
    return True


def user_differences(user: User) -> Iterator[Difference]:
    """The user's dev/log and name."""
    link = f"{chroot.path(user.username)}/dev/log"
    if not _is_linked(link):
        yield Difference(link, "no link to the log socket", "linked", lambda: _link(link))
    if _names().get(str(user.uid)) != user.username:
        yield Difference(
            f"name of uid {user.uid} in {LOG}",
            "missing",
            user.username,
            lambda: _write_names({**_names(), str(user.uid): user.username}),
        )
    if services.is_marked(NAMES_PENDING):
        yield Difference(NAMES, "an earlier one is loaded", "loaded", _load_names)


def user_removal_differences(user: User) -> Iterator[Difference]:
    """No name for the uid, which nobody has any more."""
    names = _names()
    if names.pop(str(user.uid), None) is not None:
        yield Difference(f"name of uid {user.uid} in {LOG}", user.username, "none", lambda: _write_names(names))
    if services.is_marked(NAMES_PENDING):
        yield Difference(NAMES, "an earlier one is loaded", "loaded", _load_names)


def relink() -> None:
    """Give every jail the socket that a starting rsyslog has just made.

    Takes no lock: it runs within a restart that a lock's holder may be waiting for. Each link is one rename.
    """
    deadline = time.monotonic() + 5
    while not _is_listening():
        if time.monotonic() > deadline:
            raise Failure(f"nobody listens at {SOCKET}", "See: journalctl -u rsyslog")
        time.sleep(0.02)
    for user in state.users():
        link = f"{chroot.path(user.username)}/dev/log"
        if os.path.isdir(os.path.dirname(link)) and not _is_linked(link):
            _link(link)


def _is_linked(link: str) -> bool:
    try:
        return os.path.samestat(os.lstat(link), os.lstat(SOCKET))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _link(link: str) -> None:
    if not os.path.exists(SOCKET):
        raise Failure(f"{SOCKET} is missing, so nothing would be logged", "See: systemctl status rsyslog")
    temporary = f"{link}.new"
    Path(temporary).unlink(missing_ok=True)
    os.link(SOCKET, temporary)
    os.rename(temporary, link)


def _names() -> dict[str, str]:
    text = files.read(NAMES)
    return {} if text is None else {row["index"]: row["value"] for row in json.loads(text)["table"]}


def _write_names(names: dict[str, str]) -> None:
    """The lookup table in rsyslog's own form. root is in it since rsyslog refuses an empty one."""
    table = [{"index": uid, "value": name} for uid, name in sorted({"0": "root", **names}.items())]
    text = json.dumps({"version": 1, "nomatch": "", "type": "string", "table": table})
    services.mark(NAMES_PENDING)
    files.write(NAMES, text + "\n", 0o644)


def _load_names() -> None:
    # Down is not our fault to report here; what rsyslog reads when it starts is the new table.
    if services.is_active(services.RSYSLOG):
        run("systemctl", "kill", "--signal=HUP", "--kill-who=main", services.RSYSLOG)
    services.clear(NAMES_PENDING)
