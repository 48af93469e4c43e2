"""Golden vectors for products of scaled operands.

Elements are decoded by ml_dtypes, products and sums are Python's fractions, so
that nothing is rounded before the end; silu and gelu are JAX's in float64.
Nothing here is shared with the library. See README.md for the format and for
how to run this.
"""

import jax

jax.config.update("jax_enable_x64", True)

import pathlib
from fractions import Fraction

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from golden import text

TYPES = {
    "bf16": ml_dtypes.bfloat16,
    "f16": np.float16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
}
BLOCKS = {"fp8-1x128": 128, "fp8-128x128": 128, "mxfp8": 32}


def element_type(name):
  return TYPES[name.split(":")[-1]]


def draw(rng, name, rows, k):
  values = rng.normal(size=(rows, k)) * (1 if name in ("bf16", "f16") else 12)
  return values.astype(element_type(name))


def slot(k, block, offsets):
  """Which scale along the contraction belongs to element k."""
  if offsets is None:
    return k // block
  for group, (start, end) in enumerate(zip(offsets, offsets[1:])):
    if start <= k < end:
      return start // block + group + (k - start) // block
  return None


def grid(name, rows, k, groups_of_k, tensor_groups):
  kind = name.split(":")[0]
  if kind in ("bf16", "f16"):
    return None
  slots = lambda block: -(-k // block) if groups_of_k == 0 else k // block + groups_of_k
  return {
      "fp8-tensor": (1, max(tensor_groups, 1)),
      "fp8-row": (rows, max(groups_of_k, 1)),
      "fp8-1x128": (rows, slots(128)),
      "fp8-128x128": (-(-rows // 128), slots(128)),
      "mxfp8": (rows, slots(32)),
  }[kind]


def draw_scales(rng, name, shape):
  if shape is None:
    return None
  if name.startswith("mxfp8"):
    return 2.0 ** rng.integers(-4, 4, size=shape)
  return np.float64(np.float32(np.exp2(rng.normal(size=shape))))


def scale_of(name, scales, row, k, group, offsets):
  """Exactly, of the element (row, k)."""
  kind = name.split(":")[0]
  if scales is None:
    return Fraction(1)
  several = scales.shape[1] > 1
  if kind == "fp8-tensor":
    return Fraction(float(scales[0, group if several else 0]))
  if kind == "fp8-row":
    return Fraction(float(scales[row, group if several else 0]))
  column = slot(k, BLOCKS[kind], offsets)
  return Fraction(float(scales[row // 128 if kind == "fp8-128x128" else row, column]))


def values(name, data, scales, group, offsets):
  """Fractions of one group's elements."""
  rows, columns = data.shape
  ks = range(columns) if offsets is None else range(offsets[group], offsets[group + 1])
  return [
      [Fraction(float(data[row, k])) * scale_of(name, scales, row, k, group, offsets) for k in ks]
      for row in range(rows)
  ]


def products(case, a, b, scales_a, scales_b):
  """Rows of the output that have values, their exact sums, and the group of each."""
  (m, n, k), (fa, fb) = case["shape"], case["formats"]
  kind, offsets = case.get("groups", (None, None))
  dot = lambda x, y: sum((p * q for p, q in zip(x, y)), Fraction(0))
  rows, sums, experts = [], [], []
  if kind == "contraction":
    for group in range(len(offsets) - 1):
      left = values(fa, a, scales_a, group, offsets)
      right = values(fb, b, scales_b, group, offsets)
      for row in range(m):
        rows.append(group * m + row)
        sums.append([dot(left[row], right[column]) for column in range(n)])
        experts.append(0)
    return rows, sums, experts
  ranges = [(0, m)] if kind is None else list(zip(offsets, offsets[1:]))
  for group, (start, end) in enumerate(ranges):
    left = values(fa, a, scales_a, group, None)
    right = values(fb, b, scales_b, group, None)
    for row in range(start, end):
      rows.append(row)
      sums.append([dot(left[row], right[group * n + column]) for column in range(n)])
      experts.append(group)
  return rows, sums, experts


def epilogue(case, rows, sums, experts, bias, c):
  n = case["shape"][1]
  alpha, beta = (Fraction(float(np.float32(case.get(key, default)))) for key, default in [("alpha", 1), ("beta", 0)])
  pre = []
  for row, line, expert in zip(rows, sums, experts):
    for column, value in enumerate(line):
      value = alpha * value
      if bias is not None:
        value += Fraction(float(bias[expert * n + column]))
      if c is not None:
        value += beta * Fraction(float(c[row, column]))
      pre.append(float(value))
  pre = np.array(pre)
  kind = case.get("activation", "none")
  if kind == "swiglu":
    pairs = jnp.asarray(pre).reshape(-1, 2)
    return pre, np.asarray(jax.nn.silu(pairs[:, 0]) * pairs[:, 1])
  if kind != "none":
    return pre, np.asarray(jax.nn.gelu(jnp.asarray(pre), approximate=kind == "gelu:tanh"))
  return pre, pre


CASES = [
    dict(shape=(5, 6, 40), formats=("bf16", "bf16")),
    dict(shape=(3, 4, 33), formats=("f16", "f16"), alpha=0.3, bias=True, c=True, beta=-0.75),
    dict(shape=(4, 3, 50), formats=("fp8-tensor:e4m3", "fp8-tensor:e5m2"), bias=True),
    dict(shape=(4, 6, 70), formats=("fp8-row:e5m2", "fp8-row:e4m3"), alpha=0.01, activation="swiglu"),
    dict(shape=(3, 5, 64), formats=("fp8-tensor:e4m3", "fp8-row:e4m3"), alpha=0.001, activation="gelu:exact"),
    dict(shape=(3, 130, 150), formats=("fp8-1x128:e4m3", "fp8-128x128:e4m3"), layout="column-major"),
    dict(shape=(4, 4, 260), formats=("fp8-1x128:e5m2", "fp8-1x128:e4m3"), c=True, beta=1.0),
    dict(shape=(4, 5, 100), formats=("mxfp8:e4m3", "mxfp8:e5m2"), alpha=0.01, activation="gelu:tanh"),
    dict(shape=(7, 4, 36), formats=("fp8-tensor:e4m3",) * 2, groups=("rows", [1, 3, 3, 6]), own=True, bias=True),
    dict(shape=(6, 3, 140), formats=("fp8-1x128:e4m3",) * 2, groups=("rows", [0, 4, 6])),
    dict(shape=(2, 3, 300), formats=("fp8-1x128:e4m3",) * 2, groups=("contraction", [10, 145, 145, 290])),
    dict(shape=(3, 2, 90), formats=("mxfp8:e4m3",) * 2, groups=("contraction", [0, 33, 70])),
    dict(shape=(3, 3, 40), formats=("fp8-row:e5m2", "fp8-row:e4m3"), groups=("contraction", [0, 9, 40]), own=True),
]


def codes(data):
  width = data.dtype.itemsize
  words = data.ravel().view({1: np.uint8, 2: np.uint16}[width])
  return "".join(f"{word:0{2 * width}x}" for word in words)


def main():
  rng = np.random.default_rng(20260131)
  lines = ["# Made by tests/golden/generate_matmul.py: see README.md.", ""]
  for number, case in enumerate(CASES):
    (m, n, k), formats = case["shape"], case["formats"]
    kind, offsets = case.get("groups", (None, None))
    groups = len(offsets) - 1 if offsets else 0
    rows_of_b = n * groups if kind == "rows" else n
    output_rows = m * groups if kind == "contraction" else m
    own = case.get("own", False)
    tensors = []
    for name, rows in zip(formats, (m, rows_of_b)):
      blocks = name.split(":")[0] in BLOCKS
      of_k = groups if kind == "contraction" and (blocks or own) else 0
      data = draw(rng, name, rows, k)
      scales = draw_scales(rng, name, grid(name, rows, k, of_k, groups if own else 0))
      tensors.append((data, scales))
    (a, scales_a), (b, scales_b) = tensors
    experts_of = groups if kind == "rows" else 1
    bias = np.float32(rng.normal(size=n * experts_of)) if case.get("bias") else None
    c = np.float32(rng.normal(size=(output_rows, n))) if case.get("c") else None
    rows, sums, experts = products(case, a, b, scales_a, scales_b)
    pre, out = epilogue(case, rows, sums, experts, bias, c)

    lines.append(f"inputs {number + 1}")
    lines.append(f"formats {' '.join(formats)}")
    lines.append(f"shape {m} {n} {k}")
    for key in ("activation", "layout"):
      if key in case:
        lines.append(f"{key} {case[key]}")
    if kind:
      lines.append(f"groups {kind} {text(offsets)}")
    if own:
      lines.append("own yes")
    for key in ("alpha", "beta"):
      if key in case:
        lines.append(f"{key} {text(np.float32(case[key]))}")
    column_major = case.get("layout") == "column-major"
    for side, name, data, scales in (("a", formats[0], a, scales_a), ("b", formats[1], b, scales_b)):
      lines.append(f"{side} {codes(data)}")
      if scales is not None:
        if column_major and name.startswith("fp8-1x128"):
          scales = scales.T
        lines.append(f"scales_{side} {text(np.float32(scales))}")
    if bias is not None:
      lines.append(f"bias {text(bias)}")
    if c is not None:
      lines.append(f"c {text(c)}")
    lines.append(f"rows {rows[0]} {rows[-1] + 1}")
    lines.append(f"pre {text(pre)}")
    lines.append(f"out {text(out)}")
    lines.append("")
  pathlib.Path(__file__).with_name("matmul.txt").write_text("\n".join(lines))


if __name__ == "__main__":
  main()
