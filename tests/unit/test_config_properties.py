"""Whatever a stack file says, it is read, or refused with our own error."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftp_jail import ConfigError, config

from . import keys

WORDS = (
    *config.KEYS,
    *config.USER_KEYS,
    *config.SERVER_KEYS,
    *config.AWS_KEYS,
    *("keys", "passwordHash", "kind", "demoKeys", "release", "stack", "proxy", "protocol", "format", "ca", "zoneId"),
)
"""Keys that mean something somewhere."""

VALUES = (
    *config.HOST_KINDS,
    *("jack", "root", "..", "", "VERBOSE", "022", "true", "false", "2199-12-07", "2199-12-07T18:00:00Z", "read-only"),
    *("10.0.0.0/8", "::/0", "5GiB", "btrfs", "loop", "auto", "tls", "siem.example.org", "trixie", "staging", "archive"),
    *("10.0.0.1", "i-0", "vol-0", "t4g.small", "newest", "debian-13", "arm64", keys.ed25519(), keys.YESCRYPT),
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(VALUES)
names = st.sampled_from(WORDS) | st.sampled_from(VALUES) | st.text(max_size=40)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6), max_leaves=25
)


def host(kind: str, *keywords: str) -> st.SearchStrategy[dict[str, Any]]:
    """A host of that kind, its keywords with any values."""
    return st.fixed_dictionaries({"kind": st.just(kind)}, optional={keyword: values for keyword in keywords})


hosts = st.one_of(
    host("local", "demoKeys", "release"),
    host("existing", *config.SERVER_KEYS, "proxy"),
    host("aws", *config.AWS_KEYS),
    host("stack", "stack"),
    values,
)
user = st.fixed_dictionaries({}, optional={keyword: values for keyword in (*config.USER_KEYS, "keys", "passwordHash")})
users = st.dictionaries(names, user | values, max_size=4) | values
siem = (
    st.fixed_dictionaries({}, optional={key: values for key in ("host", "port", "protocol", "format", "ca")}) | values
)
stacks = st.fixed_dictionaries(
    {},
    optional={**dict.fromkeys(config.KEYS, values), "host": hosts, "users": users, "siem": siem},
) | st.dictionaries(names, values, max_size=6)


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(stack=stacks, secret=st.booleans())
def test_any_configuration_is_read_or_refused_by_our_own_error(stack_config, stack, secret):
    stack_config(stack, secret)
    try:
        config.load()
    except ConfigError as error:
        assert error.faults
        assert all(fault.message and fault.remedy for fault in error.faults)
        str(error).encode()
