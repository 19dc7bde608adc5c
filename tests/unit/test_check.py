"""What `check` finds in a stack's state."""

from typing import Any

import pytest

from sftp_jail import check

STACK = "urn:pulumi:staging::sftp-jail"
JAIL = f"{STACK}::sftp-jail:index:SftpJail::jail"
USER = f"{STACK}::sftp-jail:index:SftpJail$sftp-jail:index:JailUser::jail-jack"


def command(parent: str, **other: Any) -> dict[str, Any]:
    """A Command in the state."""
    connection = {"host": "10.213.0.2", "hostKey": "ssh-ed25519 AAAA"}
    return {"type": "command:remote:Command", "parent": parent, "inputs": {"connection": connection}, **other}


def test_the_connection_of_all_the_jails_commands_is_one() -> None:
    assert check.connections([command(JAIL), command(USER)]) == [command(JAIL)["inputs"]["connection"]]


@pytest.mark.parametrize(
    "other",
    [
        command(f"{STACK}::pulumi:pulumi:Stack::sftp-jail-staging"),
        command(f"{STACK}::acme:index:SftpJail::jail"),
        {**command(JAIL), "type": "command:local:Command"},
        {key: value for key, value in command(JAIL).items() if key != "parent"},
        command(JAIL, delete=True),
    ],
    ids=["somebody else's", "of another package", "a local one", "without a parent", "that waits to be deleted"],
)
def test_a_command_that_is_not_the_jails_is_passed_over(other: dict[str, Any]) -> None:
    with pytest.raises(check.NoAnswer, match="no jail"):
        check.connections([other])


def test_a_secret_is_unwrapped_wherever_it_is() -> None:
    def secret(text: str) -> dict[str, str]:
        return {check.SIGNATURE: check.SECRET, "plaintext": text}

    assert check.revealed({"a": [secret('"x"')], "b": secret('{"c": "y"}')}) == {"a": ["x"], "b": {"c": "y"}}
