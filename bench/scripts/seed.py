"""Run on a server with a jail, by its python3 -IS: so many users more, as apply-user would have made them, which takes
an hour for 5 000. `jailctl check` tells whether they are."""

import os
import sys

sys.path.insert(0, os.path.realpath("/usr/local/lib/sftp-jail/current"))
from jailctl import accounts, audit, chroot, difference, files, keys, services, state

# What a power cut might take of a disposable machine is no loss.
os.fsync = lambda _: None

count, owner, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
first = max(state.FIRST_ID, int(files.read(state.LAST_ID) or 0) + 1)
users = [state.User(f"seed{number:04}", first + number, owner, {"laptop": key}) for number in range(count)]
with open("/etc/passwd", "a") as passwd, open("/etc/shadow", "a") as shadow:
    for user in users:
        passwd.write(f"{user.username}:x:{user.uid}:{accounts.gid()}:sftp-jail:{accounts.HOME}:{accounts.SHELL}\n")
        shadow.write(f"{user.username}:*:20000:0::7:::\n")
names = dict(audit._names())
for user in users:
    names.update({str(user.uid): user.username, user.username: user.username})
    difference.apply(chroot.jail_differences(user))
    difference.apply(chroot.user_differences(user))
    audit._link(audit._link_of(user))
    difference.apply(keys.user_differences(user))
    state.write_user(user)
files.write(state.LAST_ID, f"{first + count - 1}\n")
audit._write_names(names)
audit._load_names()
services.clear(audit.NAMES_PENDING)
