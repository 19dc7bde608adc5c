"""Part of a stand-in for EC2: the root file system that its images boot, a Debian as on AWS's Debian images.

As there: cloud-init, sshd with Debian's own configuration, sudo; no rsyslog, no user, no host key. Unlike there, it
carries an apt repository with `CARRIED`, because its machines reach no mirror, and does without a boot loader,
a kernel and udev.
"""

from .disposable import machine

PACKAGES = (
    *("systemd", "systemd-sysv", "libpam-systemd", "dbus", "cloud-init", "openssh-server", "sudo", "python3"),
    *("iproute2", "netbase", "procps", "e2fsprogs", "ca-certificates"),
)

CARRIED = ("rsyslog", "btrfs-progs")
"""What user data may have installed; what these need comes with them."""

DEVICES = "/run/local-ec2/devices"
"""Where a machine finds the device nodes of its volumes, and their names, as they are to be below /dev."""

SHOW_DEVICES = "/usr/lib/local-ec2/show-devices"
"""The program in a machine that makes /dev agree with `DEVICES`."""

CARRY = f"""\
set -eu
apt="$1/usr/share/local-ec2/apt"
mkdir -p "$apt/partial"
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq --yes --download-only -o APT::Install-Recommends=true \\
    -o Dir::Cache::archives="$apt" install {" ".join(CARRIED)}
cd "$apt"
rm -rf partial lock
for deb in *.deb; do
    dpkg-deb --field "$deb"
    printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' \\
        "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d ' ' -f 1)"
done > Packages
"""

RECIPE = f"""\
set -eu
rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/sources.list.d/*
: > "$1/etc/machine-id"
echo 'deb [trusted=yes lang=none] file:/usr/share/local-ec2/apt ./' > "$1/etc/apt/sources.list"
cat > "$1/etc/cloud/cloud.cfg.d/90_local_ec2.cfg" << 'END'
# This is a stand-in for EC2. One data source, so that cloud-init probes no address for others; the address is set
# from outside; apt's one source, a folder of this image, stays; and the locale is one that need not be generated.
datasource_list: [NoCloud]
network: {{config: disabled}}
apt: {{preserve_sources_list: true}}
locale: C.UTF-8
END
mkdir -p "$1/usr/lib/local-ec2"
cat > "$1{SHOW_DEVICES}" << 'END'
#!/bin/sh
# This is a stand-in for udev: it names the volumes below /dev, where a container has none.
set -eu
for path in /dev/nvme*n1 /dev/disk/by-id/nvme-*; do
    if [ -e "$path" ] || [ -L "$path" ]; then
        [ -L "{DEVICES}/${{path#/dev/}}" ] || [ -e "{DEVICES}/${{path#/dev/}}" ] || rm "$path"
    fi
done
cp -a --remove-destination {DEVICES}/. /dev/
END
chmod 755 "$1{SHOW_DEVICES}"
cat > "$1/etc/systemd/system/local-ec2-disks.service" << 'END'
[Unit]
Description=Stand-in for udev, and for what systemd does with fstab except in a container
DefaultDependencies=no
After=systemd-remount-fs.service local-fs-pre.target
Before=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={SHOW_DEVICES}
ExecStart=mount --all

[Install]
RequiredBy=local-fs.target
END
chroot "$1" systemctl enable --quiet local-ec2-disks.service
# Nobody sits at its console, and what needs the Internet cannot have it.
chroot "$1" systemctl mask --quiet console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer
"""


def image(release: str) -> machine.Image:
    """The image of a Debian release."""
    return machine.Image(release, PACKAGES, RECIPE, CARRY)
