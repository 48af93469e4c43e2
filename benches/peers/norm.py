"""Normalizations and softmax by other software, for `evenkeel bench`: PyTorch eager, torch.compile, Liger, quack.

A case is {"operation": "rms", "pass": "backward", "tokens": 16384, "width": 8192, "dtype": "bf16"}, for "qk-norm" and
"qk-norm rotary" with "heads" too and the length of a head as its width; protocol.py says the rest.

A forward is that of a training step: its weights want gradients, so that it saves what its backward needs. A backward
is timed alone, from the graph that an untimed forward made for it, and gives dx and the gradients of the weights.
"""

from protocol import NotOffered, dtype_of, serve

EPS = {"rms": 1e-6, "layer": 1e-5, "qk-norm": 1e-6, "qk-norm rotary": 1e-6}


def main():
    peers = [
        ("torch eager", "torch", "torch", eager),
        ("torch.compile", "torch", "torch", compiled),
        ("liger", "liger-kernel", "liger_kernel", liger),
        ("quack", "quack-kernels", "quack", quack),
    ]
    serve(peers, inputs)


def inputs(torch, case, generator):
    """The tensors by name: x, dy, and what the operation has beside them."""
    dtype, width, operation = dtype_of(torch, case), case["width"], case["operation"]
    shape = [case["tokens"], case["heads"], width] if "heads" in case else [case["tokens"], width]

    def random(*shape):
        return torch.empty(*shape, dtype=dtype, device="cuda").normal_(generator=generator)

    tensors = {"x": random(*shape).requires_grad_()}
    if operation != "softmax":
        tensors["gamma"] = random(width).requires_grad_()
    if operation == "layer":
        tensors["beta"] = random(width).requires_grad_()
    if operation == "qk-norm rotary":
        # As models have them: both halves of a head at their own place, for all heads.
        for name in ["cos", "sin"]:
            half = random(case["tokens"], 1, width // 2)
            tensors[name] = torch.cat([half, half], dim=-1)
    if case["pass"] == "forward with residual":
        tensors["residual"] = random(*shape).requires_grad_()
    if case["pass"] == "backward":
        tensors["dy"] = random(*shape)
    return tensors


def timed(torch, tensors, case, forward):
    """What is done before a repetition, and what is timed; `forward` takes the tensors."""
    if case["pass"] != "backward":
        return (lambda: None), (lambda: forward(tensors))
    graph = {}
    leaves = [tensor for tensor in tensors.values() if tensor.requires_grad]

    def before():
        graph["y"] = forward(tensors)

    def work():
        return torch.autograd.grad(graph.pop("y"), leaves, tensors["dy"])

    return before, work


def by_torch(torch, case):
    operation, shape, functional = case["operation"], (case["width"],), torch.nn.functional

    def forward(tensors):
        x = tensors["x"]
        if operation == "softmax":
            return torch.softmax(x, dim=-1)
        if operation == "layer":
            return functional.layer_norm(x, shape, tensors["gamma"], tensors["beta"], EPS[operation])
        if "residual" in tensors:
            x = x + tensors["residual"]
        y = functional.rms_norm(x, shape, tensors["gamma"], EPS[operation])
        if operation == "qk-norm rotary":
            a, b = y.chunk(2, dim=-1)
            y = y * tensors["cos"] + torch.cat([-b, a], dim=-1) * tensors["sin"]
        return (y, x) if "residual" in tensors else y

    return forward


def eager(torch, tensors, case):
    return timed(torch, tensors, case, by_torch(torch, case))


def compiled(torch, tensors, case):
    torch._dynamo.reset()
    return timed(torch, tensors, case, torch.compile(by_torch(torch, case), dynamic=False))


def liger(torch, tensors, case):
    from liger_kernel.ops.fused_add_rms_norm import LigerFusedAddRMSNormFunction
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction
    from liger_kernel.ops.softmax import LigerSoftmaxFunction

    operation = case["operation"]
    if operation == "qk-norm rotary":
        raise NotOffered
    # Offset 0, casts as Llama does, dx apart from dy: dy must be the same in every repetition.
    options = [] if operation == "softmax" else [EPS[operation], 0.0, "llama", False]

    def forward(tensors):
        x = tensors["x"]
        if operation == "softmax":
            return LigerSoftmaxFunction.apply(x)
        if operation == "layer":
            return LigerLayerNormFunction.apply(x, tensors["gamma"], tensors["beta"], EPS[operation])
        if "residual" in tensors:
            return LigerFusedAddRMSNormFunction.apply(x, tensors["residual"], tensors["gamma"], *options)
        return LigerRMSNormFunction.apply(x, tensors["gamma"], *options)

    return timed(torch, tensors, case, forward)


def quack(torch, tensors, case):
    from quack.rmsnorm import layernorm_bwd, layernorm_fwd, rmsnorm
    from quack.softmax import softmax

    operation = case["operation"]
    if operation == "qk-norm rotary":
        raise NotOffered
    if operation == "layer":
        return quack_layer(tensors, case, layernorm_fwd, layernorm_bwd)

    def forward(tensors):
        x = tensors["x"]
        if operation == "softmax":
            return softmax(x)
        if "residual" in tensors:
            return rmsnorm(x, tensors["gamma"], residual=tensors["residual"], eps=EPS[operation], prenorm=True)
        return rmsnorm(x, tensors["gamma"], eps=EPS[operation])

    return timed(torch, tensors, case, forward)


def quack_layer(tensors, case, layernorm_fwd, layernorm_bwd):
    """quack's LayerNorm has no autograd function, and takes its weights in fp32."""
    x, dy = tensors["x"].detach(), tensors.get("dy")
    gamma, beta = (tensors[name].detach().float() for name in ["gamma", "beta"])

    def forward():
        return layernorm_fwd(x, gamma, beta, EPS["layer"], return_rstd=True, return_mean=True)

    if dy is None:
        return (lambda: None), forward
    _, rstd, mean = forward()
    return (lambda: None), (lambda: layernorm_bwd(x, gamma, dy, rstd, mean))


if __name__ == "__main__":
    main()
