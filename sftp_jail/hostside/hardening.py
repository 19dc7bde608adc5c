"""sshd hardened as a whole, for everybody who connects: ssh-audit's guide for Debian 13, and limits on connecting.

What the guide has and this server's OpenSSH has not is left out. Where this departs from the guide, and why:

- curve25519-sha256 stays, the one key exchange that a quantum computer could break: the Go client of the command
  plugin, paramiko, asyncssh and FileZilla have nothing better in common with OpenSSH before 9.9, nor WinSCP with 8.4.
- The type of the host key that the deployer pins stays. Its client takes ECDSA before all others where it is offered,
  so a server with several host keys may be known by that one alone.
- Users' ECDSA and RSA keys from 2048 bits on stay: a stack file may have them. RequiredRSASize would shut them out.
"""

import functools

from .process import run
from .state import Jail

KEX = (
    "mlkem768x25519-sha256",
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
)
CIPHERS = (
    "chacha20-poly1305@openssh.com",
    "aes256-gcm@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-gcm@openssh.com",
    "aes128-ctr",
)
MACS = ("hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "umac-128-etm@openssh.com")
KEYS = (
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "ssh-ed25519-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
    "sk-ssh-ed25519@openssh.com",
    "ssh-ed25519",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
USER_KEYS = (
    *KEYS,
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
)
CA_SIGNATURES = ("sk-ssh-ed25519@openssh.com", "ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")

LIMITS = (
    ("LoginGraceTime", "30"),
    # CIS Debian Benchmark 5.1: four or fewer.
    ("MaxAuthTries", "4"),
    # A deployer logs in once for every user, some of them at a time: no source may take all of the places, and none
    # is shut out for having many.
    ("MaxStartups", "100:30:200"),
    ("PerSourceMaxStartups", "50"),
    # Its default, 5 seconds a failure, keeps out for a quarter of a minute whoever has failed three times, and
    # everybody else from there.
    ("PerSourcePenalties", "authfail:1"),
)


def settings(jail: Jail, keywords: frozenset[str]) -> list[tuple[str, str]]:
    """What is set for everybody, by keyword (sshd_config(5)); nothing unless the jail hardens.

    :param keywords: those that this sshd has, in lower case
    """
    if not jail.hardening:
        return []
    pinned = () if jail.host_key_type in (*KEYS, "ssh-rsa") else (jail.host_key_type,)
    lists = (
        ("KexAlgorithms", "kex", KEX),
        ("Ciphers", "cipher", CIPHERS),
        ("MACs", "mac", MACS),
        ("HostKeyAlgorithms", "HostKeyAlgorithms", (*KEYS, *pinned)),
        ("CASignatureAlgorithms", "HostKeyAlgorithms", CA_SIGNATURES),
        ("HostbasedAcceptedAlgorithms", "HostKeyAlgorithms", KEYS),
        ("PubkeyAcceptedAlgorithms", "HostKeyAlgorithms", USER_KEYS),
        # So they are called before OpenSSH 8.5.
        ("HostbasedAcceptedKeyTypes", "HostKeyAlgorithms", KEYS),
        ("PubkeyAcceptedKeyTypes", "HostKeyAlgorithms", USER_KEYS),
    )
    wanted = [
        *((keyword, ",".join(name for name in names if name in _offered(query))) for keyword, query, names in lists),
        *LIMITS,
    ]
    return [(keyword, value) for keyword, value in wanted if keyword.lower() in keywords]


@functools.cache
def _offered(query: str) -> frozenset[str]:
    """What this OpenSSH can do (ssh(1), -Q)."""
    return frozenset(run("ssh", "-Q", query).split())
