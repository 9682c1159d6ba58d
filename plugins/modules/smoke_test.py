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
    type: list
    elements: str
    choices: [HEALTH, MODELS, CHAT, STREAM, METRICS]
    default: [HEALTH, MODELS, CHAT, STREAM, METRICS]
  max_tokens:
    description: Tokens that a chat may generate.
    type: int
    default: 16
  expect_stream_usage:
    description: Whether a stream must tell its usage; the request asks for it in any case.
    type: bool
    default: true
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
      description: How long the request took.
      type: float
    sent:
      description: The request.
      type: str
    received:
      description: The answer, shortened.
      type: str
    problem:
      description: What is wrong, none when it passed.
      type: str
    mend:
      description: What to do about it, none when it passed.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _smoke


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
                "choices": ["HEALTH", "MODELS", "CHAT", "STREAM", "METRICS"],
                "default": ["HEALTH", "MODELS", "CHAT", "STREAM", "METRICS"],
            },
            "max_tokens": {"type": "int", "default": 16},
            "expect_stream_usage": {"type": "bool", "default": True},
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
    results = _smoke.run_checks(target, params["checks"])
    ok = all(result["ok"] for result in results)
    problems = "" if ok else _smoke.report(params["url"], results)
    if not ok and params["fail"]:
        module.fail_json(msg=problems, changed=False, ok=ok, checks=results)
    module.exit_json(changed=False, ok=ok, problems=problems, checks=results)


if __name__ == "__main__":
    main()
