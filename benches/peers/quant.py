"""Quantisation by other software, for `evenkeel bench`: PyTorch eager, torch.compile, torchao's kernels.

A case is {"format": "mxfp8", "outputs": "both", "tokens": 16384, "width": 4096, "dtype": "bf16"}, with "stochastic" or
"rotated" (the block's size) where there is such; protocol.py says the rest. 8-bit elements are E4M3. With a "producer",
"swiglu forward" or "swiglu backward" of a layer as wide, "rms norm", "gelu forward" or "gelu backward", its result is
quantised, or with format null left as it is; with "dequantize" it is the way back, from the row-wise output to x's type.

The formulas in PyTorch are the formats': amax of blocks, scale, quotient, conversion; what is transposed is stored so.
torchao's kernels differ from each other and from these in details (a reciprocal for a division, a rounding of scales, a
layout of scales): they are what its training and inference use, Triton kernels or compiled operations.
"""

from protocol import NotOffered, dtype_of, serve

E4M3_MAX, E4M3_EXPONENT, E2M1_MAX, E2M1_EXPONENT = 448.0, 8, 6.0, 2
BLOCKS = {"fp8-1x128": 128, "mxfp8": 32, "mxfp4": 32, "nvfp4": 16}
# A tensor's scale where it is given.
GIVEN = 1 / 64
# Between neighbours of E2M1; the ties that go up are a bit lower, those that go down belong to what is below them.
E2M1_TIES = [(0.25, False), (0.75, True), (1.25, False), (1.75, True), (2.5, False), (3.5, True), (5.0, False)]


def main():
    peers = [
        ("torch eager", "torch", "torch", eager),
        ("torch.compile", "torch", "torch", compiled),
        ("torchao", "torchao", "torchao", torchao),
    ]
    serve(peers, inputs)


def inputs(torch, case, generator):
    """x, and beside it what the formulas need."""
    x = torch.empty(case["tokens"], case["width"], dtype=dtype_of(torch, case), device="cuda")
    tensors = {"x": x.normal_(generator=generator)}
    if "producer" in case:
        for name in ["up", "dy"]:
            tensors[name] = torch.empty_like(x).normal_(generator=generator)
    tensors["given"] = torch.full((), GIVEN, device="cuda")
    ties = torch.tensor([tie for tie, _ in E2M1_TIES])
    lower = torch.nextafter(ties, torch.zeros(()))
    up = torch.tensor([up for _, up in E2M1_TIES])
    tensors["ties"] = torch.where(up, lower, ties).cuda()
    if case.get("producer") == "dequantize":
        tensors["quantized"] = one_output(torch, tensors["x"], tensors, case)
        magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
        tensors["e2m1"] = torch.tensor(magnitudes + [-x for x in magnitudes], device="cuda")
    if "rotated" in case:
        tensors["rotation"] = hadamard(torch, case["rotated"], generator).to(x.dtype)
    return tensors


def hadamard(torch, n, generator):
    """Random signs, then the Hadamard matrix over sqrt(n)."""
    matrix = torch.ones(1, 1, device="cuda")
    while len(matrix) < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)], 0)
    signs = torch.randint(0, 2, (n, 1), device="cuda", generator=generator) * 2.0 - 1.0
    return signs * matrix / n**0.5


def to_e4m3(torch, u):
    return u.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def to_e2m1(torch, u, ties):
    """Two in a byte, the first in the low half."""
    codes = torch.bucketize(u.abs(), ties).to(torch.uint8) | (u < 0).to(torch.uint8) << 3
    return codes[..., 0::2] | codes[..., 1::2] << 4


def power_of_two(torch, amax, exponent):
    """2^(floor(log2 amax) - exponent), and as E8M0."""
    biased = ((amax.view(torch.int32) >> 23) - exponent).clamp(0, 254)
    return (biased.clamp(min=1) << 23).view(torch.float32), biased.to(torch.uint8)


def one_output(torch, x, tensors, case):
    """Blocks along the rows of x."""
    name, block = case["format"], BLOCKS.get(case["format"])
    if name == "fp8-tensor":
        return to_e4m3(torch, x.float() / tensors["given"]), tensors["given"]
    if name == "fp8-128x128":
        rows, columns = x.shape
        tiles = x.float().view(rows // 128, 128, columns // 128, 128)
        scale = tiles.abs().amax(dim=(1, 3), keepdim=True) / E4M3_MAX
        return to_e4m3(torch, tiles / scale).view(rows, columns), scale
    if name == "fp8-row":
        rows = x.float()
        scale = rows.abs().amax(dim=-1, keepdim=True) / E4M3_MAX
        return to_e4m3(torch, rows / scale), scale
    if name == "nvfp4-16x16":
        return nvfp4_squares(torch, x, tensors)
    if "rotated" in case:
        n = case["rotated"]
        x = (x.reshape(-1, n) @ tensors["rotation"]).view(x.shape)
    blocks = x.float().reshape(x.shape[0], -1, block)
    amax = blocks.abs().amax(dim=-1, keepdim=True)
    if name == "fp8-1x128":
        scale = amax / E4M3_MAX
        return to_e4m3(torch, blocks / scale).view(x.shape), scale
    if name == "mxfp8":
        scale, stored = power_of_two(torch, amax, E4M3_EXPONENT)
        return to_e4m3(torch, blocks / scale).view(x.shape), stored
    if name == "mxfp4":
        scale, stored = power_of_two(torch, amax, E2M1_EXPONENT)
        return to_e2m1(torch, blocks / scale, tensors["ties"]).view(x.shape[0], -1), stored
    of_tensor = amax.amax() / (E4M3_MAX * E2M1_MAX)
    stored = to_e4m3(torch, amax / E2M1_MAX / of_tensor)
    codes = to_e2m1(torch, blocks / (stored.float() * of_tensor), tensors["ties"])
    return codes.view(x.shape[0], -1), stored, of_tensor


def nvfp4_squares(torch, x, tensors):
    """Blocks of 16 x 16, whose scale each of their rows has."""
    rows, columns = x.shape
    squares = x.float().view(rows // 16, 16, columns // 16, 16)
    amax = squares.abs().amax(dim=(1, 3), keepdim=True)
    of_tensor = amax.amax() / (E4M3_MAX * E2M1_MAX)
    stored = to_e4m3(torch, amax / E2M1_MAX / of_tensor)
    codes = to_e2m1(torch, squares / (stored.float() * of_tensor), tensors["ties"])
    scales = stored.view(rows // 16, columns // 16).repeat_interleave(16, dim=0)
    return codes.view(rows, -1), scales, of_tensor


def dequantized(torch, tensors, case):
    """Element times scale; two elements of a byte are looked up."""
    name, (data, scale, *rest) = case["format"], tensors["quantized"]
    if name == "fp8-tensor":
        values = data.float() * scale
    elif name == "nvfp4":
        bytes_ = data.to(torch.int32)
        values = torch.stack([tensors["e2m1"][bytes_ & 15], tensors["e2m1"][bytes_ >> 4]], dim=-1)
        values = values.view(scale.shape[0], scale.shape[1], -1) * (scale.float() * rest[0])
    else:
        powers = (scale.to(torch.int32).clamp(min=1) << 23).view(torch.float32) if name == "mxfp8" else scale
        values = data.float().view(scale.shape[0], scale.shape[1], -1) * powers
    return values.view(tensors["x"].shape).to(tensors["x"].dtype)


def produced(torch, tensors, case):
    """What is quantised: x itself, its norm, y = silu(x) up, or the gradients of x and up side by side."""
    x = tensors["x"]
    if "producer" not in case:
        return x
    if case["producer"] == "rms norm":
        return torch.nn.functional.rms_norm(x, x.shape[-1:], eps=1e-6)
    if case["producer"] == "gelu forward":
        return torch.nn.functional.gelu(x, approximate="tanh")
    if case["producer"] == "gelu backward":
        return torch.ops.aten.gelu_backward(tensors["dy"], x, approximate="tanh")
    if case["producer"] == "swiglu forward":
        return torch.nn.functional.silu(x) * tensors["up"]
    gate, up, dy = (tensors[name].float() for name in ["x", "up", "dy"])
    sigmoid = torch.sigmoid(gate)
    dgate = dy * up * sigmoid * (1 + gate * (1 - sigmoid))
    return torch.cat([dgate, dy * gate * sigmoid], dim=-1).to(x.dtype)


def by_torch(torch, case):
    if "stochastic" in case:
        raise NotOffered

    if case.get("producer") == "dequantize":
        return lambda tensors: dequantized(torch, tensors, case)

    def quantize(tensors):
        x, out = produced(torch, tensors, case), []
        if case["format"] is None:
            return x
        if case["outputs"] != "transposed":
            out.append(one_output(torch, x, tensors, case))
        if case["outputs"] != "row-wise":
            out.append(one_output(torch, x.t().contiguous(), tensors, case))
        return out

    return quantize


def eager(torch, tensors, case):
    quantize = by_torch(torch, case)
    return (lambda: None), (lambda: quantize(tensors))


def compiled(torch, tensors, case):
    quantize = by_torch(torch, case)
    torch._dynamo.reset()
    quantize = torch.compile(quantize, dynamic=False)
    return (lambda: None), (lambda: quantize(tensors))


def torchao(torch, tensors, case):
    if "stochastic" in case or "rotated" in case or "producer" in case:
        raise NotOffered
    offered = {
        "fp8-1x128": torchao_blocks,
        "fp8-128x128": torchao_squares,
        "mxfp8": torchao_mxfp8,
        "mxfp4": torchao_mxfp4,
        "nvfp4": torchao_nvfp4,
    }
    if case["format"] not in offered:
        raise NotOffered
    row_wise, transposed = offered[case["format"]](torch)
    x = tensors["x"]
    chosen = {"row-wise": [row_wise], "transposed": [transposed], "both": [row_wise, transposed]}[case["outputs"]]
    return (lambda: None), (lambda: [one(x) for one in chosen])


def torchao_blocks(torch):
    from torchao.prototype.blockwise_fp8_training import kernels

    return kernels.triton_fp8_blockwise_act_quant_lhs, kernels.triton_fp8_blockwise_act_quant_transposed_lhs


def torchao_squares(torch):
    """Their names are of the product's operand, stored by columns: what is transposed there lies as x does."""
    from torchao.prototype.blockwise_fp8_training import kernels

    return kernels.triton_fp8_blockwise_weight_quant_transposed_rhs, kernels.triton_fp8_blockwise_weight_quant_rhs


def torchao_mxfp8(torch):
    from torchao.prototype.mx_formats import kernels

    return kernels.triton_to_mxfp8_dim0, kernels.triton_to_mxfp8_dim1


def torchao_mxfp4(torch):
    from torchao.prototype.mx_formats.mx_tensor import to_mx

    return torchao_compiled(torch, lambda x: to_mx(x, torch.float4_e2m1fn_x2, 32))


def torchao_nvfp4(torch):
    from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize, per_tensor_amax_to_scale

    return torchao_compiled(torch, lambda x: nvfp4_quantize(x, 16, per_tensor_amax_to_scale(x.abs().amax())))


def torchao_compiled(torch, quantize):
    """What torchao has as PyTorch's operations is meant to be compiled."""
    torch._dynamo.reset()
    row_wise = torch.compile(quantize, dynamic=False)
    transposed = torch.compile(lambda x: quantize(x.t().contiguous()), dynamic=False)
    return row_wise, transposed


if __name__ == "__main__":
    main()
