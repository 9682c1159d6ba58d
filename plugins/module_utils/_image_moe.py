# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What an image is asked about its MoE kernel configs, without a GPU and without importing torch or SGLang.

PROBE and RESOLVE are programs as _image runs them.
"""

from __future__ import annotations

from ansible_collections.dgx_spark.sglang.plugins.module_utils._image import FIND

# Finds the config module and Triton, for both programs.
_FIND = (
    FIND
    + r"""
FILE = "fused_moe_triton_config.py"
# From SGLang 0.5.11 on, and before.
FOLDERS = ("srt/layers/moe/moe_runner/triton_utils", "srt/layers/moe/fused_moe_triton")

def config_module(root):
    candidates = [os.path.join(root, folder, FILE) for folder in FOLDERS]
    candidates += [os.path.join(at, FILE) for at, _, files in os.walk(os.path.join(root, "srt/layers"))]
    found = [path for path in candidates if os.path.isfile(path)]
    return os.path.realpath(found[0]) if found else fail("SGLang in the image has no " + FILE)

def triton_version():
    # What counts is the imported module's word, as for SGLang.
    try:
        import triton
    except ImportError as error:
        fail("the image's Triton cannot be imported: %s" % error)
    return triton.__version__
"""
)

PROBE = (
    _FIND
    + r'''
def listing(folder, device):
    """The names of the device's files in each directory below configs, None without it; and what they hold."""
    if not os.path.isdir(folder):
        return None, {}
    mark = re.compile(r",device_name=%s(,|_down|[.]json)" % re.escape(device))
    directories, files = {}, {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith("triton_"):
            directories[name] = sorted(f for f in os.listdir(path) if mark.search(f)) if os.path.isdir(path) else []
            files.update(("%s/%s" % (name, f), content(os.path.join(path, f))) for f in directories[name])
    return directories, files

def content(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        return "cannot be read as JSON: %s" % error

def main():
    device = json.loads(sys.argv[1])["device_name"].replace(" ", "_")
    root = package()
    module = config_module(root)
    env_dir = os.environ.get("SGLANG_MOE_CONFIG_DIR")
    base = os.path.dirname(module) if env_dir is None else env_dir
    directories, files = listing(os.path.join(base, "configs"), device)
    print(json.dumps({
        "sglang": sglang_version(root), "triton": triton_version(), "package": os.path.dirname(module),
        "module": module, "env_dir": env_dir, "directories": directories, "files": files,
    }))

if __name__ == "__main__":
    main()
'''
)
"""Argument: {"device_name"}. Answer: {sglang, triton, package (folder of the config module), module, env_dir
(SGLANG_MOE_CONFIG_DIR or null), directories: {"triton_3_4_0": [files for the device]} or null without `configs`,
files: {"triton_3_4_0/<file>": its JSON, or a text that says what is wrong with it}}."""

RESOLVE = (
    _FIND
    + r'''
import builtins, logging

class Nothing:
    """Stands for what the module imports and does not need here: attributes and calls give it again; it is false."""
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self
    def __call__(self, *args, **kwargs):
        return self
    def __bool__(self):
        return False

class Fake(Nothing):
    """The same with some attributes set."""
    def __init__(self, **attributes):
        self.__dict__.update(attributes)
    def __call__(self, *args, **kwargs):
        return self
    def __bool__(self):
        return True

class Lines(logging.Handler):
    """Keeps the messages of one logger."""
    def __init__(self):
        super().__init__(logging.INFO)
        self.lines = []
    def emit(self, record):
        self.lines.append(record.getMessage())

def load(path, device_name, triton, deterministic=False, shared_memory=None):
    """The namespace of the config module at path, run with stand-ins for torch, Triton and SGLang.

    triton: the version to speak of; shared_memory: opt-in bytes a block of the GPU, None for no GPU. The namespace
    also holds `opened`, the files read so far, and `lines`, what was logged.
    """
    switch = Fake(enable_deterministic_inference=deterministic)
    settings = Fake(deterministic=switch, enable_deterministic_inference=deterministic)
    properties = Fake(shared_memory_per_block_optin=shared_memory)
    cuda = Fake(is_available=lambda: shared_memory is not None, get_device_properties=lambda *_: properties)
    names = {
        "get_device_name": lambda *_: device_name, "is_hip": lambda: False, "get_exec": lambda: settings,
        "get_global_server_args": lambda: settings, "get_server_args": lambda: settings, "get_config": lambda: None,
    }
    fakes = {"torch": Fake(cuda=cuda), "triton": Fake(__version__=triton), "sglang": Fake(**names)}
    opened, lines = [], Lines()

    def importer(name, *args, **kwargs):
        return fakes.get(name.split(".")[0]) or builtins.__import__(name, *args, **kwargs)

    def opener(file, *args, **kwargs):
        opened.append(str(file))
        return open(file, *args, **kwargs)

    logger = logging.Logger("config")
    logger.addHandler(lines)
    logger.warning_once = logger.warning
    scope = {
        "__name__": "fused_moe_triton_config", "__file__": path, "opened": opened, "lines": lines.lines,
        "__builtins__": {**vars(builtins), "__import__": importer, "open": opener},
    }
    with open(path, encoding="utf-8-sig") as file:
        exec(compile(file.read(), path, "exec"), scope)
    scope["logger"] = logger
    return scope

def answer(scope, lookup, down):
    """What get_moe_configs returns, the file it read and what it logged, or the error that it ends with."""
    getattr(scope["get_moe_configs"], "cache_clear", lambda: None)()
    del scope["opened"][:], scope["lines"][:]
    experts, n, dtype, block_n, block_k, per_channel = lookup
    entries = raises = None
    try:
        entries = scope["get_moe_configs"](experts, n, dtype, block_n, block_k, per_channel, down_moe=down)
    except Exception as error:
        raises = "%s: %s" % (type(error).__name__, error)
    path = scope["opened"][-1] if scope["opened"] and (entries is not None or raises) else None
    return {"path": path, "entries": entries, "log": list(scope["lines"]), "raises": raises}

def main():
    asked = json.loads(sys.argv[1])
    scope = load(config_module(package()), asked["device_name"], triton_version())
    found = [{"up": answer(scope, one, False), "down": answer(scope, one, True)} for one in asked["lookups"]]
    print(json.dumps({"lookups": found}))
    taken = {gemm["path"] for one in found for gemm in one.values() if not gemm["raises"]}
    missed = set(asked.get("strict") or ()) - taken
    # A build ends at what a module would report.
    sys.exit("SGLang does not find " + ", ".join(sorted(missed)) if missed else 0)

if __name__ == "__main__":
    main()
'''
)
"""Argument: {"device_name", "lookups": [[E, N, dtype, block_n, block_k, per_channel], ...], "strict": [path, ...]}.
Answer: {"lookups": [{"up": {path, entries, log, raises}, "down": ...}, ...]}: what the release's own get_moe_configs
did for each. It ends with 1 if a path of `strict` was not read."""
