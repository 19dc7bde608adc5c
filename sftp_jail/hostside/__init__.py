"""jailctl, the program on the server that makes it what the jail's specs say, and keeps saying whether it is.

Standard library only, Python 3.9 or newer: it must run on a server where nothing may be installed. Each area is
a module that answers one question, what differs between the spec and this server (`difference.Difference`);
`__main__` mends, lists or, with an empty spec, removes.

What of the library is large and few verbs need is imported where it is used, and a pattern is compiled when it is
first used: that took half of the time of one more user.
"""
