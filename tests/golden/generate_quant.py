"""Golden vectors for the low-bit formats, computed by ml_dtypes and numpy.

Elements are converted by ml_dtypes, which does not saturate: values are clamped
before. Scales are those of the published recipes, written here in numpy after
their texts: OCP MX v1.0 (floor) and torchao's RCEIL for the MX formats,
NVIDIA's two-level recipe as torchao has it for NVFP4, DeepSeek-V3's block
scaling for FP8. Random words come from a Philox4x32-10 in Python's integers and
stochastic rounding from its fractions. Nothing here is shared with the library.
See README.md for the format and for how to run this.
"""

import fractions
import pathlib

import ml_dtypes
import numpy as np
import scipy.linalg

from golden import philox, text, word

F32 = np.float32

# Name: numpy's type, largest finite value, exponent of its power of two.
ELEMENTS = {
    "e4m3": (ml_dtypes.float8_e4m3fn, 448.0, 8),
    "e5m2": (ml_dtypes.float8_e5m2, 57344.0, 15),
    "e2m1": (ml_dtypes.float4_e2m1fn, 6.0, 2),
}


# --- conversions -------------------------------------------------------------


def codes_of(element, values):
  """Codes of f32 values, clamped first; NaN is kept in 8 bits and 0 in 4."""
  dtype, largest, _ = ELEMENTS[element]
  values = np.asarray(values, F32)
  with np.errstate(invalid="ignore"):
    clamped = np.clip(values, F32(-largest), F32(largest))
    codes = clamped.astype(dtype).view(np.uint8)
  nan = np.isnan(values)
  sign = np.signbit(values).astype(np.uint8)
  if element == "e2m1":
    return np.where(nan, 0, codes & 15).astype(np.uint8)
  return np.where(nan, sign << 7 | 0x7F, codes).astype(np.uint8)


def value_of(element, codes):
  dtype = ELEMENTS[element][0]
  return np.asarray(codes, np.uint8).view(dtype).astype(np.float64)


def magnitudes(element):
  count = {"e4m3": 0x7F, "e5m2": 0x7C, "e2m1": 8}[element]
  return value_of(element, np.arange(count))


def fnv1a(codes):
  """A sum of bytes in order: FNV-1a of 64 bits."""
  total = 0xCBF29CE484222325
  for code in codes.tobytes():
    total = (total ^ code) * 0x100000001B3 % 2**64
  return f"{total:016x}"


def hexadecimal(values):
  return " ".join(f"{bits:08x}" for bits in np.asarray(values, F32).view(np.uint32).ravel())


def conversions():
  lines = []
  for element in ELEMENTS:
    known = magnitudes(element)
    largest = known[-1]
    # In f64, halves of neighbours' sums are exact; in f32 too.
    inner = np.concatenate([known, (known[1:] + known[:-1]) / 2])
    outer = [largest * factor for factor in (1.02, 1.036, 1.0625, 1.07, 1.125, 1.2, 2, 1e20)]
    points = np.sort(np.concatenate([inner, outer])).astype(F32)
    points = np.unique(np.concatenate([
        points, np.nextafter(points, F32(np.inf)), np.nextafter(points, F32(-np.inf))]))
    points = points[points >= 0]
    points = np.concatenate([points, F32([1e-45, 1e-39, 1.1754944e-38, 3.4028235e38, np.inf])])
    codes = codes_of(element, points)
    assert np.array_equal(codes_of(element, -points), codes | (8 if element == "e2m1" else 128))
    lines += ["", f"inputs {element}", f"values {hexadecimal(points)}", f"codes {codes.tobytes().hex()}"]
    decoded = np.arange(16 if element == "e2m1" else 256, dtype=np.uint8)
    shown = [v if not np.isnan(v) else "NaN" for v in value_of(element, decoded)]
    lines.append("decoded " + " ".join(str(v).removesuffix(".0") for v in shown))
    # Every bf16 and every f16, as the sum of their codes in order.
    every = np.arange(2**16, dtype=np.uint16)
    for name, dtype in (("bf16", ml_dtypes.bfloat16), ("f16", np.float16)):
      lines.append(f"{name} {fnv1a(codes_of(element, every.view(dtype).astype(F32)))}")
  dtype = ml_dtypes.float8_e8m0fnu
  powers = np.arange(255, dtype=np.uint8).view(dtype).astype(np.float64)
  points = np.concatenate([powers[1:], powers[:-1] * 1.5]).astype(F32)
  points = np.concatenate([points, np.nextafter(points, F32(0)), np.nextafter(points, F32(np.inf))])
  points = np.sort(points[np.isfinite(points)])
  points = points[(points <= 2.0**127) & (points >= 2.0**-126)]
  codes = points.astype(dtype).view(np.uint8)
  lines += ["", "inputs e8m0", f"values {hexadecimal(points)}", f"codes {codes.tobytes().hex()}",
            "decoded " + " ".join([repr(float(p)).removesuffix(".0") for p in powers] + ["NaN"])]
  return lines


# --- random words ------------------------------------------------------------


def stochastic(element, u, random):
  """The neighbour above |u| if the word exceeds what is missing to it, in exact fractions."""
  known = [fractions.Fraction(value) for value in magnitudes(element)]
  size = fractions.Fraction(abs(float(u)))
  sign = (8 if element == "e2m1" else 128) if np.signbit(u) else 0
  if size >= known[-1]:
    return sign | len(known) - 1
  below = max(code for code, value in enumerate(known) if value <= size)
  part = (size - known[below]) / (known[below + 1] - known[below])
  up = int(part * 2**32) + random >= 2**32
  return sign | below + int(up)


# --- scales ------------------------------------------------------------------


def finite_amax(block):
  block = np.abs(np.asarray(block, F32))
  return F32(max(block[np.isfinite(block)], default=0))


def exact(amax, largest):
  return F32(amax / F32(largest)) if amax > 0 else F32(1)


def ceil_power(amax, largest):
  """2^ceil(log2(amax / largest)); the quotient in f64 is exact enough to tell 1 from above 1."""
  if amax == 0:
    return 0
  mantissa, exponent = np.frexp(np.float64(amax))
  largest_mantissa, largest_exponent = np.frexp(np.float64(largest))
  above = fractions.Fraction(mantissa) > fractions.Fraction(largest_mantissa)
  return int(np.clip(exponent - largest_exponent + int(above), -127, 127))


def floor_power(amax, emax):
  """OCP MX v1.0, 6.3: the power of two at or below amax, less the element's."""
  if amax == 0:
    return 0
  return int(np.clip(np.floor(np.log2(np.float64(amax))) - emax, -127, 127))


# --- formats -----------------------------------------------------------------


class Options:

  def __init__(self, fmt, transposed=False, power_of_two=False, ceil=False, seed=None, offset=0, rotation=None,
               given=None, layout="row-major", groups=None):
    self.fmt, self.transposed, self.power_of_two, self.ceil = fmt, transposed, power_of_two, ceil
    self.seed, self.offset, self.rotation, self.given = seed, offset, rotation, given
    self.layout, self.groups = layout, groups
    kind, _, element = fmt.partition(":")
    self.kind, self.element = kind, element or "e2m1"

  def lines(self):
    out = [f"format {self.fmt}"]
    out += ["direction transposed"] if self.transposed else []
    out += ["power_of_two yes"] if self.power_of_two else []
    out += ["scale_rounding ceil"] if self.ceil else []
    out += [f"rounding stochastic:{self.seed}", f"offset {self.offset}"] if self.seed is not None else []
    out += [f"rotation hadamard:{self.rotation[0]}:{self.rotation[1]}"] if self.rotation else []
    out += [f"given {hexadecimal([self.given])}"] if self.given else []
    out += [f"layout {self.layout}"] if self.layout != "row-major" else []
    out += [f"groups {' '.join(map(str, self.groups))}"] if self.groups else []
    return out


BLOCKS = {"fp8-1x128": (1, 128), "fp8-128x128": (128, 128), "mxfp8": (1, 32), "mxfp4": (1, 32), "nvfp4": (1, 16),
          "nvfp4-16x16": (16, 16)}


def rotate(x, n, seed):
  """Exact where sums are: then one rounding, that of the last multiplication."""
  signs = [bit for one in philox([0] * 4, [seed % 2**32, seed >> 32]) for bit in (one >> i & 1 for i in range(32))]
  flip = 1.0 - 2.0 * np.float64(signs[:n])
  blocks = x.astype(np.float64).reshape(x.shape[0], -1, n) * flip
  sums = blocks @ scipy.linalg.hadamard(n).astype(np.float64)
  assert np.array_equal(sums, sums.astype(F32))
  return (sums.astype(F32) * F32(1 / np.sqrt(np.float64(n)))).reshape(x.shape)


def quantize_matrix(x, index, options):
  """Codes one by one, scales [outer, blocks], the tensor's scale, amax, counts."""
  if options.transposed:
    x, index = x.T, index.T
  x = np.ascontiguousarray(x)
  if options.rotation:
    x = rotate(x, *options.rotation)
  outer, inner = x.shape
  dtype, largest, emax = ELEMENTS[options.element]
  high, wide = BLOCKS.get(options.kind, (1, inner))
  amax = finite_amax(x)
  tensor_scale = None
  if options.kind == "fp8-tensor":
    tensor_scale = exact(amax, largest)
    if options.power_of_two:
      tensor_scale = F32(2.0 ** ceil_power(amax, largest))
  elif options.kind.startswith("nvfp4"):
    tensor_scale = exact(amax, 6 * 448)
  if options.given:
    tensor_scale = F32(options.given)

  scales = np.zeros((-(-outer // high), -(-inner // wide)), np.uint32)
  codes = np.zeros(x.shape, np.uint8)
  saturated = underflowed = 0
  for i in range(scales.shape[0]):
    for j in range(scales.shape[1]):
      at = np.s_[i * high:(i + 1) * high, j * wide:(j + 1) * wide]
      block, indices = x[at], index[at]
      block_amax = finite_amax(block)
      finite = options.element != "e2m1" or bool(np.isfinite(block).all())
      if options.kind == "fp8-tensor":
        stored, divisor = 0, tensor_scale
      elif options.kind.startswith("fp8"):
        divisor = F32(2.0 ** ceil_power(block_amax, largest)) if options.power_of_two else exact(block_amax, largest)
        stored = int(divisor.view(np.uint32))
      elif options.kind.startswith("mx"):
        power = ceil_power(block_amax, largest) if options.ceil else floor_power(block_amax, emax)
        stored, divisor = power + 127 if finite else 0xFF, F32(2.0**power)
      else:
        ratio = F32(F32(block_amax / F32(6)) / tensor_scale)
        stored = int(codes_of("e4m3", [ratio])[0]) if finite else 0x7F
        divisor = F32(F32(value_of("e4m3", [stored])[0]) * tensor_scale)
      scales[i, j] = stored
      if not finite or divisor == 0:
        underflowed += int(finite) * int((block != 0).sum())
        continue
      with np.errstate(over="ignore"):
        u = (block / divisor).astype(F32)
      saturated += int((np.abs(u) > largest).sum())
      if options.seed is None:
        codes[at] = codes_of(options.element, u)
      else:
        words = [word(options.seed, options.offset, int(e)) for e in indices.ravel()]
        of = [stochastic(options.element, value, random) for value, random in zip(u.ravel(), words)]
        codes[at] = np.uint8(of).reshape(u.shape)
      zero = codes[at] & (7 if options.element == "e2m1" else 127) == 0
      underflowed += int((zero & (block != 0)).sum())
  if options.kind == "nvfp4-16x16":
    scales = np.repeat(scales, 16, axis=0)[:outer]
  return codes, scales, tensor_scale, amax, (saturated, underflowed)


def laid_out(scales, layout):
  """[outer, blocks] in the order of memory."""
  if layout == "column-major":
    return scales.T.ravel()
  if layout == "row-major":
    return scales.ravel()
  # Tiles of 128 x 4: 32 rows of 16, of which each has four scales of rows 32 apart.
  rows, blocks = scales.shape
  padded = np.pad(scales, ((0, -rows % 128), (0, -blocks % 4)))
  tiles = padded.reshape(padded.shape[0] // 128, 4, 32, padded.shape[1] // 4, 4)
  return tiles.transpose(0, 3, 2, 1, 4).ravel()


def quantize(x, options):
  rows, columns = x.shape
  index = np.arange(rows * columns).reshape(rows, columns)
  # Groups of rows are matrices of their own: their results lie one after the other along the input's rows. The sizes
  # are such that every slot of a block has one.
  ends = np.cumsum(options.groups or [rows])
  parts = [
      quantize_matrix(x[end - size:end], index[end - size:end], options)
      for size, end in zip(options.groups or [rows], ends)
  ]
  along = 1 if options.transposed else 0
  codes, scales = (np.concatenate([part[at] for part in parts], axis=along) for at in (0, 1))
  tensor_scales, amaxes = ([part[at] for part in parts] for at in (2, 3))
  saturated, underflowed = np.sum([part[4] for part in parts], axis=0)
  if options.element == "e2m1":
    padded = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    codes = padded[:, 0::2] | padded[:, 1::2] << 4

  lines = options.lines()
  scales = laid_out(scales, options.layout)
  lines.append(f"data {codes.tobytes().hex()}")
  if options.kind.startswith("fp8-") and options.kind != "fp8-tensor":
    lines.append("scales " + " ".join(f"{scale:08x}" for scale in scales))
  elif options.kind != "fp8-tensor":
    lines.append(f"scales {scales.astype(np.uint8).tobytes().hex()}")
  if tensor_scales[0] is not None:
    lines.append(f"tensor_scale {hexadecimal(tensor_scales)}")
  lines += [f"amax {hexadecimal(amaxes)}", f"counts {saturated} {underflowed}"]
  return lines


# --- inputs ------------------------------------------------------------------


def bf16(values):
  return np.asarray(values, F32).astype(ml_dtypes.bfloat16).astype(F32)


def make_inputs():
  rng = np.random.default_rng(20250704)
  normal = lambda rows, columns: rng.normal(size=(rows, columns))
  spread = lambda rows, columns: normal(rows, columns) * 2.0 ** rng.integers(-12, 6, size=(rows, columns))
  special = spread(5, 48)
  special[0] = 0
  special[1, 3], special[1, 40], special[2, 17], special[3, 0] = np.nan, -0.0, np.inf, -np.inf
  special[4] *= 1e-38
  sizes = normal(12, 32) * 2.0 ** np.linspace(-128, 119, 12)[:, None]
  return {
      "small": ("bf16 f32", bf16(spread(3, 40))),
      "square": ("bf16 f32", bf16(normal(18, 132) * np.float64([[1], [40]] * 9))),
      "special": ("bf16 f32", bf16(special)),
      "sizes": ("f32", F32(sizes)),
      "integers": ("bf16 f16 f32", F32(rng.integers(-60, 61, size=(32, 128)))),
      "groups": ("bf16 f32", bf16(normal(30, 36) * np.repeat([[1.0], [30.0], [0.02]], GROUPS, axis=0))),
  }


# Rows of each group. They begin at even rows, as 4-bit elements along rows need.
GROUPS = [6, 4, 20]
FORMATS = ["fp8-tensor", "fp8-row", "fp8-1x128", "fp8-128x128", "mxfp8"]


def formats(elements=("e4m3", "e5m2")):
  return [f"{name}:{element}" for name in FORMATS for element in elements] + ["mxfp4", "nvfp4", "nvfp4-16x16"]


def cases(name):
  both = (False, True)
  if name == "integers":
    for fmt in ("mxfp8:e4m3", "mxfp4", "nvfp4", "fp8-1x128:e4m3"):
      yield Options(fmt, rotation=(16, 7))
      yield Options(fmt, transposed=True, rotation=(32, 2**40 + 5))
      yield Options(fmt, rotation=(128, 12345))
    for transposed in both:
      yield Options("nvfp4-16x16", transposed, rotation=(16, 99))
      yield Options("nvfp4-16x16", transposed, rotation=(32, 3))
    return
  if name == "groups":
    for fmt in formats(("e4m3",)):
      for transposed in both:
        yield Options(fmt, transposed, groups=GROUPS)
        yield Options(fmt, transposed, groups=GROUPS, seed=77, offset=5)
    return
  if name == "special":
    # ml_dtypes has no case for NaN in a stochastic rounding, so that all of these are nearest.
    for fmt in formats():
      yield Options(fmt)
    return
  for fmt in formats(("e4m3",) if name == "square" else ("e4m3", "e5m2")):
    for transposed in both:
      yield Options(fmt, transposed)
    if name == "square":
      if not fmt.startswith(("fp8-tensor", "fp8-row")):
        for transposed in both:
          yield Options(fmt, transposed, layout="column-major")
          if not fmt.startswith("fp8"):
            yield Options(fmt, transposed, layout="tiled-128x4")
      continue
    if fmt.startswith("fp8"):
      yield Options(fmt, power_of_two=True)
    if fmt.startswith("mx"):
      yield Options(fmt, ceil=True)
    if name == "small":
      for transposed in both:
        yield Options(fmt, transposed, seed=2**33 + 1, offset=2**34 + 3)
      if fmt.startswith(("fp8-tensor", "nvfp4")):
        yield Options(fmt, given=0.37)


def written(x):
  return " ".join({"nan": "NaN"}.get(str(v), str(v)).removesuffix(".0") for v in x.ravel())


def main():
  lines = ["# Made by generate_quant.py; see README.md."] + conversions()
  for name, (types, x) in make_inputs().items():
    lines += ["", f"inputs {name}", f"types {types}", f"shape {text(x.shape)}", f"x {written(x)}"]
    for options in cases(name):
      lines += ["", f"case {name}"] + quantize(x, options)
  path = pathlib.Path(__file__).with_name("quant.txt")
  path.write_text("\n".join(lines) + "\n")


main()
