"""The same users by a bare Pulumi program: a Command each, which runs the floor's script on the server for one user."""

import json
from pathlib import Path

from pulumi_command.remote import Command, ConnectionArgs, Logging

given = json.loads(Path("accounts.json").read_text())
connection = ConnectionArgs(**given["connection"])
for account in given["accounts"]:
    Command(
        account["name"],
        connection=connection,
        create="sudo -n /usr/local/sbin/bench-floor",
        delete="sudo -n /usr/local/sbin/bench-floor absent",
        stdin=f"present {account['name']} {account['uid']} {account['key']}\n",
        add_previous_output_in_env=False,
        logging=Logging.NONE,
    )
