"""How a script of peers is asked, times, and answers; the scripts here say what they measure.

A script reads one JSON document from standard input:

    {"repetitions": 20, "cases": [{"tokens": 8192, "dtype": "bf16", ...}, ...]}

and writes one JSON line for each case and peer:

    {"case": 0, "name": "torch eager", "version": "2.9.0", "us": [...]}
    {"case": 0, "name": "liger", "skipped": "the reason"}
    {"case": null, "name": "quack", "skipped": "the reason, for every case"}

Each repetition is timed by CUDA events, with the L2 cache flushed before it, as the program times its own. A peer
that fails does not stop the others.
"""

import gc
import importlib.metadata
import importlib.util
import json
import sys

FLUSH_BYTES = 320 << 20
WARM_UP = 3


class NotOffered(Exception):
    """A peer has no such operation: nothing to say of this case."""


def answer(**fields):
    print(json.dumps(fields), flush=True)


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def serve(peers, inputs):
    """Answers for `peers`, a list of (name, package, module, build).

    `inputs(torch, case, generator)` makes a case's tensors; `build(torch, inputs, case)` returns what is done before
    each repetition and is not timed, and what is timed.
    """
    request = json.load(sys.stdin)
    try:
        import torch
    except ImportError as error:
        answer(case=None, name="torch", skipped=f"PyTorch is not installed ({error})")
        return
    if not torch.cuda.is_available():
        answer(case=None, name="torch", skipped="PyTorch sees no GPU")
        return
    present = []
    for name, package, module, build in peers:
        if importlib.util.find_spec(module) is None:
            answer(case=None, name=name, skipped=f"{package} is not installed")
        else:
            present.append((name, package, build))
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for index, case in enumerate(request["cases"]):
        for name, package, build in present:
            try:
                us = measure(torch, flush, inputs, build, case, request["repetitions"])
                answer(case=index, name=name, version=version(package), us=us)
            except NotOffered:
                pass
            except Exception as error:  # out of memory, a compiler that fails
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                answer(case=index, name=name, skipped=reason)
            gc.collect()
            torch.cuda.empty_cache()


def dtype_of(torch, case):
    return {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[case["dtype"]]


def measure(torch, flush, inputs, build, case, repetitions):
    generator = torch.Generator(device="cuda").manual_seed(3)
    before, work = build(torch, inputs(torch, case, generator), case)
    marks = []
    for repetition in range(WARM_UP + repetitions):
        before()
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        if repetition >= WARM_UP:
            marks.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) * 1e3 for start, end in marks]
