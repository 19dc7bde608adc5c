"""The Pulumi program: stack configuration, host, jail, exports."""

import pulumi

from sftp_jail import SftpJail, SftpJailArgs, config

settings = config.load()
host = settings.host("host")
jail = SftpJail(
    "jail",
    SftpJailArgs(
        host=host,
        users=settings.users,
        log_level=settings.log_level,
        umask=settings.umask,
        hardening=settings.hardening,
        siem=settings.siem,
        quotas=settings.quotas,
        attached=settings.attached,
        force_destroy=settings.force_destroy,
    ),
)

pulumi.export("address", jail.address)
pulumi.export("port", jail.port)
pulumi.export("knownHosts", jail.known_hosts)
pulumi.export("users", jail.users)
for name, value in host.exports.items():
    pulumi.export(name, value)
