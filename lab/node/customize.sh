#!/bin/sh
# customize.sh SOURCE CUDA ROOT PACKAGE...: finish a node's root file system (run by mmdebstrap, which sets MMDEBSTRAP_APT_CONFIG).
# SOURCE is this folder, CUDA that of the stand-in for NVIDIA's driver. The packages are not installed: they go to an offline apt repository inside the node, with all they need.
set -eu
source=$1 cuda=$2 root=$3
shift 3

repository=$root/var/local/apt
# What the base was made from lies in the same folder: only what is still missing belongs to the repository.
rm -f "$root"/var/cache/apt/archives/*.deb
mkdir -p "$repository"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq --yes --no-install-recommends --download-only install "$@" >/dev/null
mv "$root"/var/cache/apt/archives/*.deb "$repository"
(
    cd "$repository"
    apt-ftparchive packages . > Packages
    # To a folder outside first: the index must not list itself.
    apt-ftparchive release . > "$root/Release"
    mv "$root/Release" Release
)
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*

cp -r --no-preserve=ownership "$source/root/." "$root"

# Where the driver's packages put it.
sh "$cuda/build.sh" "$root/usr/lib/$(cc -print-multiarch)"
chroot "$root" ldconfig

# For tests that set a clock.
mkdir -p "$root/usr/lib/dgx-spark-lab"
cc -O2 -Wall -Werror -shared -fPIC -o "$root/usr/lib/dgx-spark-lab/clock.so" "$source/clock.c"

# As on a machine that has been up for a while, the package lists are there.
rm -rf "$root"/var/lib/apt/lists/*
chroot "$root" apt-get -qq update

# Each node makes its own identity.
rm -f "$root"/etc/ssh/ssh_host_*
: > "$root/etc/machine-id"
# No resolver answers in the lab: an empty list fails at once, while the host's would be waited for.
echo '# The lab has no resolver.' > "$root/etc/resolv.conf"
mkdir -p -m 0700 "$root/root/.ssh"

# What belongs to a machine with hardware, or would reach through to the host's kernel from a privileged container.
for unit in \
    systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
    systemd-modules-load.service systemd-sysctl.service systemd-remount-fs.service systemd-pstore.service \
    systemd-random-seed.service systemd-hwdb-update.service systemd-firstboot.service systemd-binfmt.service \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
    dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount \
    getty.target console-getty.service getty-static.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    rdma-load-modules@.service rdma-hw.target iwpmd.service
do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
