"""A verb for the host, interrupted at any step: the administrator gets in, and the next run finishes the work."""

from tests.hostside.conftest import JAIL
from tests.hostside.faults.rounds import Move, Server, has_jack, has_less, interrupted, play

TAMPERING = """
chmod 0777 /sftp/jail/jack
rm /sftp/jail/jack/dev/log
echo >> /etc/ssh/sftp-jail/keys/jack
usermod -s /bin/sh -G sftp-only-read,sftp-only-upload jack
chage -M 30 jack
systemctl disable --quiet --now sftp-jail-expiry.timer
rm /etc/systemd/system/sftp-jail-expiry.service
echo >> /etc/sftp-jail/rsyslog.conf
rm /etc/ssh/sshd_config.d/00-sftp-jail.conf
systemctl reload ssh
"""


def has_been_tampered_with(server: Server) -> None:
    has_less(server)
    server.driver.shell(TAMPERING)


ROUNDS = {
    "a jail": [Move("remove-jail", JAIL, prepare=has_jack), Move("apply-jail", JAIL)],
    "a repair": [Move("repair", prepare=has_been_tampered_with)],
}


@interrupted(ROUNDS)
def test_interrupted_at_any_step_a_verb_shuts_nobody_out_and_the_next_run_finishes_it(
    server: Server, moves: list[Move], kind: str
) -> None:
    play(server, moves, kind, stride=61)
