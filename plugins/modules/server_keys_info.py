#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Whether an image's server can take its keys from a file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: server_keys_info
short_description: Tell whether the server of an image takes its keys from a file
version_added: 0.1.0
description:
  - Asks the image whether SGLang in it takes options from a file, and whether it knows the options for the keys. An
    option that it does not know would end the server with the key in its message.
  - Knows no key itself. Changes nothing; the container that it starts has no network, and is removed.
options:
  image:
    description: The image with SGLang, which the node must have.
    type: str
    required: true
  options:
    description: The options for which there is a key.
    type: list
    elements: str
    choices: [api-key, admin-api-key]
    required: true
  timeout:
    description: Seconds to wait for the image.
    type: int
    default: 120
attributes:
  check_mode:
    description: Changes nothing in any mode. In check mode an image that is not there yet is no error.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Ask the image whether its server takes a key from a file
  dgx_spark.sglang.server_keys_info:
    image: lmsysorg/sglang:spark
    options: [api-key]
"""

RETURN = r"""
sglang_version:
  description: SGLang's release in the image.
  returned: when the image was asked
  type: str
options:
  description: Those of the options that the server has.
  returned: when the image was asked
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image, _secrets


def main() -> None:
    """Ask and report."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "options": {
                "type": "list",
                "elements": "str",
                "choices": list(_secrets.KEYS.values()),
                "required": True,
                # The names of options, not their values.
                "no_log": False,
            },
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    image, options = module.params["image"], module.params["options"]
    if module.params["timeout"] < 1:
        module.fail_json(msg="timeout must be 1 or more.")
    try:
        answer = _image.ask(image, _secrets.PROBE, options, module.params["timeout"])
    except _image.ImageError as error:
        if module.check_mode and isinstance(error, _image.ImageMissingError):
            module.exit_json(changed=False, msg=str(error))
        module.fail_json(msg=str(error))
    problem = _secrets.unknown_options(answer, options)
    if problem:
        module.fail_json(msg=f"{image}: {problem}")
    module.exit_json(changed=False, sglang_version=answer["sglang"], options=answer["options"])


if __name__ == "__main__":
    main()
