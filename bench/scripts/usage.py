"""Run on a server: runs the command in its arguments, as it is, and prints what it took as JSON: seconds by the clock,
seconds of CPU with all that it started, and the most memory that one of these processes had, in MB."""

import json
import resource
import subprocess
import sys
import time

started = time.monotonic()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
out, err = process.communicate()
seconds = time.monotonic() - started
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
figures = {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1024}
print(json.dumps({"code": process.returncode, "out": out[-500:], "err": err[-500:], **figures}))
