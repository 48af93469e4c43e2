"""Cross entropy by other software, for `evenkeel bench`: PyTorch eager, torch.compile, an unfused pipeline, Liger.

Reads one JSON document from standard input:

    {"repetitions": 20, "cases": [{"tokens": 8192, "vocab": 128256, "dtype": "bf16", "backward": true}, ...]}

and writes one JSON line for each case and peer:

    {"case": 0, "name": "torch eager", "version": "2.9.0", "us": [...]}
    {"case": 0, "name": "liger", "skipped": "the reason"}

Each repetition is timed by CUDA events, with the L2 cache flushed before it, as the program times its own. A peer
that fails does not stop the others.
"""

import importlib.metadata
import json
import sys

FLUSH_BYTES = 320 << 20
WARM_UP = 3


def answer(**fields):
    print(json.dumps(fields), flush=True)


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def main():
    request = json.load(sys.stdin)
    try:
        import torch
    except ImportError as error:
        answer(case=None, name="torch", skipped=f"PyTorch is not installed ({error})")
        return
    if not torch.cuda.is_available():
        answer(case=None, name="torch", skipped="PyTorch sees no GPU")
        return
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for index, case in enumerate(request["cases"]):
        for name, package, build in peers(torch):
            try:
                us = measure(torch, flush, build, case, request["repetitions"])
                answer(case=index, name=name, version=version(package), us=us)
            except Exception as error:  # out of memory, a missing package, a compiler that fails
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                answer(case=index, name=name, skipped=reason)
            torch.cuda.empty_cache()


def peers(torch):
    return [
        ("unfused", "torch", unfused),
        ("torch eager", "torch", eager),
        ("torch.compile", "torch", compiled),
        ("liger", "liger-kernel", liger),
    ]


def measure(torch, flush, build, case, repetitions):
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[case["dtype"]]
    tokens, vocab, backward = case["tokens"], case["vocab"], case["backward"]
    generator = torch.Generator(device="cuda").manual_seed(3)
    pristine = torch.empty(tokens, vocab, dtype=dtype, device="cuda").normal_(0.0, 3.0, generator=generator)
    targets = torch.randint(vocab, (tokens,), device="cuda", generator=generator)
    before, work = build(torch, pristine, targets, backward)
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


def unfused(torch, logits, targets, backward):
    """Each step stored: softmax, logarithm, gather, gradient; in fp32, as autograd-free code does it."""
    tokens = logits.shape[0]
    rows = torch.arange(tokens, device="cuda")

    def work():
        probabilities = torch.softmax(logits.float(), dim=-1)
        log_probabilities = probabilities.log()
        loss = -log_probabilities.gather(1, targets[:, None]).mean()
        if not backward:
            return loss
        probabilities[rows, targets] -= 1.0
        return loss, (probabilities / tokens).to(logits.dtype)

    return (lambda: None), work


def autograd(torch, logits, targets, backward, loss_of):
    leaf = logits.detach().requires_grad_(backward)

    def before():
        leaf.grad = None

    def work():
        loss = loss_of(leaf, targets)
        if backward:
            loss.backward()
        return loss

    return before, work


def eager(torch, logits, targets, backward):
    return autograd(torch, logits, targets, backward, torch.nn.functional.cross_entropy)


def compiled(torch, logits, targets, backward):
    torch._dynamo.reset()
    loss_of = torch.compile(lambda x, y: torch.nn.functional.cross_entropy(x.float(), y))
    return autograd(torch, logits, targets, backward, loss_of)


def liger(torch, logits, targets, backward):
    """Liger writes the gradient over the logits in its forward, so they are restored each time."""
    from liger_kernel.transformers.cross_entropy import LigerCrossEntropyLoss

    loss_of = LigerCrossEntropyLoss()
    memory = torch.empty_like(logits)
    leaf = memory.requires_grad_(backward)

    def before():
        leaf.grad = None
        with torch.no_grad():
            memory.copy_(logits)

    def work():
        loss = loss_of(leaf, targets)
        if backward:
            loss.backward()
        return loss

    return before, work


if __name__ == "__main__":
    main()
