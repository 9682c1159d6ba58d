# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""One node's half of the tests of a pair. Both halves run at once and go through the same steps, rail by rail."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_process as process
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_tests as tests
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_tests import Outcome, Rail, Settings, Step

LEFT_SECONDS = 5.0
"""How long a program has to end by itself once its other half has ended; and one side waits longer than the other."""

TRY_SECONDS = 4.0
"""A call that is refused takes less, end of the program included; one that takes longer got through, and hangs."""

NO_ANSWER_SECONDS = 5.0
"""How long to wait for the other side on a rail on which it does not even answer a ping."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Ready:
    """Whether this side can run a rail's RDMA tests: the GID index to use, or what is wrong and the mend."""

    gid_index: int | None = None
    problem: str = ""
    mend: str = ""


def readiness(rail: Rail, seen: Mapping[str, Any]) -> Ready:
    """From what rdma_info says of the rail's address (an entry of its `rails`)."""
    if seen["problem"]:
        return Ready(problem=str(seen["problem"]), mend=str(seen["mend"]))
    if seen["hca"] != rail.hca:
        problem = f"{rail.address} is on {seen['hca']}, not on {rail.hca} as planned"
        return Ready(problem=problem, mend="Correct cluster_rails, or the addresses: run site.yml --tags fabric.")
    return Ready(gid_index=int(seen["gid_index"]))


class Pair:
    """This node's half."""

    def __init__(self, settings: Settings, server: bool, ready: Callable[[Rail], Ready]) -> None:
        """`server`: whether this side is called; the other one calls. `ready`: asks this node about a rail."""
        self.settings, self.server, self.ready = settings, server, ready
        self.rows: list[Row] = []

    def run(self, rails: Sequence[Rail]) -> list[Row]:
        """All tests of all rails; a test that fails is a row like any other."""
        listeners: list[socket.socket | OSError] = []
        try:
            if self.settings.rdma and self.server:
                # All at once: on the next rail the other side may be a little ahead.
                listeners += [self._listen(rail) for rail in rails]
            for rail in rails:
                answers = self._ping(rail, [other for other in rails if other != rail])
                if self.settings.rdma:
                    self._rdma(rail, answers, listeners[rail.number] if self.server else None)
        finally:
            for listener in listeners:
                if not isinstance(listener, OSError):
                    listener.close()
        return self.rows

    def _listen(self, rail: Rail) -> socket.socket | OSError:
        try:
            return process.listen(rail.address, tests.port(self.settings, rail, 0))
        except OSError as trouble:
            return trouble

    def _add(self, rail: Rail, test: str, called: bool, outcome: Outcome) -> None:
        ends = (self.settings.host, self.settings.peer)
        sender, receiver = ends if called else ends[::-1]
        row = {"round": self.settings.round, "rail": rail.number, "test": test, "from": sender, "to": receiver}
        self.rows.append({**row, **outcome.as_dict(), "seen_by": self.settings.host})

    def _ping(self, rail: Rail, others: Sequence[Rail]) -> bool:
        """Ping with whole packets; says whether the other side answers at all."""
        big, outcome = self._run_ping(rail, self.settings.mtu - tests.PING_HEADERS)
        small = None if outcome.ok else self._run_ping(rail, tests.SMALL_PING)[0]
        outcome = tests.ping_outcome(self.settings, rail, big, small)
        if small and not small.received:
            crossed = [other for other in others if self._is_here(rail, other)]
            outcome = tests.crossed_outcome(self.settings, rail, crossed[0], outcome) if crossed else outcome
        self._add(rail, tests.PING, True, outcome)
        return outcome.ok or bool(small and small.received)

    def _is_here(self, rail: Rail, other: Rail) -> bool:
        """Whether the peer's address of another rail is found by this rail's interface (by ARP: no ping comes back)."""
        stray = replace(rail, peer_address=other.peer_address)
        self._run_ping(stray, tests.SMALL_PING)
        try:
            with process.Program(tests.neighbour_argv(stray)) as program:
                program.wait(self.settings.timeout)
                return tests.is_neighbour(program.output())
        except OSError:
            return False

    def _run_ping(self, rail: Rail, size: int) -> tuple[tests.Pinged, Outcome]:
        argv = tests.ping_argv(self.settings, rail, size)
        try:
            with process.Program(argv) as program:
                code = program.wait(self.settings.timeout)
                pinged = tests.pinged(program.output(), code)
        except OSError as trouble:
            pinged = tests.pinged(f"ping can't be run: {trouble}", None)
        return pinged, tests.ping_outcome(self.settings, rail, pinged, None)

    def _rdma(self, rail: Rail, answers: bool, listener: socket.socket | OSError | None) -> None:
        """The tests for which both sides run a program. What keeps all of them from running is the outcome of each."""
        line = None
        try:
            mine = self.ready(rail)
            line = self._meet(rail, answers, listener)
            try:
                failed = self._agree(rail, line, mine)
                if failed is None:
                    for number, step in enumerate(tests.STEPS):
                        self._step(rail, line, number, step, mine)
                    return
            finally:
                line.close()
        except process.LineError as trouble:
            failed = tests.no_line(self.settings, rail, str(trouble), answers, line is not None)
        # Steps that have their row were done before the line broke.
        done = {(row["test"], row["from"]) for row in self.rows if row["rail"] == rail.number}
        for step in tests.STEPS:
            called = self._calls(step)
            sender = self.settings.host if called else self.settings.peer
            if (step.test, sender) not in done:
                self._add(rail, step.test, called, failed)

    def _calls(self, step: Step) -> bool:
        """Whether this side's program calls the other's in a step."""
        return step.server_listens != self.server

    def _meet(self, rail: Rail, answers: bool, listener: socket.socket | OSError | None) -> process.Line:
        seconds = self.settings.wait if answers else min(self.settings.wait, NO_ANSWER_SECONDS)
        if isinstance(listener, OSError):
            raise process.LineError(f"this node can't listen on {rail.address}: {listener}")
        if listener:
            return process.accept(listener, rail.peer_address, seconds)
        return process.call(rail.address, rail.peer_address, tests.port(self.settings, rail, 0), seconds)

    def _agree(self, rail: Rail, line: process.Line, mine: Ready) -> Outcome | None:
        """Tell each other that both are in the same round and can go on; else why not."""
        place = [self.settings.round, rail.number]
        line.send({"place": place, "problem": mine.problem, "mend": mine.mend})
        # The other side's half may have been started later than ours.
        told = line.receive(self.settings.wait)
        if told is None:
            raise process.LineError("it said nothing")
        if told.get("place") != place:
            raise process.LineError(f"it is at round and rail {told.get('place')}, not at {place}")
        if mine.problem:
            return Outcome(False, found=f"{self.settings.host}: {mine.problem}", mend=mine.mend)
        if told.get("problem"):
            return Outcome(False, found=f"{self.settings.peer}: {told['problem']}", mend=str(told.get("mend") or ""))
        return None

    def _step(self, rail: Rail, line: process.Line, number: int, step: Step, mine: Ready) -> None:
        called = self._calls(step)
        run = self._call if called else self._listener
        argv = tests.step_argv(self.settings, rail, number, called, mine.gid_index)
        self._add(rail, step.test, called, run(rail, line, number, step, argv))

    def _listener(self, rail: Rail, line: process.Line, number: int, step: Step, argv: list[str]) -> Outcome:
        """Start the program that is called, tell so, and end it when the other side is done."""
        try:
            program = process.Program(argv)
        except OSError as trouble:
            line.send({"step": number, "failed": f"{argv[0]} can't be run: {trouble}"})
            return Outcome(False, found=f"{argv[0]} can't be run: {trouble}", mend=tests.install(argv[0]))
        with program:
            line.send({"step": number})
            deadline = time.monotonic() + self.settings.timeout + LEFT_SECONDS
            told = None
            while told is None and time.monotonic() < deadline:
                told = _told(line, number, process.AGAIN)
                if told is None and program.code() not in (None, 0):
                    output = program.output()
                    line.send({"step": number, "failed": tests.ended(output, program.code())})
                    return step.judge(self.settings, rail, output, program.code(), False)
            code = program.wait(LEFT_SECONDS if told and not told.get("failed") else 0)
            output = program.output()
        if told is None:
            found = f"{self.settings.peer} did not say that it was done in {self.settings.timeout:g} s"
            return Outcome(False, found=found, mend=tests.LOOK_AT_PEER)
        if told.get("failed"):
            return Outcome(False, found=f"{self.settings.peer}: {told['failed']}", mend=str(told.get("mend") or ""))
        return step.judge(self.settings, rail, output, code, False)

    def _call(self, rail: Rail, line: process.Line, number: int, step: Step, argv: list[str]) -> Outcome:
        """Run the program that calls, again where the other one does not listen yet, and tell that it is done."""
        # The other side may have had to end its program of the step before.
        told = _told(line, number, self.settings.timeout + 2 * LEFT_SECONDS)
        outcome = Outcome(False, found=f"{self.settings.peer} did not start its side", mend=tests.LOOK_AT_PEER)
        deadline = time.monotonic() + self.settings.timeout
        refused = False
        while told is not None and not told.get("failed"):
            began = time.monotonic()
            try:
                with process.Program(argv) as program:
                    code = program.wait(deadline - time.monotonic())
                    output = program.output()
            except OSError as trouble:
                outcome = Outcome(False, found=f"{argv[0]} can't be run: {trouble}", mend=tests.install(argv[0]))
                break
            if code is None and refused and time.monotonic() - began < TRY_SECONDS:
                # The time was up in the middle of one more try; what the whole tries said is why.
                break
            outcome = step.judge(self.settings, rail, output, code, True)
            refused = not outcome.ok and tests.nobody_listens(output)
            if not refused or time.monotonic() >= deadline:
                break
            told = _told(line, number, process.AGAIN) or told
        if told is not None and told.get("failed"):
            outcome = Outcome(False, found=f"{self.settings.peer}: {told['failed']}", mend=tests.LOOK_AT_PEER)
        line.send({"step": number, "failed": "" if outcome.ok else outcome.found, "mend": outcome.mend})
        return outcome


def _told(line: process.Line, number: int, seconds: float) -> dict[str, Any] | None:
    """What the other side says about this step; what it said late about an earlier one is dropped."""
    deadline = time.monotonic() + seconds
    while True:
        message = line.receive(max(0.0, deadline - time.monotonic()))
        if message is None or message.get("step") == number:
            return message
