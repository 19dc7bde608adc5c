"""Isolated, audited SFTP logins on plain OpenSSH, as Pulumi components.

from sftp_jail import LocalHost, LocalHostArgs, SftpJail, SftpJailArgs, UserArgs

jail = SftpJail(
    "jail",
    SftpJailArgs(
        host=LocalHost("host", LocalHostArgs()),
        users={"jack": UserArgs(keys={"laptop": "ssh-ed25519 AAAA..."})},
    ),
)
"""

from .faults import ConfigError, Fault
from .hosts import Host
from .hosts.existing import ExistingHost, ExistingHostArgs, SshServerArgs
from .hosts.local import LocalHost, LocalHostArgs
from .hosts.stack import StackHost, StackHostArgs
from .jail import SftpJail, SftpJailArgs, SiemArgs
from .user import JailUser, JailUserArgs, UserArgs

__all__ = [
    "ConfigError",
    "ExistingHost",
    "ExistingHostArgs",
    "Fault",
    "Host",
    "JailUser",
    "JailUserArgs",
    "LocalHost",
    "LocalHostArgs",
    "SftpJail",
    "SftpJailArgs",
    "SiemArgs",
    "SshServerArgs",
    "StackHost",
    "StackHostArgs",
    "UserArgs",
]
