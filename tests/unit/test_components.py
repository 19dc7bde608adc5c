"""What the components ask of the engine."""

import json
import runpy
import stat
import subprocess
from pathlib import Path

import pulumi
import pytest
from pulumi_command.remote import ConnectionArgs

from sftp_jail import (
    ConfigError,
    Host,
    JailUser,
    JailUserArgs,
    LocalHost,
    LocalHostArgs,
    SftpJail,
    SftpJailArgs,
    SiemArgs,
    UserArgs,
)
from sftp_jail.hosts import local
from sftp_jail.hosts.aws import AwsHost
from sftp_jail.hosts.existing import ExistingHost
from sftp_jail.hosts.stack import StackHost
from sftp_jail.hostside.install import unpacked
from sftp_jail.jail import _must_come_again

from . import keys
from .conftest import Engine, is_secret, revealed

ROOT = Path(__file__).parents[2]
HOST_KEY = keys.ed25519(99)
JACK = UserArgs(keys={"laptop": keys.ed25519(1)})
JILL = UserArgs(keys={"desk": keys.ed25519(2)})
JOAN = UserArgs(password_hash=keys.YESCRYPT)


OWNER = "organization/sftp-jail/local"


class Server(Host):
    """A host that is simply there."""

    def __init__(self, user="root", port=22, address="192.0.2.1", deleted_with=None):
        super().__init__("test:index:Server", "server", None, None)
        self.address = pulumi.Output.from_input(address)
        self.port = pulumi.Output.from_input(port)
        self.host_key = pulumi.Output.from_input(HOST_KEY)
        self.connection = ConnectionArgs(host=self.address, port=self.port, user=user, host_key=HOST_KEY)
        self.deleted_with = deleted_with
        self.sftp_options = []


def jail_of(users, **args):
    """The resources of a jail with these users, on a server of its own."""
    engine = Engine()
    engine.run(lambda: SftpJail("jail", SftpJailArgs(host=Server(), users=users, **args)).address)
    return engine


def stdin_of(resource):
    text = revealed(resource.inputs["stdin"])
    data = json.loads(text)
    assert text == json.dumps(data, sort_keys=True), "a preview must not see a difference in order or white space"
    return data


# Commands


def test_a_jail_is_jailctl_a_policy_and_a_command_a_user():
    engine = jail_of({"jack": JACK, "jill": JILL})
    assert set(engine.commands) == {
        *("jail-install", "jail-policy", "jail-confirm"),
        *("jail-jack", "jail-jill", "jail-prune", "jail-guard"),
    }
    assert engine.registered["JailUser", "jail-jack"].type == "sftp-jail:index:JailUser"
    assert engine.registered["JailUser", "jail-jack"].parent == "jail"
    assert engine.registered["SftpJail", "jail"].type == "sftp-jail:index:SftpJail"


def test_the_commands_are_fixed_and_short():
    engine = jail_of({"jack": JACK, "joan": JOAN})
    bootstrap = "python3 -I -c 'import json, sys; files = json.load(sys.stdin); exec(files[\"install.py\"])'"
    lines = {
        name: (command.inputs.get("create"), command.inputs.get("delete")) for name, command in engine.commands.items()
    }
    assert lines == {
        "jail-install": (f"{bootstrap} install", f"{bootstrap} uninstall"),
        "jail-policy": ("/usr/local/sbin/jailctl apply-jail", "/usr/local/sbin/jailctl remove-jail"),
        "jail-confirm": ("/usr/local/sbin/jailctl confirm", None),
        "jail-jack": ("/usr/local/sbin/jailctl apply-user > /dev/null", "/usr/local/sbin/jailctl remove-user"),
        "jail-joan": ("/usr/local/sbin/jailctl apply-user > /dev/null", "/usr/local/sbin/jailctl remove-user"),
        "jail-joan.password": ("/usr/local/sbin/jailctl apply-password", "/usr/local/sbin/jailctl remove-password"),
        "jail-prune": ("/usr/local/sbin/jailctl prune", None),
        "jail-guard": (None, "/usr/local/sbin/jailctl release"),
    }


@pytest.mark.parametrize("given", [str, pulumi.Output.from_input], ids=["plain", "output"])
def test_an_administrator_who_is_not_root_uses_sudo_without_a_prompt(given, engine):
    users = {"jack": JACK}
    engine.run(lambda: SftpJail("jail", SftpJailArgs(host=Server(user=given("admin")), users=users)).address)
    for command in engine.commands.values():
        assert command.inputs.get("create", "sudo -n ").startswith("sudo -n ")
        assert command.inputs.get("delete", "sudo -n ").startswith("sudo -n ")


def test_every_command_is_quiet_pins_the_host_key_and_changes_by_stdin_alone():
    for command in jail_of({"jack": JACK, "joan": JOAN}).commands.values():
        assert {*command.inputs, "create", "delete"} == {
            "addPreviousOutputInEnv",
            "connection",
            "create",
            "delete",
            "logging",
            "stdin",
        }
        assert command.inputs["addPreviousOutputInEnv"] is False
        assert command.inputs["logging"] == "none"
        assert revealed(command.inputs["connection"])["hostKey"] == HOST_KEY


def test_jailctl_is_sent_whole():
    packed = stdin_of(jail_of({}).command("jail-install"))
    assert packed["install.py"].startswith('"""Installs jailctl')
    files = unpacked(packed)
    hostside = ROOT / "sftp_jail" / "hostside"
    paths = [path for path in hostside.rglob("*") if path.suffix in (".py", ".html")]
    assert files == {str(path.relative_to(hostside)): path.read_text() for path in paths}
    assert {"install.py", "timeline/parse.py", "timeline/page.html"} <= set(files)


def test_the_policy_says_who_else_is_sent_the_log_and_nothing_where_nobody_is():
    assert "siem" not in stdin_of(jail_of({}).command("jail-policy"))
    spec = stdin_of(
        jail_of({}, siem=SiemArgs(host="siem.example.org", protocol="tcp", port=514)).command("jail-policy")
    )
    assert spec["siem"] == {"format": "rfc5424", "host": "siem.example.org", "port": 514, "protocol": "tcp"}


def test_the_policy_has_its_defaults_and_the_version_of_jailctl():
    spec = stdin_of(jail_of({}).command("jail-policy"))
    assert (spec["logLevel"], spec["umask"]) == ("VERBOSE", "022")
    assert len(spec["jailctl"]) == 12


def test_a_new_jailctl_applies_the_policy_again_and_no_user(monkeypatch, tmp_path):
    before = jail_of({"jack": JACK}).commands
    (tmp_path / "install.py").write_text("print('new')")
    monkeypatch.setattr("sftp_jail.jail.HOSTSIDE", tmp_path)
    after = jail_of({"jack": JACK}).commands
    assert {name for name in before if before[name] != after[name]} == {
        "jail-install",
        "jail-policy",
        "jail-confirm",
    }


def test_a_user_is_sent_with_keys_by_label_and_without_their_comments():
    user = UserArgs(
        keys={"laptop": f"  {keys.ed25519(1)} jack@laptop\r\n", "desk": pulumi.Output.from_input(keys.rsa(2048))}
    )
    spec = stdin_of(jail_of({"jack": user}).command("jail-jack"))
    assert spec == {"user": f"{OWNER}/jack", "key laptop": keys.ed25519(1), "key desk": keys.rsa(2048)}


def test_users_come_after_the_confirmed_policy_and_the_policy_after_jailctl():
    engine = jail_of({"jack": JACK, "joan": JOAN})
    assert engine.command("jail-policy").depends_on == {"jail-install"}
    assert engine.command("jail-confirm").depends_on == {"jail-policy"}
    assert engine.command("jail-jack").depends_on == {"jail-confirm"}
    assert engine.command("jail-joan").depends_on == {"jail-confirm"}
    assert engine.command("jail-joan.password").depends_on == {"jail-joan"}


def test_every_command_names_its_machine_and_goes_with_it(engine):
    def program():
        host = Server(deleted_with=pulumi.CustomResource("test:index:Machine", "machine"))
        return SftpJail("jail", SftpJailArgs(host=host, users={"jack": JACK, "joan": JOAN})).address

    engine.run(program)
    # The guard has something to ask before the machine goes, and nothing to do on the next one.
    commands = engine.commands
    guard = commands.pop("jail-guard")
    assert (guard.deleted_with, guard.inputs.get("create")) == ("", None)
    assert {command.deleted_with for command in commands.values()} == {"machine"}
    assert all(command.inputs["create"].endswith(" # on machine-id") for command in commands.values())


def test_a_host_that_lives_on_has_everything_removed_from_it():
    commands = jail_of({"jack": JACK}).commands.values()
    assert {command.deleted_with for command in commands} == {""}
    assert not any("#" in command.inputs.get("create", "") for command in commands)


# Passwords


def test_a_password_hash_is_a_secret_and_in_no_other_command():
    engine = jail_of({"joan": JOAN})
    password = engine.command("jail-joan.password")
    assert is_secret(password.inputs["stdin"])
    assert stdin_of(password) == {"username": "joan", "passwordHash": keys.YESCRYPT}
    public = {key: value for key, value in engine.command("jail-joan").inputs.items() if key != "connection"}
    assert not is_secret(public["stdin"])
    assert keys.YESCRYPT not in str(public)
    assert keys.YESCRYPT not in str(engine.outputs)


def test_a_password_hash_is_not_in_the_args_representation():
    assert keys.YESCRYPT not in repr(JOAN)


def test_the_user_named_like_a_password_command_is_another_resource():
    engine = jail_of({"joan": JOAN, "joan-password": JACK})
    assert {"jail-joan.password", "jail-joan-password"} <= set(engine.commands)


# One user's change is no other's


def changed(before, after):
    """Names of the resources that differ."""
    everything = before.registered.keys() | after.registered.keys()
    return {name for _, name in everything if before.registered.get((_, name)) != after.registered.get((_, name))}


def test_adding_a_user_changes_no_other_resource():
    before = jail_of({"jack": JACK})
    after = jail_of({"joan": JOAN, "jack": JACK, "jill": JILL})
    new = {"jail-jill", "jail-joan", "jail-joan.password"}
    # Of guard and prune nothing but what they come after, which no preview shows.
    assert after.command("jail-prune").depends_on == {*new, "jail-jack", "jail-policy", "jail-confirm"}
    assert after.command("jail-guard").depends_on == {*new, "jail-jack", "jail-policy", "jail-confirm", "jail-prune"}
    for name in ("jail-guard", "jail-prune"):
        comes_after = before.command(name).depends_on
        after.registered["Command", name] = after.command(name)._replace(depends_on=comes_after)
    assert changed(before, after) == new
    assert before.outputs["jail"] == after.outputs["jail"]


def test_rotating_a_key_changes_that_users_command_alone():
    before = jail_of({"jack": UserArgs(keys={"a": keys.ed25519(1), "b": keys.ed25519(2)}), "joan": JOAN})
    after = jail_of({"jack": UserArgs(keys={"a": keys.ed25519(1), "b": keys.ed25519(3)}), "joan": JOAN})
    assert changed(before, after) == {"jail-jack"}
    old, new = stdin_of(before.command("jail-jack")), stdin_of(after.command("jail-jack"))
    assert old["key a"] == new["key a"]


def test_adding_a_password_leaves_the_account_as_it_is():
    before = jail_of({"jack": JACK})
    after = jail_of({"jack": UserArgs(keys=JACK.keys, password_hash=keys.YESCRYPT)})
    for name in ("jail-guard", "jail-prune"):
        del before.registered["Command", name], after.registered["Command", name]
    assert changed(before, after) == {"jail-jack.password"}


@pytest.mark.parametrize("option", [{"umask": "027"}, {"log_level": "INFO"}, {"hardening": True}], ids=str)
def test_an_option_changes_the_policy_alone_and_has_it_confirmed_again(option):
    after = jail_of({"jack": JACK}, **option)
    assert changed(jail_of({"jack": JACK}), after) == {"jail-policy", "jail-confirm"}
    assert after.command("jail-policy").inputs["stdin"] == after.command("jail-confirm").inputs["stdin"]


def test_a_host_is_hardened_by_default_where_it_is_ours(monkeypatch):
    assert stdin_of(jail_of({}).command("jail-policy"))["hardening"] is False
    monkeypatch.setattr(Server, "ours", True)
    assert stdin_of(jail_of({}).command("jail-policy"))["hardening"] is True
    assert stdin_of(jail_of({}, hardening=False).command("jail-policy"))["hardening"] is False
    assert (AwsHost.ours, LocalHost.ours, ExistingHost.ours, StackHost.ours) == (True, True, False, False)


def test_confirm_is_run_again_once_and_only_when_it_asks_for_it():
    said = "jailctl confirm: The jail was not as confirmed last, and has been applied again. Run confirm again."

    def again(*errors):
        return _must_come_again(pulumi.ErrorHookArgs("", "", "jail-confirm", "", errors=list(errors)))

    assert again(f"Process exited with status 1: {said}")
    assert not again(said, said)
    assert not again("dial tcp: connection refused")


def test_a_quota_changes_its_user_alone_and_what_enforces_it_the_policy_alone():
    limited = UserArgs(keys=JACK.keys, quota="5GiB")
    before = jail_of({"jack": JACK}, quotas="loop")
    after = jail_of({"jack": limited}, quotas="loop")
    assert changed(before, after) == {"jail-jack"}
    assert stdin_of(after.command("jail-jack"))["quota"] == "5GiB"
    assert changed(after, jail_of({"jack": limited}, quotas="btrfs")) == {"jail-policy", "jail-confirm"}
    assert "quotas" not in stdin_of(jail_of({"jack": JACK}).command("jail-policy"))


# Outputs


def outputs_of(host_args, users):
    def program():
        jail = SftpJail("jail", SftpJailArgs(host=Server(**host_args), users=users))
        return pulumi.Output.all(jail.address, jail.port, jail.known_hosts, jail.users)

    return Engine().run(program)


def test_the_outputs_are_what_a_client_needs():
    address, port, known_hosts, users = outputs_of({}, {"jack": JACK})
    assert (address, port) == ("192.0.2.1", 22)
    assert known_hosts == f"192.0.2.1 {HOST_KEY}"
    assert users == {"jack": {"sftp": "sftp jack@192.0.2.1"}}


def test_another_port_is_in_the_known_hosts_line_and_the_command():
    # A component host's numbers arrive as floats.
    _, _, known_hosts, users = outputs_of({"port": 2222.0}, {"jack": JACK})
    assert known_hosts == f"[192.0.2.1]:2222 {HOST_KEY}"
    assert users["jack"]["sftp"] == "sftp -P 2222 jack@192.0.2.1"


def test_an_identity_file_is_named_and_quoted():
    _, _, _, users = outputs_of({}, {"jack": UserArgs(keys=JACK.keys, identity_file="my keys/jack")})
    assert users["jack"]["sftp"] == "sftp -i 'my keys/jack' jack@192.0.2.1"


def test_a_jail_without_users_has_none_in_its_outputs():
    assert outputs_of({}, {})[3] == {}


# Programs that use the components directly are checked as well


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ({"users": {"Bob": JACK}}, "jail.users.Bob"),
        ({"users": {"jack": UserArgs()}}, "jail.users.jack"),
        ({"users": {"jack": UserArgs(keys={"a": "x"})}}, "jail.users.jack.keys.a"),
        ({"users": {"jack": UserArgs(password_hash=keys.WEAK_HASHES["DES"])}}, "jail.users.jack.passwordHash"),
        ({"users": {"jack": JACK, "jill": JACK}}, "jail.users.jill.keys.laptop"),
        ({"log_level": "DEBUG"}, "jail.logLevel"),
        ({"umask": "999"}, "jail.umask"),
        ({"siem": SiemArgs(host="a b")}, "jail.siem.host"),
        ({"quotas": "xfs"}, "jail.quotas"),
        ({"users": {"jack": UserArgs(keys=JACK.keys, quota="5GB")}, "quotas": "loop"}, "jail.users.jack.quota"),
        ({"users": {"jack": UserArgs(keys=JACK.keys, quota="5GiB")}}, "jail.users.jack.quota"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_jail_with_faults_is_refused_before_it_is_registered(args, path, engine):
    with pytest.raises(ConfigError) as raised:
        engine.run(lambda: SftpJail("jail", SftpJailArgs(host=Server(), **args)))
    assert [fault.path for fault in raised.value.faults] == [path]
    assert set(engine.registered) == {("Server", "server")}


def test_a_lone_user_with_faults_is_refused_before_it_is_registered(engine):
    def program():
        args = JailUserArgs(host=Server(), username="Bob", user=UserArgs(keys={"a": "x"}))
        return JailUser("bob", args).sftp

    with pytest.raises(ConfigError) as raised:
        engine.run(program)
    assert [fault.path for fault in raised.value.faults] == ["bob.username", "bob.user.keys.a"]
    assert set(engine.registered) == {("Server", "server")}


@pytest.mark.parametrize(
    ("make_args", "path"),
    [
        (lambda: {"users": {"jack": UserArgs(keys={"a": pulumi.Output.from_input("x")})}}, "jail-jack.user.keys.a"),
        (lambda: {"users": {"jack": UserArgs(password_hash=pulumi.Output.secret("hunter2!"))}}, "user.passwordHash"),
        (lambda: {"umask": pulumi.Output.from_input("999")}, "jail.umask"),
        (lambda: {"log_level": pulumi.Output.from_input("LOUD")}, "jail.logLevel"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_output_with_a_fault_is_refused_when_it_resolves(make_args, path, engine):
    with pytest.raises(ConfigError, match=path) as raised:
        engine.run(lambda: SftpJail("jail", SftpJailArgs(host=Server(), **make_args())).address)
    assert "hunter2!" not in str(raised.value)


# The local host


def local_host(**args):
    engine = Engine()

    def program():
        host = LocalHost("host", LocalHostArgs(**args))
        return pulumi.Output.all(host.address, host.port, host.host_key)

    return engine, engine.run(program)


def test_a_local_host_is_one_command_that_starts_and_stops_a_machine():
    engine, (address, port, host_key) = local_host()
    machine = engine.command("host")
    assert machine.type == "command:local:Command"
    assert machine.inputs["create"].endswith("sftp_jail/hosts/machine.py start")
    assert machine.inputs["delete"].endswith("sftp_jail/hosts/machine.py stop")
    # The engine skips what `deleted_with` is to skip only where the new machine comes first.
    assert not machine.delete_before_replace
    assert (address, port) == ("10.213.0.2", 22)
    spec = stdin_of(machine)
    public = {name: Path(f".local/local/keys/{name}.pub").read_text() for name in ("admin", "host.key")}
    assert spec == {
        "adminKey": " ".join(public["admin"].split()[:2]),
        "directory": machine.inputs["triggers"][0],
        "hostKeyFile": ".local/local/keys/host.key",
        "name": "local",
        "release": "trixie",
    }
    assert host_key == " ".join(public["host.key"].split()[:2])


def test_a_local_host_has_no_absolute_path_in_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    engine, _ = local_host(directory=str(tmp_path))
    assert engine.command("host").inputs["create"] == "python3 sftp_jail/hosts/machine.py start"


def test_the_machine_has_a_fixed_name_for_people():
    for release in ("bookworm", "trixie"):
        engine, _ = local_host(release=release)
        assert Path(".local/local/machine").readlink().name == Path(stdin_of(engine.command("host"))["directory"]).name


def test_a_second_run_finds_the_same_machine():
    first, second = local_host(), local_host()
    assert changed(first[0], second[0]) == set()


@pytest.mark.parametrize("change", ["release", "reboot", "host.key", "admin"])
def test_another_release_key_or_boot_is_another_machine(change, monkeypatch, tmp_path):
    before, _ = local_host()
    args = {"release": "bookworm"} if change == "release" else {}
    Path(f".local/local/keys/{change}").unlink(missing_ok=True)
    (tmp_path / "boot_id").write_text(f"{change}\n" if change == "reboot" else local.BOOT_ID.read_text())
    monkeypatch.setattr(local, "BOOT_ID", tmp_path / "boot_id")
    after, _ = local_host(**args)
    assert before.command("host").inputs["triggers"] != after.command("host").inputs["triggers"]
    assert stdin_of(before.command("host"))["directory"] != stdin_of(after.command("host"))["directory"]


def test_its_private_keys_are_for_their_owner_alone():
    local_host()
    assert stat.S_IMODE(Path(".local/local/keys").stat().st_mode) == 0o700
    for name in ("admin", "host.key"):
        assert stat.S_IMODE(Path(f".local/local/keys/{name}").stat().st_mode) == 0o600


def test_the_administrators_key_is_secret_wherever_it_goes(engine):
    engine.run(lambda: SftpJail("jail", SftpJailArgs(host=LocalHost("host", LocalHostArgs()))).address)
    private = Path(".local/local/keys/admin").read_text()
    for command in ("jail-install", "jail-policy"):
        connection = engine.command(command).inputs["connection"]
        assert is_secret(connection)
        assert revealed(connection)["privateKey"] == private
    assert private not in str(engine.command("host"))
    assert private not in str(engine.outputs)


def test_users_of_a_local_host_end_with_its_machine(engine):
    host = LocalHostArgs()
    engine.run(lambda: SftpJail("jail", SftpJailArgs(host=LocalHost("host", host), users={"jack": JACK})).address)
    assert engine.command("jail-jack").deleted_with == "host"


def test_a_release_that_is_none_is_refused(engine):
    with pytest.raises(ConfigError, match="bullseye, bookworm or trixie"):
        engine.run(lambda: LocalHost("host", LocalHostArgs(release="sid")).address)
    assert engine.registered == {}


def test_a_key_half_made_by_a_run_that_was_killed_is_made_again():
    directory = Path(".local/local/keys")
    (directory / ".partial-x").mkdir(parents=True)
    (directory / "jack.pub").write_text("half")
    user = local.demo_user("jack", ".local/local")
    derived = subprocess.run(["ssh-keygen", "-y", "-f", directory / "jack"], capture_output=True, text=True, check=True)
    assert user.keys == {"demo": " ".join(derived.stdout.split()[:2])}
    assert user.keys == local.demo_user("jack", ".local/local").keys


# The program


def run_program(engine):
    def program():
        jail = runpy.run_path(str(ROOT / "__main__.py"))["jail"]
        return jail.users

    return engine.run(program)


def test_the_program_brings_up_host_jail_and_users(engine, stack_config):
    stack_config({"host": {"kind": "local", "demoKeys": True}, "users": {"jack": {}, "jill": {}}})
    users = run_program(engine)
    assert set(engine.commands) == {
        *("host", "jail-install", "jail-policy", "jail-confirm"),
        *("jail-jack", "jail-jill", "jail-prune", "jail-guard"),
    }
    assert users["jack"]["sftp"] == (
        "sftp -i .local/local/keys/jack"
        " -o UserKnownHostsFile=.local/local/known_hosts -o HostKeyAlias=local jack@10.213.0.2"
    )
    host_key = " ".join(Path(".local/local/keys/host.key.pub").read_text().split()[:2])
    assert Path(".local/local/known_hosts").read_text() == f"local {host_key}\n"


def test_the_program_registers_nothing_of_a_stack_with_faults(engine, stack_config, project_root):
    stack_config({"users": {"Bob": {}, "jack": {"keys": {"a": "x"}}}, "umask": "999", "logLevl": "INFO"})
    with pytest.raises(ConfigError):
        run_program(engine)
    assert engine.registered == {}
    assert list(project_root.iterdir()) == []
