"""The lab: simulated Sparks on one machine, for demos and tests.

`python3 -m lab create` makes systemd nodes that look like DGX Sparks on the network (a LAN and two
jumbo rails), a registry with a CPU build of SGLang, and a model hub with a tiny model. `python3 -m
lab destroy` takes it all away.
"""
