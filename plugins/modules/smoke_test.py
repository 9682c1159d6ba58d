#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Asks an endpoint the few things that show that it serves."""

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke_test
short_description: Check that an endpoint really answers
version_added: 0.1.0
description:
  - Sends a few small requests to an OpenAI-compatible endpoint and checks the answers.
  - All checks run, even after one has failed; the module fails at the end and lists each failed
    check with its mend.
options:
  url:
    description: Base URL of the endpoint, without a path.
    type: str
    required: true
  model:
    description:
      - The name under which the model must be served. Left out, any name will do.
    type: str
  timeout:
    description: Seconds for each request.
    type: float
    default: 120
  api_key:
    description: The server's API key, if it wants one.
    type: str
  checks:
    description:
      - The checks to run. V(HEALTH) wants 200 from C(/health), V(MODELS) the model's name from
        C(/v1/models), V(CHAT) a whole answer with at least one token, V(STREAM) a stream that ends
        in C([DONE]), V(METRICS) series of SGLang from C(/metrics).
      - V(KEY) wants to be refused without the key; it is left out without O(api_key).
      - V(TOOL_CALL), V(TOOL_NO_ARGS) and V(TOOL_STREAM) want one right tool call, with arguments,
        without, and streamed; they are left out without O(tool_parser). V(TOOL_THINKING) wants
        thoughts before it, and is left out without O(reasoning_parser), too.
    type: list
    elements: str
    choices: [HEALTH, KEY, MODELS, CHAT, STREAM, METRICS, TOOL_CALL, TOOL_NO_ARGS, TOOL_STREAM, TOOL_THINKING]
    default: [HEALTH, KEY, MODELS, CHAT, STREAM, METRICS, TOOL_CALL, TOOL_NO_ARGS, TOOL_STREAM, TOOL_THINKING]
  max_tokens:
    description: Tokens that a chat may generate.
    type: int
    default: 16
  expect_stream_usage:
    description: Whether a stream must tell its usage; the request asks for it in any case.
    type: bool
    default: true
  tool_parser:
    description:
      - The server's C(--tool-call-parser). Empty means that it has none.
    type: str
    default: ""
  reasoning_parser:
    description:
      - The server's C(--reasoning-parser). Empty means that it has none.
    type: str
    default: ""
  random_weights:
    description:
      - Whether the server has no real weights (C(--load-format dummy)). Such a model calls no tools,
        so the checks of tool calls ask the server's parsers alone, with a text as the model would
        write it. Only V(glm), V(glm45) and V(glm47) in O(tool_parser) can be asked so; with others
        these checks are left out.
    type: bool
    default: false
  fail:
    description: Whether a failed check makes the task fail.
    type: bool
    default: true
attributes:
  check_mode:
    description: Runs all checks in check mode too; nothing is changed on the host.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Check the endpoint from rank 0
  dgx_spark.sglang.smoke_test:
    url: http://198.51.100.11:30000
    model: glm-4.7

- name: Check tool calls, too
  dgx_spark.sglang.smoke_test:
    url: http://198.51.100.11:30000
    model: glm-4.7
    tool_parser: glm47
    reasoning_parser: glm45

- name: Only look whether it answers
  dgx_spark.sglang.smoke_test:
    url: http://198.51.100.11:30000
    checks: [HEALTH, MODELS]
    fail: false
  register: smoke
"""

RETURN = r"""
ok:
  description: Whether all checks passed.
  returned: always
  type: bool
problems:
  description: The failed checks with their mends, as one text; empty if all passed.
  returned: success
  type: str
checks:
  description: The outcome of every check.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Name of the check.
      type: str
    title:
      description: What it shows.
      type: str
    ok:
      description: Whether it passed.
      type: bool
    seconds:
      description: How long it took, in seconds.
      type: float
    sent:
      description: The request, shortened; both requests where a check needs two.
      type: str
    received:
      description: The answer, shortened; of a tool call only the message. It begins with
          C(the parser alone) where no model was asked.
      type: str
    problem:
      description: What is wrong, none when it passed.
      type: str
    mend:
      description: What to do about it, none when it passed.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _smoke, _smoke_tools
from ansible_collections.dgx_spark.sglang.plugins.module_utils._smoke_calls import Served

IDS = [*_smoke.IDS, *_smoke_tools.IDS]


def main() -> None:
    """Run the checks and report."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "model": {"type": "str"},
            "timeout": {"type": "float", "default": 120},
            "api_key": {"type": "str", "no_log": True},
            "checks": {
                "type": "list",
                "elements": "str",
                "choices": IDS,
                "default": IDS,
            },
            "max_tokens": {"type": "int", "default": 16},
            "expect_stream_usage": {"type": "bool", "default": True},
            "tool_parser": {"type": "str", "default": ""},
            "reasoning_parser": {"type": "str", "default": ""},
            "random_weights": {"type": "bool", "default": False},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["timeout"] <= 0 or params["max_tokens"] < 1:
        module.fail_json(msg="timeout and max_tokens must be greater than 0.")
    if not params["url"].startswith(("http://", "https://")):
        module.fail_json(msg=f"url is {params['url']!r}; it must begin with http:// or https://.")
    target = _smoke.Target(
        url=params["url"],
        model=params["model"],
        timeout=params["timeout"],
        api_key=params["api_key"],
        max_tokens=params["max_tokens"],
        stream_usage=params["expect_stream_usage"],
    )
    served = Served(params["tool_parser"], params["reasoning_parser"], params["random_weights"])
    results = _smoke.run_checks(target, [*_smoke.CHECKS, *_smoke_tools.checks(served)], params["checks"])
    ok = all(result["ok"] for result in results)
    problems = "" if ok else _smoke.report(params["url"], results)
    if not ok and params["fail"]:
        module.fail_json(msg=problems, changed=False, ok=ok, checks=results)
    module.exit_json(changed=False, ok=ok, problems=problems, checks=results)


if __name__ == "__main__":
    main()
