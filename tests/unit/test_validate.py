"""The pure checks that the Pulumi program and jailctl share."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sftp_jail.hostside import validate
from sftp_jail.hostside.validate import Invalid

from . import keys

PRIVATE_BODY = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtz"
PRIVATE_KEYS = {
    "OpenSSH's": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{PRIVATE_BODY}\n-----END OPENSSH PRIVATE KEY-----\n",
    "one without its first line": PRIVATE_BODY,
    "PEM": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAabcdefghijklmnopqrstuvwxyz\n",
    "PEM without its first line": "MIIEowIBAAKCAQEAabcdefghijklmnopqrstuvwxyz",
    "PuTTY's": "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\nAAAAsecretsecret\n",
}


def refusal(check, value) -> Invalid:
    """What a check says of a value that it must refuse."""
    with pytest.raises(Invalid) as raised:
        check(value)
    assert raised.value.message
    assert raised.value.remedy
    return raised.value


def test_the_module_needs_nothing_but_the_standard_library():
    nodes = list(ast.walk(ast.parse(Path(validate.__file__).read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    # A relative import has no module, or one of a neighbour's name: neither is in the standard library.
    modules = {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in plain | modules} <= sys.stdlib_module_names


# Names


@pytest.mark.parametrize("name", ["jack", "j", "_jack", "jack-2", "jack_o", "a" * 32, "x11"])
def test_a_plain_user_name_is_accepted(name):
    validate.check_username(name)


BAD_NAMES = {
    "two dots": "..",
    "a dot": ".",
    "a slash": "a/b",
    "a star": "*",
    "a token of sshd": "%u",
    "single quotes": "'jack'",
    "double quotes": '"jack"',
    "a semicolon": "jack;id",
    "a bracket": "jack(",
    "a backslash": "ja\\ck",
    "digits alone": "1234",
    "a leading digit": "1jack",
    "an upper-case letter": "Bob",
    "an umlaut": "jürgen",
    "a Cyrillic look-alike": "j\u0430ck",
    "a full-width look-alike": "\uff4aack",
    "33 characters": "a" * 33,
    "a leading dash": "-x",
    "a newline inside": "jack\nroot",
    "a newline at the end": "jack\n",
    "a NUL": "jack\0",
    "white space": "jack ",
    "a dollar": "jack$",
    "nothing": "",
    "a number": 1234,
    "None": None,
    "a list": ["jack"],
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_what_is_no_user_name_is_refused_and_shown_in_ascii(name):
    shown = refusal(validate.check_username, name).shown
    assert shown.isascii()
    assert shown.isprintable()
    assert shown == validate.show(name)


def test_a_look_alike_is_shown_by_its_code_point():
    assert refusal(validate.check_username, "j\u0430ck").shown == r"'j\u0430ck'"


@pytest.mark.parametrize("name", ["root", "daemon", "www-data", "nobody", "_apt", "sshd", "systemd-network", "admin"])
def test_an_account_of_the_system_is_no_user(name):
    assert "account of the system" in refusal(validate.check_username, name).message


def test_a_long_value_is_shown_cut():
    assert len(refusal(validate.check_username, "a" * 100_000).shown) < 100


# Keys


@pytest.mark.parametrize(
    "key",
    [
        keys.ed25519(),
        keys.sk_ed25519(),
        keys.ecdsa("nistp256"),
        keys.ecdsa("nistp384"),
        keys.ecdsa("nistp521"),
        keys.sk_ecdsa(),
        keys.rsa(2048),
        keys.rsa(4096),
    ],
    ids=lambda key: key.split()[0],
)
def test_a_key_is_kept_as_its_type_and_data(key):
    assert validate.normalise_key(key) == key


@pytest.mark.parametrize("arguments", [["ed25519"], ["ecdsa", "-b", "521"], ["rsa", "-b", "2048"]], ids=lambda a: a[0])
def test_a_key_that_ssh_keygen_made_is_accepted(arguments, tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", key, "-t", *arguments], check=True)
    public = key.with_suffix(".pub").read_text()
    assert validate.normalise_key(public) == " ".join(public.split()[:2])


@pytest.mark.case("C 25")
@pytest.mark.parametrize("spelling", ["{} jack@laptop", "{}\r\n", "  {}\n", "{} two words\r\n", "\t{}"])
def test_comment_and_white_space_around_a_key_are_dropped(spelling):
    key = keys.ed25519()
    assert validate.normalise_key(spelling.format(key)) == key
    assert validate.normalise_key(spelling.format(key).replace(" AAAA", "\tAAAA")) == key


@pytest.mark.case("C 18")
@pytest.mark.parametrize("value", PRIVATE_KEYS.values(), ids=PRIVATE_KEYS)
def test_a_private_key_is_refused_and_never_repeated(value):
    fault = refusal(validate.normalise_key, value)
    assert fault.message == "a private key"
    said = str(fault)
    assert not any(word in said for word in value.split() if len(word) > 12)


BAD_KEYS = {
    "RFC 4716 form": ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----", "RFC 4716"),
    "RSA of 1024 bits": (keys.rsa(1024), "1024 bits"),
    "RSA beyond what sshd reads": (keys.rsa(16392), "16392 bits"),
    "DSA": (keys.dsa(), "DSA"),
    "base64 cut by one character": (keys.ed25519()[:-1], "cut or damaged"),
    "base64 cut by a whole group": (keys.ed25519()[:-4], "cut short"),
    "only the type": ("ssh-ed25519", "before the type"),
    "the type twice": (keys.line("ssh-ed25519"), "before the key"),
    "no base64": ("ssh-ed25519 AAAA!", "cut or damaged"),
    "another type inside": (keys.line("ssh-ed25519", bytes(32), inner="ssh-rsa"), "ssh-rsa"),
    "31 bytes": (keys.line("ssh-ed25519", bytes(31)), "32 bytes"),
    "data after the end": (keys.line("ssh-ed25519", bytes(32), b"x"), "left over"),
    "another curve inside": (keys.line("ecdsa-sha2-nistp256", b"nistp384", b"\4" + bytes(96)), "another one"),
    "a short point": (keys.line("ecdsa-sha2-nistp256", b"nistp256", b"\4" + bytes(63)), "65 bytes"),
    "a compressed point": (keys.line("ecdsa-sha2-nistp256", b"nistp256", b"\2" + bytes(64)), "65 bytes"),
    "a security key without application": (keys.line("sk-ssh-ed25519@openssh.com", bytes(32)), "application"),
    "an even modulus": (keys.line("ssh-rsa", b"\3", b"\0" + b"\xff" * 255 + b"\xfe"), "no RSA key"),
    "an exponent of one": (keys.line("ssh-rsa", b"\1", b"\0" + b"\xff" * 256), "no RSA key"),
    "a length beyond the end": ("ssh-ed25519 /////w==", "cut short"),
    "an option before it": (f"no-pty {keys.ed25519()}", "options"),
    "a command before it": (f'command="rm -rf /" {keys.ed25519()}', "options"),
    "cert-authority": (f"cert-authority {keys.ed25519()}", "certificate authority"),
    "cert-authority among options": (f'cert-authority,principals="x" {keys.rsa(2048)}', "certificate authority"),
    "a certificate": ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"),
    "two lines": (f"{keys.ed25519(1)}\n{keys.ed25519(2)}", "more than one line"),
    "two lines by a carriage return": (f"{keys.ed25519(1)}\r{keys.ed25519(2)}", "more than one line"),
    "nothing": ("", "empty"),
    "white space": (" \r\n", "empty"),
    "the data alone": (keys.ed25519().split()[1], "not a public key"),
    "a word": ("laptop", "not a public key"),
    "a number": (1234, "not a public key"),
    "None": (None, "not a public key"),
    "a list": ([keys.ed25519()], "not a public key"),
}


@pytest.mark.parametrize(("value", "reason"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_what_is_no_public_key_is_refused_for_its_own_reason(value, reason):
    assert reason in refusal(validate.normalise_key, value).message


def test_one_key_in_two_base64_spellings_is_one_key():
    key = keys.line("ssh-rsa", b"\3", bytes([0]) + b"\xff" * 256, inner="")
    assert key.endswith("=")  # so the last character carries bits that do not count
    stem = key.rstrip("=")
    padding = "=" * (len(key) - len(stem))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = stem[:-1] + alphabet[alphabet.index(stem[-1]) + 1] + padding
    assert other != key
    assert validate.normalise_key(other) == validate.normalise_key(key)


@pytest.mark.parametrize("label", ["laptop", "2024-06", "jack@laptop.example", "A" * 64])
def test_a_plain_label_is_accepted(label):
    validate.check_key_label(label)


@pytest.mark.parametrize("label", ["", "a b", "-a", ".a", "a\n", "<b>", "a" * 65, "ä", None, 1])
def test_another_label_is_refused(label):
    refusal(validate.check_key_label, label)


# Passwords


@pytest.mark.parametrize("value", keys.STRONG_HASHES.values(), ids=keys.STRONG_HASHES)
def test_a_strong_password_hash_is_accepted(value):
    validate.check_password_hash(value)


@pytest.mark.parametrize("value", keys.WEAK_HASHES.values(), ids=keys.WEAK_HASHES)
def test_any_other_password_is_refused_without_being_repeated(value):
    fault = refusal(validate.check_password_hash, value)
    assert fault.shown == ""
    assert not any(part in str(fault) for part in value.split("$") if len(part) > 4)


@pytest.mark.parametrize("value", [None, 1, ["x"], {"x": "y"}])
def test_a_password_hash_that_is_no_string_is_refused(value):
    assert refusal(validate.check_password_hash, value).shown == ""


# Options


@pytest.mark.parametrize("level", ["INFO", "VERBOSE"])
def test_a_log_level_that_logs_every_operation_is_accepted(level):
    validate.check_log_level(level)


@pytest.mark.parametrize("level", ["QUIET", "FATAL", "ERROR", "DEBUG", "DEBUG3", "info", "", "LOUD", None, 1, ["INFO"]])
def test_any_other_log_level_is_refused(level):
    assert refusal(validate.check_log_level, level).shown == validate.show(level)


@pytest.mark.parametrize("umask", ["022", "027", "077", "002", "000"])
def test_a_umask_of_three_octal_digits_is_accepted(umask):
    validate.check_umask(umask)


@pytest.mark.parametrize("umask", ["999", "22", "0022", "0o22", "-22", " 022", "022\n", "٠٢٢", "", "18", None, True])
def test_any_other_umask_is_refused(umask):
    assert "three octal digits" in refusal(validate.check_umask, umask).remedy


def test_a_umask_written_as_a_number_is_refused_with_the_word_to_quote_it():
    assert "quotes" in refusal(validate.check_umask, 0o22).remedy


@pytest.mark.parametrize("umask", ["777", "722", "400"])
def test_a_umask_that_shuts_out_the_owner_is_refused(umask):
    assert "owner" in refusal(validate.check_umask, umask).message


# Quotas


@pytest.mark.parametrize(
    ("quota", "size"),
    [("16MiB", 2**24), ("16384KiB", 2**24), ("5GiB", 5 * 2**30), ("1TiB", 2**40), ("1024TiB", 2**50)],
)
def test_a_quota_in_binary_units_is_accepted_and_counts_in_bytes(quota, size):
    validate.check_quota(quota)
    assert validate.quota_bytes(quota) == size


@pytest.mark.parametrize(
    "quota",
    [
        "5 GiB",
        "5gib",
        "5.5GiB",
        "GiB",
        "",
        "05GiB",
        "1e3GiB",
        "\uff15GiB",
        "5GiB\n",
        "NaN",
        "NaNGiB",
        "inf",
        None,
        True,
        [5],
    ],
)
def test_what_is_no_size_is_refused_as_a_quota(quota):
    assert "e.g. '5GiB'" in refusal(validate.check_quota, quota).remedy


@pytest.mark.parametrize("quota", ["5GB", "5gb", "5G", "5g", "5 GB"])
def test_a_quota_in_other_units_is_refused_with_both_of_its_readings(quota):
    refused = refusal(validate.check_quota, quota)
    assert "5000000000 or 5368709120 bytes" in refused.message
    assert "'5GiB' for 5368709120 bytes" in refused.remedy
    assert "'4768MiB' for the other" in refused.remedy


@pytest.mark.parametrize("quota", [5, 5.5, -1, 0, float("nan"), float("inf")])
def test_a_bare_number_is_refused_as_a_quota(quota):
    assert "a bare number" in refusal(validate.check_quota, quota).message


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        ("0GiB", "no room at all"),
        ("0KiB", "no room at all"),
        ("-5GiB", "less than nothing"),
        ("1MiB", "not a size that can be enforced"),
        ("1025TiB", "not a size that can be enforced"),
        ("9999999999999999TiB", "not a size that can be enforced"),
    ],
)
def test_a_quota_that_cannot_be_one_is_refused_by_its_reason(quota, message):
    assert refusal(validate.check_quota, quota).message == message


@pytest.mark.parametrize("quotas", ["xfs", "BTRFS", "", None, ["btrfs"]])
def test_what_enforces_quotas_is_btrfs_or_loop(quotas):
    assert "'btrfs' where /sftp is a btrfs, or 'loop'" in refusal(validate.check_quotas, quotas).remedy
