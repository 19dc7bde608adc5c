"""Public keys and password hashes for tests, made without any program; none of them opens anything."""

import base64

POINT_BYTES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}


def string(data: bytes) -> bytes:
    """RFC 4251's string: its length, then it."""
    return len(data).to_bytes(4, "big") + data


def line(kind: str, *fields: bytes, inner: str = "") -> str:
    """A key of one type, or one whose data says that it is another."""
    blob = b"".join(string(field) for field in (inner.encode() or kind.encode(), *fields))
    return f"{kind} {base64.b64encode(blob).decode()}"


def ed25519(number: int = 1) -> str:
    return line("ssh-ed25519", number.to_bytes(32, "big"))


def sk_ed25519() -> str:
    return line("sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")


def ecdsa(curve: str) -> str:
    return line(f"ecdsa-sha2-{curve}", curve.encode(), b"\4" + bytes(POINT_BYTES[curve] - 1))


def sk_ecdsa() -> str:
    return line("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", b"\4" + bytes(64), b"ssh:")


def rsa(bits: int) -> str:
    modulus = 2 ** (bits - 1) + 1
    return line("ssh-rsa", b"\1\0\1", modulus.to_bytes(bits // 8 + 1, "big"))


def dsa() -> str:
    return line("ssh-dss", *[b"\0" + b"\xff" * 128] * 4)


# crypt(3) of "hunter2"
YESCRYPT = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$PmNgGTLMFjJn.URBv11CpTEm5RwlKtPjRtztKe6.b33"
STRONG_HASHES = {
    "yescrypt": YESCRYPT,
    "gost-yescrypt": "$gy$j9T$F5Jx5fExrKuPp53xLKQ..1$pqxNhMZNzEpH0BE7/ZudIY41.ZuRdHUEOOaWBy5Vls9",
    "sha512": "$6$saltsaltsaltsalt$dJX0KuyM7nCXuBPN.nYtdrJDotQEB1rFBumzix6FHzliKxLBinGY49pMJNvCoNf9fHmNyZ1IgX"
    "/glbcKhuXoh.",
    "sha512 with rounds": "$6$rounds=5000$saltsalt$8iYtNHxjWRl.NF6oNZ5tF.iKFlQREaXBLlSmZKP6dy9l5z3vsooWNW0/"
    "GZ6Nej73/TFug6pIPSqbJoCT6dfnj.",
    "sha256": "$5$saltsalt$OIdfjX.u4Y3SJ4I2bX8w5BMf1VAUhHABNUirScDzZi3",
    "bcrypt": "$2b$10$abcdefghijklmnopqrstuu7gIUFBKrYXdzQy8HrouzMJyZ4cijAb2",
}
WEAK_HASHES = {
    "MD5": "$1$saltsalt$ZliGyAN3DciDHEkDboonh/",
    "DES": "ab0ozUNIgzCZ.",
    "BSDi DES": "_J9..saltujX2/vDcajk",
    "a plain password": "hunter2-hunter2",
    "a locked hash": f"!{YESCRYPT}",
    "a star": f"*{YESCRYPT}",
    "a colon": f"{YESCRYPT}:0:0",
    "a newline": f"{YESCRYPT}\n",
    "a cut hash": YESCRYPT[:-1],
    "nothing": "",
}

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUAAAA\n-----END CERTIFICATE-----\n"
