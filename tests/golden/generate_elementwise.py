"""Golden vectors for GaussWS, straight-through gradients and delayed scaling.

GaussWS in JAX's float64: its noise from a Philox in Python's integers and the
normal distribution of scipy, the gradient of b from automatic differentiation.
ReSTE's slope is the derivative that JAX finds of sign(z) |z|^(1/o); the mask is
numpy's division of f32. Delayed scaling rolls its histories as Transformer
Engine does, in numpy. Nothing here is shared with the library. See README.md
for the format and for how to run this.
"""

import jax

jax.config.update("jax_enable_x64", True)

import math
import pathlib

import jax.numpy as jnp
import numpy as np
import scipy.stats

from golden import f32, text, word

F32 = np.float32


def grid(rng, *shape, spread=2.0):
  """Multiples of 1/8 below 16: exact in bf16, f16 and f32."""
  steps = np.rint(rng.normal(size=shape) * spread * 8)
  return F32(np.clip(steps, -127, 127) / 8)


def words(values):
  return " ".join(f"{bits:08x}" for bits in np.asarray(values, F32).view(np.uint32).ravel())


def rounded_normal(random):
  """round(N(0, 1) / 2): a sign, and 31 bits against the distribution of |N|."""
  size = random % 2**31
  reached = [size >= round(2**31 * (1 - 2 * scipy.stats.norm.sf(x))) for x in (1, 3, 5)]
  return sum(reached) * (-1 if random >= 2**31 else 1)


def gauss(rng, rows, columns, seed, offset):
  down, across = -(-rows // 32), -(-columns // 32)
  w, g = grid(rng, rows, columns), grid(rng, rows, columns, spread=1.0)
  bits = F32(np.round(rng.uniform(1, 9, size=(down, across)), 3))
  bits[0, 0] = 3
  r = np.array([
      [rounded_normal(word(seed, offset, i * columns + j)) for j in range(columns)]
      for i in range(rows)
  ])
  amax = np.array([
      [np.abs(w[32 * i:32 * i + 32, 32 * j:32 * j + 32]).max() for j in range(across)]
      for i in range(down)
  ])

  def noisy(b):
    step = jnp.asarray(amax, jnp.float64) * 2.0 ** (1 - b)
    spread = jnp.repeat(jnp.repeat(step, 32, 0), 32, 1)[:rows, :columns]
    return jnp.asarray(w, jnp.float64) + r * spread

  b = jnp.asarray(bits, jnp.float64)
  db = jax.grad(lambda b: (noisy(b) * jnp.asarray(g, jnp.float64)).sum())(b)
  return [
      "inputs gauss", f"shape {rows} {columns}", f"seed {seed}", f"offset {offset}",
      f"w {text(w)}", f"dweights {text(g)}", f"bits {text(bits)}", f"noise {text(r)}",
      f"amax {text(amax)}", f"weights {text(noisy(b))}", f"dbits {text(db)}", "",
  ]


def reste(rng, o, threshold, interval):
  threshold, interval = f32(threshold), f32(interval)
  root = lambda z: jnp.sign(z) * jnp.abs(z) ** (1 / o)
  z = np.unique(np.concatenate([
      F32(rng.normal(size=40)), F32([threshold, -threshold, interval, -interval, 0, 5, -1])]))
  z = np.concatenate([z, np.nextafter(F32([threshold, interval]), F32(9))])
  dy = grid(rng, z.size)
  slopes = []
  for value in z:
    size = abs(float(value))
    if size > threshold:
      slopes.append(0.0)
    elif size <= interval:
      slopes.append(float(root(interval)) / float(interval))
    else:
      slopes.append(float(jax.grad(root)(float(value))))
  return [
      "inputs straight_through", f"estimator reste:{o}:{text(F32(threshold))}:{text(F32(interval))}", f"x {text(z)}",
      f"dy {text(dy)}", f"dx {text(np.float64(dy) * slopes)}", "",
  ]


def saturation(rng, largest, scale):
  scale = F32(scale)
  x = F32(rng.normal(size=30)) * scale * F32(largest)
  edge = F32(largest) * scale
  for _ in range(6):
    x = np.concatenate([x, [edge, -edge]])
    edge = np.nextafter(edge, F32(np.inf))
  dy = grid(rng, x.size)
  dx = np.where(np.abs(F32(x) / scale) > F32(largest), F32(0), dy)
  return [
      "inputs straight_through", f"estimator saturation:{text(F32(largest))}", f"scale {words(scale)}",
      f"x {text(F32(x))}", f"dy {text(dy)}", f"dx {text(np.float64(dx))}", "",
  ]


def delayed(rng, length, history, margin, power_of_two):
  """Position 0 of a history is the present step's, as there; here rolled, not a ring."""
  largest = np.array([448.0, 57344.0, 2688.0])
  steps = np.abs(F32(rng.normal(size=(2 * length + 3, 3)) * 50))
  steps[1, 0] = steps[2, 1] = 0
  steps[3, 2] = np.inf
  past, scales = np.zeros((length, 3), F32), np.ones(3, F32)
  out = []
  for amax in steps:
    past = np.roll(past, 1, 0)
    past[0] = np.where(np.isfinite(amax), amax, 0)
    reduced = past.max(0) if history == "max" else past[0]
    for t in np.flatnonzero(reduced > 0):
      scale = F32(reduced[t]) / F32(largest[t] / 2.0**margin)
      if power_of_two:
        exact = float(reduced[t]) / (largest[t] / 2.0**margin)
        mantissa, exponent = math.frexp(exact)
        scale = F32(2.0 ** (exponent - 1 if mantissa == 0.5 else exponent))
      scales[t] = scale
    out.append(scales.copy())
  return [
      "inputs delayed", f"length {length}", f"history {history}", f"margin {margin}",
      f"power_of_two {int(power_of_two)}", f"amax {words(steps)}", f"scales {words(out)}", "",
  ]


def main():
  rng = np.random.default_rng(20240921)
  lines = ["# Made by generate_elementwise.py; see README.md.", ""]
  lines += gauss(rng, 5, 40, 7, 0)
  lines += gauss(rng, 33, 70, 2**63 + 5, 2**40 + 1)
  lines += gauss(rng, 40, 33, 123, 9)
  for arguments in ((1, 1.5, 0.1), (3, 1.5, 0.1), (2.5, 2, 0.01)):
    lines += reste(rng, *arguments)
  for arguments in ((448, 0.1), (57344, 1e-6), (6, 1)):
    lines += saturation(rng, *arguments)
  for arguments in ((4, "max", 0, False), (3, "most-recent", 2, False), (5, "max", -1, True)):
    lines += delayed(rng, *arguments)
  path = pathlib.Path(__file__).parent / "elementwise.txt"
  path.write_text("\n".join(lines))


main()
