"""An rsyslogd of the jails' own: what it is configured to do, and the units that run it.

Not the host's own rsyslog, for its configuration is the host's, and much of it is global to a process: with
`$RepeatedMsgReduction on` or `$PrivDropToUser`, as Ubuntu ships them, lines are dropped or names are not read; it may
or may not load imuxsock, which must not be loaded twice; an AppArmor profile or a sandbox may close on it; another
action that blocks would hold up ours.

- The sockets are systemd's, which hands them over (imuxsock takes them: sd_listen_fds(3)). They outlive rsyslogd, so
  what is sent while it restarts waits in the kernel, and no link to them ever becomes stale.
- The ruleset has no queue: a sender waits until its line is in the file, and a crash loses the one in rsyslog's hands.
- What sshd says comes from the journal, which has the kernel's word for who said it (systemd.journal-fields(7), _UID);
  what journald forwards to the host's rsyslog lacks it, and some lines. imjournal remembers where it was.
"""

from typing import Optional

from . import state

FOLDER = f"{state.TOP}/log"
SOCKET = f"{FOLDER}/socket"
LOG = "/var/log/sftp.log"
NAMES = f"{state.FOLDER}/log-names.json"
WORK = "/var/lib/sftp-jail"
"""Of this machine alone: the place in its journal."""

CONFIG_FOLDER = "/etc/sftp-jail"
CONFIG = f"{CONFIG_FOLDER}/rsyslog.conf"
SERVICE = "sftp-jail-log.service"
SOCKET_UNIT = "sftp-jail-log.socket"
UNITS = "/etc/systemd/system"
LOGROTATE = "/etc/logrotate.d/sftp-jail"

WRITTEN = "# Written by jailctl, which puts it back when it is changed.\n"


def texts() -> dict[str, Optional[str]]:
    """Every file, by path."""
    return {
        CONFIG: config(),
        f"{UNITS}/{SERVICE}": service_text(),
        f"{UNITS}/{SOCKET_UNIT}": socket_text(),
        LOGROTATE: LOGROTATE_TEXT,
    }


def config() -> str:
    """rsyslog's configuration.

    Of the journal: what root's sshd says about one of the jailed (by name: the table has names, too), which of its
    processes is whose, what journald had to drop of it, and the canary.
    """
    return f"""\
{WRITTEN}global(workDirectory="{WORK}")
main_queue(queue.type="Direct")
module(load="imuxsock" sysSock.use="off")
module(load="imjournal" stateFile="journal" persistStateInterval="1" ratelimit.interval="0" ignorePreviousMessages="on")
lookup_table(name="names" file="{NAMES}" reloadOnHUP="on")
template(name="received" type="list") {{ property(name="timegenerated" dateFormat="rfc3339" date.inUTC="on") }}
template(name="reported" type="list") {{ property(name="timereported" dateFormat="rfc3339" date.inUTC="on") }}
template(name="line" type="list") {{
    property(name="$.time")
    constant(value=" ")
    property(name="$.user")
    constant(value=" ")
    property(name="syslogtag")
    constant(value=" ")
    property(name="$.message")
    constant(value="\\n")
}}
ruleset(name="write") {{
    set $.message = ltrim($msg);
    action(type="omfile" file="{LOG}" template="line" fileOwner="root" fileGroup="adm" fileCreateMode="0640"
           action.resumeInterval="1")
}}
ruleset(name="jails" queue.type="Direct") {{
    set $.time = exec_template("received");
    set $.user = lookup("names", $!uid);
    if $.user == "" then {{
        set $.user = "uid:" & $!uid;
    }}
    call write
}}
input(type="imuxsock" socket="{SOCKET}" annotate="on" parseTrusted="on" rateLimit.interval="0" ruleset="jails")

# What is left comes from the journal.
if $!_UID != "0" then {{
    stop
}}
set $.time = exec_template("reported");
set $.user = "root";
if $!SYSLOG_IDENTIFIER == ["sshd", "sshd-session", "sshd-auth"] then {{
    set $.about = re_extract($!MESSAGE, "( user=|[fF]or user |[fF]or |[uU]ser |account )([a-z_][a-z0-9_-]*)", 0, 2, "");
    if $!MESSAGE startswith "User child is on pid " then {{
        call write
    }} else if $.about != "" and lookup("names", $.about) == $.about and not ($!MESSAGE startswith "Postponed ") then {{
        call write
    }}
}} else if $!SYSLOG_IDENTIFIER == "jailctl" and $!MESSAGE startswith "canary " then {{
    call write
}} else if $!SYSLOG_IDENTIFIER == "systemd-journald" and $!MESSAGE startswith "Suppressed "
           and $!MESSAGE contains "ssh" then {{
    call write
}}
"""


BEFORE_LOGINS = "Before=ssh.service systemd-user-sessions.service"
"""There before the first session, and until after the last one. Not ssh.socket, for which the whole boot waits."""


def socket_text() -> str:
    """The unit of the socket. No default dependencies, so that the boot does not wait for a volume that is gone
    (systemd.socket(5), RequiresMountsFor= is implied)."""
    return f"""\
{WRITTEN}[Unit]
Description=Log of the jailed SFTP users, its socket
DefaultDependencies=no
Requires=sysinit.target
After=sysinit.target
Conflicts=shutdown.target
Before=shutdown.target
{BEFORE_LOGINS}
[Socket]
ListenDatagram={SOCKET}
SocketMode=0666
# Also of what is sent while nobody reads: who sent it, and when.
PassCredentials=yes
Timestamping=us
ExecStartPost=-/usr/local/sbin/jailctl relink
[Install]
WantedBy=multi-user.target
"""


def service_text() -> str:
    """The unit of rsyslogd."""
    return f"""\
{WRITTEN}[Unit]
Description=Log of the jailed SFTP users
Requires={SOCKET_UNIT}
After={SOCKET_UNIT} network.target
{BEFORE_LOGINS}
[Service]
Type=notify
ExecStart=/usr/sbin/rsyslogd -n -iNONE -f {CONFIG}
# Up to the limit of starts (systemd.unit(5)), at which systemd closes the socket, too: until then, who writes waits.
Restart=always
StandardOutput=null
LimitNOFILE=16384
# A profile for the host's rsyslog, where there is one, knows nothing of these paths; this is what confines it instead.
AppArmorProfile=-unconfined
NoNewPrivileges=yes
PrivateTmp=yes
ProtectHome=yes
ProtectSystem=full
[Install]
WantedBy=multi-user.target
"""


LOGROTATE_TEXT = f"""\
{WRITTEN}{LOG} {{
	weekly
	rotate 52
	missingok
	notifempty
	compress
	# rsyslog writes to the file that was renamed until it is told of the new one.
	delaycompress
	nocopytruncate
	su root adm
	create 0640 root adm
	postrotate
		systemctl kill --signal=HUP --kill-who=main {SERVICE} 2> /dev/null || true
	endscript
}}
"""
