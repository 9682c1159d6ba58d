"""Guests: simulated Sparks with a kernel of their own and RDMA, as emulated machines.

`python3 -m lab guests create` boots up to four of them. They are for what the containers of the lab can't show:
netplan, MTU and carrier of real interfaces, Soft-RoCE devices, a firewall, a reboot.
"""
