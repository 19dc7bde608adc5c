"""A stand-in for AWS EC2: moto's EC2 on loopback, behind which real disposable Debians run.

    PYTHONPATH=toolchain python -m local_ec2 --directory DIRECTORY

It needs root. moto keeps the state and speaks the API; after every request that may change something, `Computer`
compares that state with the machines that run, and mends the difference before the request is answered. Its
machines are those of sftp_jail/hosts/machine.py: they reach this computer and nothing else.

What differs from EC2:

- every image boots this computer's own architecture, and a kernel is not part of it;
- a VM has one address, its private one, which is its public one too; an Elastic IP comes on top. All of them are
  of 10.213.0.0/16, whatever the subnet says, and an asked-for private address is ignored;
- there is no metadata service, no DNS, no way to anything but this computer, and none from VM to VM unless this
  computer forwards packets;
- snapshots, prefix lists and IPv6 hold no data and open nothing; what would need them is refused where it matters;
- the root volume is not a file: its size is not enforced, and it cannot be attached elsewhere.
"""
