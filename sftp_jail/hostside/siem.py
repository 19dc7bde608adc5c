"""The same lines, sent on to a receiver of the operator's (a SIEM).

rsyslog keeps what the receiver has not taken in a queue, in memory and from there on disk, for as long as it is down.
Over TCP nobody says what has arrived (RFC 6587, 3.4.1, has no acknowledgement): what is on its way in the very moment
when a receiver dies is lost to it, and is in the log here.
"""

from pathlib import Path
from typing import Any, Optional

from .failure import Failure

DRIVERS = {"gtls": "rsyslog-gnutls", "ossl": "rsyslog-openssl"}
"""rsyslog's stream drivers that speak TLS, and Debian's packages of them."""

SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

QUEUE = "siem"
"""The name of the queue's files in rsyslog's work directory."""

# 32473 is the private enterprise number of examples (RFC 5612): the project has none.
TEMPLATES = {
    "rfc5424": """\
template(name="siem" type="list") {
    constant(value="<")
    property(name="pri")
    constant(value=">1 ")
    property(name="$.time")
    constant(value=" ")
    property(name="hostname")
    constant(value=" ")
    property(name="app-name")
    constant(value=" ")
    property(name="procid")
    constant(value=" - [sftp-jail@32473 user=\\"")
    property(name="$.user")
    constant(value="\\"] ")
    property(name="$.message")
}
""",
    "json": """\
template(name="siem" type="list" option.jsonf="on") {
    property(outname="time" name="$.time" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="user" name="$.user" format="jsonf")
    property(outname="tag" name="programname" format="jsonf")
    property(outname="pid" name="procid" format="jsonf")
    property(outname="message" name="$.message" format="jsonf")
}
""",
}
"""How a line is written. $.user is a name of ours or `uid:N`, so it needs no escaping (RFC 5424, 6.3.3)."""

# RFC 5424 goes with octet counting (RFC 5425; RFC 6587, 3.4.1); JSON is one object a line.
FRAMING = {"rfc5424": "octet-counted", "json": "traditional"}


def driver() -> Optional[str]:
    """The TLS driver that this server's rsyslog has, or None."""
    for name in DRIVERS:
        if (
            any(Path("/usr/lib").glob(f"*/rsyslog/lmnsd_{name}.so"))
            or Path(f"/usr/lib/rsyslog/lmnsd_{name}.so").exists()
        ):
            return name
    return None


def require_driver(siem: dict[str, Any]) -> None:
    """`Failure` if the lines must go over TLS, and rsyslog cannot speak it here."""
    if siem["protocol"] == "tls" and driver() is None:
        raise Failure("rsyslog has no TLS here, so nothing was changed", "Install it: apt-get install rsyslog-gnutls")


def globals_text(siem: Optional[dict[str, Any]], authorities: str) -> str:
    """The parameters of rsyslog's global() that TLS needs; per action they exist since 8.2108 only."""
    if siem is None or siem["protocol"] != "tls":
        return ""
    return (
        f'\n       defaultNetstreamDriver="{driver() or next(iter(DRIVERS))}"'
        f'\n       defaultNetstreamDriverCAFile="{authorities if siem.get("ca") else SYSTEM_AUTHORITIES}"'
    )


def template_text(siem: Optional[dict[str, Any]]) -> str:
    """The template of what is sent."""
    return TEMPLATES[siem["format"]] if siem is not None else ""


def action_text(siem: Optional[dict[str, Any]]) -> str:
    """The action that sends. A full disk queue drops at once: it must not hold up those who upload."""
    if siem is None:
        return ""
    tls = f"""
           streamDriverMode="1" streamDriverAuthMode="x509/name" streamDriverPermittedPeers="{siem["host"]}\""""
    return f"""\
    action(type="omfwd" target="{siem["host"]}" port="{siem["port"]}" protocol="tcp"
           tcp_framing="{FRAMING[siem["format"]]}" template="siem"{tls if siem["protocol"] == "tls" else ""}
           action.resumeRetryCount="-1" action.resumeInterval="1" action.resumeIntervalMax="60"
           queue.type="LinkedList" queue.filename="{QUEUE}" queue.maxDiskSpace="1g" queue.saveOnShutdown="on"
           queue.timeoutEnqueue="0")
"""
