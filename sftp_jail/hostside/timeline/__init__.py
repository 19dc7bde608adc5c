"""The joined story that /var/log/sftp.log tells: who logged in with which key, and what he did, to the end.

    rotations   the log and its rotations, as lines, in the order of what is in them
    parse       a line, and what its message says
    join        lines to events: a request and its answer, a session and its login
    text, sheet, jsonl, page   one format each: `write(items, file)`
    options     what is asked for
    run         all of it together

What is believed: USER, the kernel's word for the uid that sent a line, and of that user's own words only what
concerns himself. A key's fingerprint, a login and a grant come from lines of root alone. Where the words of a line
leave open what happened, the event says so (`ambiguous`, `cut`, `certain`), and shows the line.

Nothing is imported here, so that jailctl's other verbs do not pay for it.
"""
