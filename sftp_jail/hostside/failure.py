"""The one way in which jailctl gives up."""

AGAIN = "The jail was not as confirmed last, and has been applied again"
"""What `confirm` says when another connection must confirm what it has just done; the Pulumi program goes by it."""


class Failure(Exception):
    """A reason to stop, told to the operator as one line: what is wrong, a hint at the way out, and the command that is
    the way, where there is one."""

    def __init__(self, message: str, hint: str, command: str = "") -> None:
        super().__init__(message, hint, command)
        self.message = message
        self.hint = hint
        self.command = command

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}{f': {self.command}' if self.command else ''}."
