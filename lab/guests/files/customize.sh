#!/bin/sh
# customize.sh SOURCE OUT ROOT PACKAGE...: finish a guest's root file system (run by mmdebstrap, which sets MMDEBSTRAP_APT_CONFIG).
# SOURCE is this folder. OUT gets the kernel and the initial file system. The packages are not installed: they go to an offline apt
# repository inside the guest, with all they need.
set -eu
source=$1 out=$2 root=$3
shift 3
apt() { APT_CONFIG=$MMDEBSTRAP_APT_CONFIG "$@"; }

# ---- the offline repository
repository=$root/var/local/apt
rm -f "$root"/var/cache/apt/archives/*.deb
mkdir -p "$repository"
apt apt-get -qq --yes --no-install-recommends --download-only install "$@" >/dev/null
mv "$root"/var/cache/apt/archives/*.deb "$repository"
(
    cd "$repository"
    apt-ftparchive packages . > Packages
    # To a folder outside first: the index must not list itself.
    apt-ftparchive release . > "$root/Release"
    mv "$root/Release" Release
)

# ---- the kernel: unpacked, not installed, so that no initramfs is made in the guest; of its modules what a guest can use
kernel=$(apt apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
mkdir "$out/kernel"
(
    cd "$out/kernel"
    apt apt-get -qq -o APT::Sandbox::User=root download "$kernel"
    dpkg-deb -x "$kernel"_*.deb .
)
version=${kernel#linux-image-}
cp "$out/kernel/boot/vmlinuz-$version" "$root/boot"
mv "$out/kernel/boot/vmlinuz-$version" "$out/vmlinuz"
# QEMU starts the kernel; GRUB is there for what is written into its configuration.
mkdir -p "$root/boot/grub"
from=$out/kernel/lib/modules/$version
to=$root/lib/modules/$version
mkdir -p "$to"
cp "$from"/modules.builtin* "$from/modules.order" "$to"
mkdir "$to/kernel"
(
    cd "$from/kernel"
    cp -r --parents -t "$to/kernel" arch/x86/crypto block crypto lib net drivers/virtio drivers/block/virtio_blk.ko \
        drivers/block/loop.ko drivers/char/hw_random drivers/infiniband/core drivers/infiniband/sw drivers/dca \
        drivers/net/virtio_net.ko drivers/net/net_failover.ko drivers/net/dummy.ko drivers/net/veth.ko drivers/net/ifb.ko \
        drivers/net/macvlan.ko drivers/net/bonding fs/ext4 fs/jbd2 fs/mbcache.ko fs/autofs fs/configfs fs/overlayfs \
        fs/fuse fs/nls
)
chroot "$root" depmod "$version"

# ---- the initial file system: busybox and the modules without which there is no disk
initial=$out/initial
mkdir -p "$initial/bin" "$initial/dev" "$initial/proc" "$initial/sys" "$initial/root" "$initial/modules"
cp "$(command -v busybox)" "$initial/bin/busybox"
install -m 0755 "$source/init" "$initial/init"
number=10
for module in $(for name in virtio_pci virtio_blk crc32c_generic ext4; do
    chroot "$root" modprobe -S "$version" --show-depends $name
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}'); do
    cp "$root$module" "$initial/modules/$number-$(basename "$module")"
    number=$((number + 1))
done
(cd "$initial" && find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc) > "$out/initrd"
rm -r "$initial" "$out/kernel"

# ---- the files
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
cp -r --no-preserve=ownership "$source/root/." "$root"
rm -rf "$root"/var/lib/apt/lists/*
chroot "$root" apt-get -qq update
mkdir -p "$root/root/.ssh"
chmod 0700 "$root/root/.ssh"
install -m 0600 "$out/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
rm -f "$root"/etc/ssh/ssh_host_*
install -m 0600 "$out/ssh_host_ed25519_key" "$root/etc/ssh/ssh_host_ed25519_key"
: > "$root/etc/machine-id"
: > "$root/etc/fstab"
echo '# The lab has no resolver.' > "$root/etc/resolv.conf"

# ---- the units
chroot "$root" systemctl --quiet enable lab-roce.service
chroot "$root" systemctl --quiet disable NetworkManager.service NetworkManager-wait-online.service NetworkManager-dispatcher.service
for unit in \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-pstore.service systemd-hwdb-update.service systemd-firstboot.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-binfmt.service \
    sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount \
    getty.target console-getty.service getty-static.service \
    wpa_supplicant.service ModemManager.service iwpmd.service
do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# ---- Python: compiled here, where it takes a second
install -m 0644 "$source/sitecustomize.py" "$root/etc/python3.11/sitecustomize.py"
mkdir -p "$root/var/cache/lab-compiled"
chroot "$root" python3 -m compileall -q /usr/lib/python3/dist-packages /usr/lib/python3.11 /etc/python3.11
