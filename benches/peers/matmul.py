"""Products by other software, for `evenkeel bench`: PyTorch (cuBLAS and cuBLASLt), DeepGEMM.

A case is {"variant": "fp8-row fast", "m": 4096, "n": 7168, "k": 2048}: A [m, k] times B [n, k] transposed into bf16, of
normally distributed values that were quantised before; protocol.py says the rest. The bf16 product stands beside every
one. With "layer" it is a linear layer in bf16, forward and both gradients.

FP8 products of PyTorch are cuBLASLt's by torch._scaled_mm: "fast" is its use_fast_accum, the others promote partial sums
as the library here does. DeepGEMM takes scales of 1 x 128 and 128 x 128.
"""

from protocol import NotOffered, serve

E4M3_MAX = 448.0


def main():
    peers = [
        ("torch bf16", "torch", "torch", bf16),
        ("cuBLASLt FP8", "torch", "torch", scaled),
        ("DeepGEMM", "deep_gemm", "deep_gemm", deep_gemm),
    ]
    serve(peers, inputs)


def inputs(torch, case, generator):
    def normal(rows, columns):
        tensor = torch.empty(rows, columns, dtype=torch.bfloat16, device="cuda")
        return tensor.normal_(generator=generator)

    m, n, k = case["m"], case["n"], case["k"]
    tensors = {"a": normal(m, k), "b": normal(n, k)}
    if "layer" in case:
        tensors["dy"] = normal(m, n)
    return tensors


def nothing():
    pass


def bf16(torch, tensors, case):
    a, b = tensors["a"], tensors["b"]
    if "layer" in case:
        dy = tensors["dy"]
        dw = torch.zeros(b.shape, dtype=torch.float32, device="cuda")

        def layer():
            y = a @ b.t()
            dx = dy @ b
            dw.add_(dy.t() @ a)
            return y, dx

        return nothing, layer
    out = torch.empty(a.shape[0], b.shape[0], dtype=torch.bfloat16, device="cuda")
    return nothing, lambda: torch.mm(a, b.t(), out=out)


def quantized(torch, x, by_row):
    amax = x.float().abs().amax(dim=1, keepdim=True) if by_row else x.float().abs().amax()
    scale = amax / E4M3_MAX
    return (x.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale


def scaled(torch, tensors, case):
    variant = case.get("variant", "")
    if not variant.startswith(("fp8-tensor", "fp8-row")):
        raise NotOffered
    by_row = variant.startswith("fp8-row")
    a, scale_a = quantized(torch, tensors["a"], by_row)
    b, scale_b = quantized(torch, tensors["b"], by_row)
    if by_row:
        scale_b = scale_b.t()
    fast = variant.endswith("fast")

    def product():
        return torch._scaled_mm(
            a, b.t(), scale_a=scale_a, scale_b=scale_b, out_dtype=torch.bfloat16, use_fast_accum=fast
        )

    return nothing, product


def deep_gemm(torch, tensors, case):
    if case.get("variant") != "fp8-1x128 x 128x128":
        raise NotOffered
    import deep_gemm as library

    a, b = tensors["a"], tensors["b"]
    m, k = a.shape
    n = b.shape[0]
    if n % 128 or k % 128:
        raise NotOffered
    blocks = a.float().view(m, k // 128, 128)
    scale_a = blocks.abs().amax(dim=2) / E4M3_MAX
    a = (blocks / scale_a[..., None]).view(m, k).to(torch.float8_e4m3fn)
    tiles = b.float().view(n // 128, 128, k // 128, 128)
    scale_b = tiles.abs().amax(dim=(1, 3)) / E4M3_MAX
    b = (tiles / scale_b[:, None, :, None]).view(n, k).to(torch.float8_e4m3fn)
    out = torch.empty(m, n, dtype=torch.bfloat16, device="cuda")
    if hasattr(library, "get_mn_major_tma_aligned_tensor"):
        scale_a = library.get_mn_major_tma_aligned_tensor(scale_a)
    elif hasattr(library, "get_col_major_tma_aligned_tensor"):
        scale_a = library.get_col_major_tma_aligned_tensor(scale_a)
    if hasattr(library, "fp8_gemm_nt"):
        return nothing, lambda: library.fp8_gemm_nt((a, scale_a), (b, scale_b), out)
    return nothing, lambda: library.gemm_fp8_fp8_bf16_nt((a, scale_a), (b, scale_b), out)


if __name__ == "__main__":
    main()
