"""The verbs. Each is a chain of the areas' differences, mended in order, listed, or mended towards nothing."""

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import (
    accounts,
    archive,
    audit,
    chroot,
    confirm,
    difference,
    expiry,
    keys,
    limits,
    lock,
    loop,
    notes,
    process,
    quota,
    report,
    rsyslog,
    services,
    siem,
    spec,
    sshd,
    state,
)
from .difference import Difference
from .failure import Failure
from .state import Jail, User

if TYPE_CHECKING:
    import argparse


def jail_differences(jail: Jail) -> Iterator[Difference]:
    """The host: what must be there before a user, then sshd, then every user that it already has."""
    told = difference.told
    yield from told(state.TOP, chroot.differences())
    yield from told(state.FOLDER, state.folder_differences())
    yield from told(archive.FOLDER, archive.folder_differences())
    yield from told("quotas", quota.differences(jail))
    yield from told("groups", accounts.group_differences(wanted=True))
    yield from told(keys.FOLDER, keys.differences())
    yield from told("log", audit.differences(jail))
    yield from told("expiry", expiry.differences(wanted=True))
    yield from told("limits", limits.differences(wanted=True))
    yield from told("confirmation", confirm.differences())
    yield from told("sshd", sshd.differences(jail, accounts.sound))
    yield from told("sshd", sshd.address_differences(user for user in state.users() if not user.pending))
    for user in state.users():
        if user.removing:
            yield Difference(
                f"user {user.username}", "being removed by a run that was interrupted", "gone", partial(_remove, user)
            )
        elif not user.pending and not _waits(user):
            yield from told(f"user {user.username}", user_differences(user, jail))
    yield from told(rsyslog.LOG, audit.canary_differences())


def _waits(user: User) -> bool:
    """Whether he has no access yet, and is given none before sshd's new configuration is confirmed: the old one, which
    may come back, need not jail anybody."""
    return confirm.trial() is not None and not accounts.is_there(user)


def moved_differences(jail: Jail) -> Iterator[Difference]:
    """Nobody's access on a machine that is new to the jails, but of those who are still asked for.

    The users of other stacks are, as far as this one can tell: their stacks have no part in a change of machines.
    Those of the stack that has the host, or had it, are not before it says so: one who was removed together with the
    machine before was never removed from these jails.
    """
    before = state.jail()
    if before is None or before.machine == jail.machine:
        return
    for user in state.users():
        if user.owner in (before.owner, jail.owner) and not user.pending and accounts.entry(user) is None:
            held = user._replace(keys={}, password_hash=None, pending=True)
            yield Difference(
                f"access of {user.username}",
                "the machine's before",
                "none, until his stack asks for him",
                partial(state.write_user, held),
            )


def jail_removal_differences() -> Iterator[Difference]:
    """The host without a jail: users first, so that nobody is left when sshd no longer jails them."""
    for user in state.users():
        yield from user_removal_differences(user)
    yield from sshd.differences(None, list)
    yield from confirm.removal_differences()
    yield from expiry.differences(wanted=False)
    yield from limits.differences(wanted=False)
    yield from audit.removal_differences()
    yield from accounts.group_differences(wanted=False)
    yield from keys.removal_differences()
    yield from quota.removal_differences()
    yield from state.jail_differences(None)
    yield from chroot.removal_differences()


def user_differences(user: User, jail: Jail) -> Iterator[Difference]:
    """One user. The keys come last: nobody logs in before everything that confines and records him is there."""
    yield from chroot.jail_differences(user)
    yield from quota.user_differences(user, jail)
    yield from accounts.user_differences(user)
    yield from chroot.user_differences(user)
    yield from audit.user_differences(user)
    yield from sshd.user_differences(user, jail)
    yield from keys.user_differences(user)
    yield from expiry.user_differences(user)


def user_removal_differences(user: User) -> Iterator[Difference]:
    """No user. Access ends first; nothing is deleted before what he uploaded is safe."""
    if not user.removing:
        yield Difference(f"record of {user.username}", "there", "being removed", partial(state.begin_removal, user))
        user = user._replace(removing=True)
    yield from keys.user_removal_differences(user)
    yield from accounts.closing_differences(user)
    if process.of(user.uid):
        yield Difference(f"processes of {user.username}", "running", "ended", lambda: process.end(user.uid))
    yield from quota.whole_differences(user)
    yield from archive.differences(user)
    yield from accounts.removal_differences(user)
    # A login that was under way when the keys went has an account no more, but may have a process.
    process.end(user.uid)
    if user.password_hash is not None:
        yield from sshd.loaded_address_differences(accounts.others_with_passwords(user))
    yield from quota.removal_differences_of(user)
    yield from chroot.user_removal_differences(user)
    yield from audit.user_removal_differences(user)
    yield Difference(f"record of {user.username}", "there", "gone", lambda: state.forget_user(user.username))


def apply_jail() -> list[str]:
    """Make this server a jail host, and put right every user that it has."""
    jail, _ = spec.read_jail(sys.stdin)
    with lock.held():
        return _apply_jail(jail)


def _apply_jail(jail: Jail) -> list[str]:
    lines = difference.apply(moved_differences(jail))
    lines += difference.apply(jail_differences(jail))
    # What sshd has on trial is not the jail yet.
    return lines if confirm.trial() is not None else lines + _keep(jail)


def _keep(jail: Jail) -> list[str]:
    if found := notes.jail_notes(state.jail(), jail):
        audit.note(*found)
    return difference.apply(state.jail_differences(jail)) + difference.apply(confirm.held_differences())


def confirm_jail() -> list[str]:
    """Let sshd's new configuration stand, since this connection has come in through it; with a spec, else apply it."""
    jail = spec.read_jail_if_given(sys.stdin)
    with lock.held():
        waiting = [user.username for user in state.users() if not user.pending and _waits(user)]
        confirmed = confirm.confirm(jail)
        if confirmed is not None:
            lines = ["sshd: confirmed (was: on trial)", *_keep(confirmed)]
            return lines + (difference.apply(jail_differences(confirmed)) if waiting else [])
        if jail is None:
            return []
        lines = _apply_jail(jail)
        if confirm.trial() is not None:
            raise confirm.again()
        return lines


def rollback() -> list[str]:
    """For systemd's timer: put back sshd's configuration of before, unless the new one has been confirmed."""
    return confirm.roll_back(sshd.load)


def remove_jail() -> list[str]:
    """Take everything away again, users that are left included; uploads are archived."""
    _, tenancy = spec.read_jail(sys.stdin)
    with lock.held():
        _refuse_to_leave_others(tenancy)
        if state.jail() is not None:
            # Before, since nothing is left afterwards that could log it.
            audit.try_to_note(*map(notes.removal_note, state.users()), notes.note("jail-removed", by=tenancy.owner))
        return difference.apply(jail_removal_differences())


def release() -> list[str]:
    """Refuse, while the users of other stacks are here, to let the host go."""
    tenancy = spec.read_tenancy(sys.stdin)
    with lock.held():
        _refuse_to_leave_others(tenancy)
    return []


def _refuse_to_leave_others(tenancy: spec.Tenancy) -> None:
    others = [
        f"{user.owner} ({user.username})" for user in state.users() if user.owner != tenancy.owner and not user.pending
    ]
    if others and not tenancy.force_destroy:
        raise Failure(
            f"other stacks have users here: {', '.join(others)}; nothing was deleted",
            "Destroy those stacks first; or set forceDestroy: true and run `pulumi up`, and destroy ends their access",
        )


def apply_user() -> list[str]:
    """Give a user access, or change it."""
    username, owner, grant = spec.read_user(sys.stdin)
    with confirm.lock_held_after_trial():
        known = state.user(username)
        jail = _jail()
        if known is not None:
            # What the stack that had the host before has left behind is the next one's.
            if known.owner != owner and not (known.pending and owner == jail.owner):
                raise Failure(
                    f"user {username} belongs to the stack {known.owner}",
                    "Choose another username, or take him out of that stack first. Where that is this stack under the "
                    "name it had, run on the server: echo "
                    f"""'{{"from": "{known.owner}", "to": "{owner}"}}' | sudo jailctl rename-owner""",
                )
            return _apply(
                known._replace(owner=owner, archive=None, pending=False, removing=False, **grant), jail, known
            )
        if accounts.claimed_by_others(username):
            raise Failure(f"the server has an account {username} that is not ours", "Choose another username")
        sshd.test()
        user = User(username, state.next_id(), owner, **grant)
        try:
            # From here on the name and the uid are taken, even if this run is killed.
            state.write_user(user._replace(keys={}))
            return _apply(user, jail, None)
        except (Failure, OSError):
            # What Pulumi saw fail is not in its state, so it would never remove what was begun.
            with contextlib.suppress(Failure, OSError):
                difference.apply(user_removal_differences(user))
            raise


def remove_user() -> list[str]:
    """End a user's access and sessions, archive his uploads, and delete his account."""
    username, owner, *_ = spec.read_user(sys.stdin)
    with lock.held():
        user = state.user(username)
        if user is None or user.owner != owner:
            return []
        return _remove(user)


def _remove(user: User) -> list[str]:
    lines = difference.apply(user_removal_differences(user))
    return lines + audit.try_to_note(notes.removal_note(user))


def prune() -> list[str]:
    """Remove whom the machine before this one had, and whom his stack has not asked for here; uploads are archived."""
    owner = spec.read_owner(sys.stdin)
    with lock.held():
        if _jail().owner != owner:
            return []
        return [line for user in state.users() if user.pending for line in _remove(user)]


def rename_owner() -> list[str]:
    """Let a stack that was renamed keep its users."""
    old, new = spec.read_renaming(sys.stdin)
    with lock.held():
        lines = []
        for user in [user for user in state.users() if user.owner == old]:
            renamed = user._replace(owner=new)
            audit.note(*notes.user_notes(user, renamed))
            lines += difference.apply(state.user_differences(renamed))
        return lines


def apply_password() -> list[str]:
    """Let a user log in with a password, too."""
    username, password_hash = spec.read_password(sys.stdin)
    return _set_password(username, password_hash)


def remove_password() -> list[str]:
    """Let a user log in with keys alone."""
    username, _ = spec.read_password(sys.stdin)
    return _set_password(username, None)


def _set_password(username: str, password_hash: Optional[str]) -> list[str]:
    with lock.held() if password_hash is None else confirm.lock_held_after_trial():
        user = state.user(username)
        if user is None or user.pending or user.removing:
            if password_hash is None:
                return []
            raise Failure(f"there is no user {username}", "Run apply-user first")
        return _apply(user._replace(password_hash=password_hash), _jail(), user)


def _apply(user: User, jail: Jail, before: Optional[User]) -> list[str]:
    """Give him what he is to have; nobody is told so who could not be told by the log, too."""
    lines = []
    if user.password_hash is not None:
        lines += difference.apply(_address_differences(user))
    if before is not None and before.access not in ("read-write", user.access):
        # A key that goes is not to be good for more meanwhile.
        lines += difference.apply(keys.withdrawal_differences(user))
    lines += difference.apply(user_differences(user, jail))
    if user.password_hash is None and before is not None and before.password_hash is not None:
        # Not sooner: until here he had a password, and it was not to be good from anywhere else.
        lines += difference.apply(_address_differences(user))
    ended = difference.apply(_lesser_differences(before, user))
    told = [notes.note("sessions-ended", user=user.username, by=user.owner)] if ended else []
    audit.note(*notes.user_notes(before, user), *told)
    return lines + ended + difference.apply(state.user_differences(user))


def _address_differences(user: User) -> Iterator[Difference]:
    """From where passwords are good, once this user is as he is to be."""
    yield from sshd.loaded_address_differences(sorted([*accounts.others_with_passwords(user), user]))


def _lesser_differences(before: Optional[User], user: User) -> Iterator[Difference]:
    """No session from before he was allowed less: sshd looks at a key, an address or a group once, at the login."""
    if before is None or not process.of(user.uid):
        return
    if (
        set(before.keys.values()) - set(user.keys.values())
        or before.password_hash not in (None, user.password_hash)
        or user.allow_from not in (None, before.allow_from)
        or user.access not in ("read-write", before.access)
    ):
        yield Difference(f"sessions of {user.username}", "from before", "ended", lambda: process.end(user.uid))


def _jail() -> Jail:
    jail = _known_jail()
    if jail is None:
        raise Failure("this server has no jail", "Run apply-jail first")
    return jail


def _known_jail() -> Optional[Jail]:
    """The jail that sshd has, on trial or not."""
    trial = confirm.trial()
    return trial.jail if trial is not None else state.jail()


def repair() -> list[str]:
    """Put right all that differs from what was last applied, users included."""
    with lock.held():
        lines = difference.apply(jail_differences(_jail()))
        if lines:
            audit.note(notes.note("repaired", differences=len(lines)))
        return lines + [str(found) for found in confirm.trial_differences()]


def check(form: str = "text") -> list[str]:
    """List what is not as it should be; without a jail, what is left of one."""
    with lock.held():
        jail = _known_jail()
        told = difference.told
        if jail is not None:
            found = [*told("jail", jail_differences(jail)), *told("jail", _stray_differences())]
        else:
            hint = "`pulumi destroy` of the stack that had the host"
            left = [difference._replace(remedy=hint) for difference in told("jail", jail_removal_differences())]
            found = [*chroot.link_differences(), *left]
        return [report.report([*confirm.trial_differences(), *found], form)]


def _stray_differences() -> Iterator[Difference]:
    """What no spec can put right."""
    yield from chroot.unknown_differences()
    yield from sshd.unloaded_differences()
    units = [expiry.TIMER, expiry.SERVICE, *confirm.UNITS_OF_OURS, *audit.UNITS_OF_OURS, siem.UNIT, loop.SERVICE]
    yield from services.overriding_differences(units)
    for user in state.users():
        if user.pending:
            hint = "`pulumi up` of the stack that has the host: it asks for him, or removes him"
            yield Difference(
                f"user {user.username}", "the machine's before", "asked for, or pruned", lambda: None, hint
            )


def mount() -> list[str]:
    """For the boot: mount the file systems of users who have them as a quota."""
    with lock.held():
        failures = quota.mount_all()
    if failures:
        raise Failure(f"not mounted: {'; '.join(failures)}", "Nobody can upload there until they are")
    return []


def expire() -> list[str]:
    """For the timer: end the access of everybody whose time is over."""
    lines = expiry.end_sessions()
    try:
        with lock.held(patience=0):
            lines += expiry.close_accounts()
    except lock.Busy:  # the next run does it; until then, whoever gets in is put out again
        pass
    return lines


def tell(given: "argparse.Namespace") -> int:
    """Tell what the log has, as a story."""
    from .timeline import options, run

    try:
        run.run(options.read(given))
    except (Failure, OSError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"jailctl timeline: {error}", file=sys.stderr)
        return 1
    return 0


def relink() -> list[str]:
    """For the unit of the log's socket: link every jail to the new log socket."""
    audit.relink()
    return []


VERBS: dict[str, Callable[..., list[str]]] = {
    "apply-jail": apply_jail,
    "confirm": confirm_jail,
    "rollback": rollback,
    "remove-jail": remove_jail,
    "apply-user": apply_user,
    "remove-user": remove_user,
    "apply-password": apply_password,
    "remove-password": remove_password,
    "release": release,
    "prune": prune,
    "rename-owner": rename_owner,
    "repair": repair,
    "check": check,
    "expire": expire,
    "mount": mount,
    "relink": relink,
}


def _options(words: list[str]) -> dict[str, Any]:
    """What is on the command line: `verb`, and the verb's options. A verb alone is read without argparse, which takes
    a tenth of the time of most of them."""
    if len(words) == 1 and words[0] in VERBS:
        return {"verb": words[0]}
    import argparse

    from .timeline import options as timeline_options

    parser = argparse.ArgumentParser(
        prog="jailctl",
        description="Make this server what the jail's specs say.",
        epilog="All but repair, check, expire, mount, relink, rollback and timeline read their spec, JSON, from stdin.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        options = verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__)
        if name == "check":
            options.add_argument("--format", dest="form", choices=("text", "json"), default="text")
    timeline_options.add(verbs.add_parser("timeline", help=tell.__doc__, description=tell.__doc__))
    return vars(parser.parse_args(words))


def main() -> int:
    """Run one verb; 0 if the server is as it should be, 1 if not, 2 for a wrong call (argparse)."""
    given = _options(sys.argv[1:])
    name = given.pop("verb")
    if os.geteuid() != 0:
        print("jailctl: only root can do this. Run it with sudo.", file=sys.stderr)
        return 1
    os.umask(0o022)
    os.chdir("/")
    if name == "timeline":
        from argparse import Namespace

        return tell(Namespace(**given))
    try:
        if name != "rollback":  # which has all that it needs on the machine's own disk
            state.require_mounted()
        lines, code = VERBS[name](**given), 0
    except report.Drift as drift:
        lines, code = [str(drift)], 1
    except Failure as failure:
        print(f"jailctl {name}: {failure}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"jailctl {name}: {error}. Put that right and run it again.", file=sys.stderr)
        return 1
    try:
        # At the end, at once: whoever asked may be gone by now, and that must not leave the work half done.
        print("\n".join(lines or ["no change"]), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
