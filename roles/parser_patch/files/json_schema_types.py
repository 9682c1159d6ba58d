# dgx_spark.sglang parser patch: which JSON types a parameter's schema allows
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The two functions that the role parser_patch adds to sglang.srt.function_call.utils."""


def json_schema_types(
    schema: object, root: object = None, depth: int = 0, known: "dict[str, frozenset[str] | None] | None" = None
) -> "frozenset[str] | None":
    """The JSON types ("string", "number", "integer", ...) that a JSON Schema allows; None if it leaves all open.

    root: the schema that "$ref": "#/..." points into. A "number" may be an "integer" too. Schemas that contradict
    themselves, or that refer to themselves, are as good as none.
    """
    if not isinstance(schema, dict) or depth > 20:
        return None
    known = {} if known is None else known
    limits = []
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target = root
        for part in reference[2:].split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            target = target.get(part) if isinstance(target, dict) else None
        if reference not in known:
            known[reference] = None  # while it is followed, and if it leads back to itself
            known[reference] = json_schema_types(target, root, depth + 1, known)
        limits.append(known[reference])
    declared = schema.get("type")
    if isinstance(declared, (str, list)):
        limits.append(frozenset([declared] if isinstance(declared, str) else map(str, declared)))
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
        limits.append(frozenset(names.get(type(value), "null") for value in values))
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            branches = [json_schema_types(branch, root, depth + 1, known) for branch in schema[keyword]]
            told = [branch for branch in branches if branch]
            limits.append(frozenset().union(*told) if len(told) == len(branches) else None)
    if isinstance(schema.get("allOf"), list):
        limits += [json_schema_types(branch, root, depth + 1, known) for branch in schema["allOf"]]
    if all(limit is None for limit in limits):
        if any(keyword in schema for keyword in ("properties", "additionalProperties", "required")):
            limits.append(frozenset({"object"}))
        elif any(keyword in schema for keyword in ("items", "prefixItems")):
            limits.append(frozenset({"array"}))
    allowed = None
    for limit in limits:
        if limit is not None:
            limit |= {"integer"} if "number" in limit else frozenset()
            allowed = limit if allowed is None else allowed & limit
    return allowed or None


def infer_type_from_json_schema(schema: object, root: object = None) -> "str | None":
    """The one type that a text for a JSON Schema is best read as; None if the schema says nothing.

    Of several types "string" goes first, since every text is one; "null" counts only where it is the only one.
    """
    allowed = json_schema_types(schema, root)
    for name in ("string", "object", "array", "number", "integer", "boolean", "null"):
        if allowed and name in allowed:
            return name
    return None
