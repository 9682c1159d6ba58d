"""What the role host changes of a whole machine, on guests with kernels of their own: now, at boot, and put back."""

from __future__ import annotations

import json

from tests.tools import operating
from tests.tools.operating import ROOT, changes, run

INVENTORY = ROOT / ".lab/guests-inventory"
GUESTS = ["spark-0", "spark-1"]
PARTS = {
    "host_kho_off": True,
    "host_time_servers": ["198.18.9.1"],
    "host_hold_packages": True,
    "host_hold_patterns": ["grub*"],
}
BEFORE: dict[str, list[str]] = {}

# Areas of swap: one that is there at every boot, as on a workstation; one of a service that turns it on by itself, in
# the place of zram-tools'; and one of a unit by hand.
SWAP = """
fallocate -l 32M /second && chmod 600 /second && mkswap /second
printf '%s\\n' '[Service]' Type=oneshot RemainAfterExit=yes 'ExecStart=/sbin/swapon /second' \
    'ExecStop=/sbin/swapoff /second' '[Install]' WantedBy=multi-user.target > /etc/systemd/system/zramswap.service
fallocate -l 16M /third && chmod 600 /third && mkswap /third
printf '%s\\n' '[Swap]' What=/third Priority=3 '[Install]' WantedBy=multi-user.target > /etc/systemd/system/third.swap
systemctl daemon-reload && systemctl enable --now zramswap.service third.swap
fallocate -l 64M /swapfile && chmod 600 /swapfile && mkswap /swapfile
echo '/swapfile none swap sw,pri=5 0 0' >> /etc/fstab
systemctl daemon-reload && systemctl start swapfile.swap
LANG=C.UTF-8 update-grub
"""
# What the parts change, and what is in force.
LOOK = """
tail -n +2 /proc/swaps | sort
for unit in swap.target swapfile.swap zramswap.service third.swap; do systemctl is-enabled $unit; done
systemctl is-active zramswap.service
systemctl show --value --property=DefaultLimitMEMLOCK
sysctl vm.swappiness vm.min_free_kbytes
cat /proc/sys/net/ipv4/conf/enp1s0f1np1/arp_ignore
readlink /etc/systemd/system/default.target
cat /boot/grub/grub.cfg
dpkg-query --show systemd-timesyncd
systemctl is-active systemd-timesyncd
cd /etc
find systemd/*.conf.d sysctl.d default/grub.d -type f -exec sha256sum {} + 2>/dev/null | sort
apt-mark showhold
ls /var/lib/dgx-spark-host
true
"""


def play(playbook: str, *arguments: str, **variables: object) -> list[int]:
    """Run a playbook on the guests. Returns how many changes there were on each."""
    given = json.dumps({**PARTS, **variables})
    return changes(operating.play(playbook, *arguments, "-e", given, inventory=INVENTORY, seconds=600))


def on(guest: str, script: str) -> str:
    return operating.on(guest, script, ROOT / ".lab/guests/ssh_config")


def looks() -> dict[str, list[str]]:
    """What is there on each guest, line by line."""
    return {guest: on(guest, f"( {LOOK} ) 2>&1").splitlines() for guest in GUESTS}


def test_a_check_run_changes_nothing() -> None:
    run("python3", "-m", "lab", "guests", "reset", seconds=300)
    for guest in GUESTS:
        on(guest, SWAP)
    BEFORE.update(looks())
    for area in ("/swapfile ", "/second ", "/third "):
        assert any(line.startswith(area) for line in BEFORE["spark-0"])
    assert min(play("site.yml", "--check", "--tags", "host")) >= 6
    assert looks() == BEFORE


def test_all_parts_are_in_force_and_outlive_a_boot() -> None:
    boots = [on(guest, "cat /proc/sys/kernel/random/boot_id") for guest in GUESTS]
    play("site.yml", "--tags", "host", host_reboot="idle")
    for guest, boot in zip(GUESTS, boots, strict=True):
        # Booted by the role, since only a boot gives the kernel its parameter.
        assert on(guest, "cat /proc/sys/kernel/random/boot_id") != boot
        assert on(guest, "tail -n +2 /proc/swaps") == ""
        asked = "systemctl is-enabled swap.target swapfile.swap zramswap.service third.swap; true"
        assert on(guest, asked).split() == ["masked", "masked", "disabled", "disabled"]
        assert on(guest, "systemctl show --value --property=DefaultLimitMEMLOCK") == "infinity"
        assert on(guest, "sysctl -n vm.swappiness vm.min_free_kbytes") == "1\n262144"
        assert on(guest, "systemctl get-default") == "multi-user.target"
        assert " kho=off" in on(guest, "grep -m 1 'linux.*/vmlinuz' /boot/grub/grub.cfg")
        assert on(guest, "systemctl is-active systemd-timesyncd") == "active"
        assert "198.18.9.1" in on(guest, "timedatectl show-timesync --property=SystemNTPServers")
    assert play("site.yml", "--tags", "host") == [0, 0]


def test_time_servers_that_are_taken_out_are_followed_no_more() -> None:
    assert play("site.yml", "--tags", "host", host_time_servers=[]) == [1, 1]
    for guest in GUESTS:
        assert "198.18.9.1" not in on(guest, "timedatectl show-timesync --property=SystemNTPServers")
    assert play("site.yml", "--tags", "host") == [1, 1]


def test_teardown_puts_the_machine_back() -> None:
    """Also a node whose file of swap was removed since, but for that area."""
    on("spark-1", "rm /swapfile && sed -i '/swapfile/d' /etc/fstab && systemctl daemon-reload")
    play("playbooks/teardown.yml", host_teardown=True)
    now = looks()
    assert now["spark-0"] == BEFORE["spark-0"]
    swap = [line for line in BEFORE["spark-1"] if line.startswith("/swapfile ") or line == "generated"]
    assert len(swap) == 2
    gone = [line for line in now["spark-1"] if "swapfile.swap" in line]
    assert len(gone) == 1
    assert [line for line in BEFORE["spark-1"] if line not in swap] == [
        line for line in now["spark-1"] if line not in gone
    ]
