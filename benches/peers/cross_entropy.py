"""Cross entropy by other software, for `evenkeel bench`: PyTorch eager, torch.compile, an unfused pipeline, Liger.

A case is {"tokens": 8192, "vocab": 128256, "dtype": "bf16", "backward": true}; protocol.py says the rest.
"""

from protocol import dtype_of, serve


def main():
    peers = [
        ("unfused", "torch", "torch", unfused),
        ("torch eager", "torch", "torch", eager),
        ("torch.compile", "torch", "torch", compiled),
        ("liger", "liger-kernel", "liger_kernel", liger),
    ]
    serve(peers, inputs)


def inputs(torch, case, generator):
    tokens, vocab = case["tokens"], case["vocab"]
    logits = torch.empty(tokens, vocab, dtype=dtype_of(torch, case), device="cuda")
    logits.normal_(0.0, 3.0, generator=generator)
    return logits, torch.randint(vocab, (tokens,), device="cuda", generator=generator)


def unfused(torch, tensors, case):
    """Each step stored: softmax, logarithm, gather, gradient; in fp32, as autograd-free code does it."""
    logits, targets = tensors
    tokens = logits.shape[0]
    rows = torch.arange(tokens, device="cuda")

    def work():
        probabilities = torch.softmax(logits.float(), dim=-1)
        log_probabilities = probabilities.log()
        loss = -log_probabilities.gather(1, targets[:, None]).mean()
        if not case["backward"]:
            return loss
        probabilities[rows, targets] -= 1.0
        return loss, (probabilities / tokens).to(logits.dtype)

    return (lambda: None), work


def autograd(tensors, case, loss_of):
    logits, targets = tensors
    leaf = logits.detach().requires_grad_(case["backward"])

    def before():
        leaf.grad = None

    def work():
        loss = loss_of(leaf, targets)
        if case["backward"]:
            loss.backward()
        return loss

    return before, work


def eager(torch, tensors, case):
    return autograd(tensors, case, torch.nn.functional.cross_entropy)


def compiled(torch, tensors, case):
    torch._dynamo.reset()
    loss_of = torch.compile(lambda x, y: torch.nn.functional.cross_entropy(x.float(), y))
    return autograd(tensors, case, loss_of)


def liger(torch, tensors, case):
    """Liger writes the gradient over the logits in its forward, so they are restored each time."""
    from liger_kernel.transformers.cross_entropy import LigerCrossEntropyLoss

    logits, targets = tensors
    loss_of = LigerCrossEntropyLoss()
    memory = torch.empty_like(logits)
    leaf = memory.requires_grad_(case["backward"])

    def before():
        leaf.grad = None
        with torch.no_grad():
            memory.copy_(logits)

    def work():
        loss = loss_of(leaf, targets)
        if case["backward"]:
            loss.backward()
        return loss

    return before, work


if __name__ == "__main__":
    main()
