"""Golden vectors for the row operations, computed by JAX in float64.

Operations are written in the framework's own functions (mean, var, softmax,
log_softmax, tanh, std; complex products for rotations; numpy's singular value
decomposition) and every gradient comes from its automatic differentiation.
Nothing here is shared with the library. See README.md for the format and for
how to run this.
"""

import jax

jax.config.update("jax_enable_x64", True)

import pathlib

import jax.numpy as jnp
import numpy as np

from golden import f32, text

# Far below every score, yet finite: exp() of it is 0 and no inf - inf arises.
NEVER = -1e300


# --- inputs ------------------------------------------------------------------


def grid(rng, *shape, spread=2.0):
  """Multiples of 1/8 below 8: exact in bf16, f16 and f32, as is a sum of two."""
  steps = np.rint(rng.normal(size=shape) * spread * 8)
  return np.float32(np.clip(steps, -63, 63) / 8)


def make_inputs():
  rng = np.random.default_rng(20250311)
  inputs = {}

  def rows(name, tokens, columns, x=None, types="bf16 f16 f32"):
    inputs[name] = dict(
        types=types,
        shape=[tokens, 1, columns],
        x=grid(rng, tokens, columns) if x is None else np.float32(x),
        residual=grid(rng, tokens, columns),
        dy=grid(rng, tokens, columns),
        dstream=grid(rng, tokens, columns),
        gamma=grid(rng, columns, spread=0.6),
        beta=grid(rng, columns, spread=0.6),
        dentropy=grid(rng, tokens),
    )

  rows("few", 4, 7)
  rows("one", 3, 1)
  rows("wide", 3, 201)
  zeros = grid(rng, 3, 6)
  zeros[1] = 0
  rows("zeros", 3, 6, zeros)
  # bf16 around 1e4 comes in steps of 64.
  offset = 9984 + 64 * rng.integers(-2, 3, size=(3, 40))
  offset[1] = 9984
  rows("offset", 3, 40, offset, types="bf16 f32")
  rows("blocks", 12, 6)
  rows("keys", 6, 70)

  for name, tokens, heads, dim in (("heads", 3, 2, 8), ("more", 5, 3, 16)):
    angles = rng.uniform(0, 6.2, size=(9, dim // 2))
    inputs[name] = dict(
        types="bf16 f16 f32",
        shape=[tokens, heads, dim],
        x=grid(rng, tokens, heads, dim),
        dy=grid(rng, tokens, heads, dim),
        gamma=grid(rng, heads, dim, spread=0.6),
        beta=grid(rng, heads, dim, spread=0.6),
        cos=np.float32(np.cos(angles)),
        sin=np.float32(np.sin(angles)),
        positions=rng.integers(0, 9, size=tokens),
    )

  for name, batch, m, n in (("wide-weights", 2, 3, 5), ("tall-weights", 1, 9, 4)):
    inputs[name] = dict(
        types="bf16 f16 f32",
        shape=[batch, m, n],
        x=grid(rng, batch, m, n),
        dy=grid(rng, batch, m, n),
        gamma=grid(rng, batch),
        u=np.float32(rng.normal(size=(batch, n))),
    )
  return inputs


# --- the operations ----------------------------------------------------------
# Each gives the results that are compared, by name.


def normalized(x, kind, eps):
  """The rows without weights, and their statistics."""
  if kind == "rms":
    mean = jnp.zeros(x.shape[:-1])
    spread = jnp.mean(x**2, axis=-1)
  else:
    mean = jnp.mean(x, axis=-1)
    spread = jnp.var(x, axis=-1)
  rstd = jax.lax.rsqrt(spread + eps)
  return (x - mean[..., None]) * rstd[..., None], mean, rstd


def weighted(h, gamma, beta, offset):
  if gamma is not None:
    h = h * (gamma + offset)
  return h if beta is None else h + beta


def norm_options(option):
  kind, eps, *rest = option.split(":")
  return kind, f32(float(eps)), 1.0 if rest else 0.0


def given(tensors, case):
  """The named tensors that the case uses, in float64; None for the others."""
  used = case.get("with", "").split()
  return lambda name: (jnp.asarray(tensors[name], jnp.float64)
                       if name in used else None)


def gradients(function, arguments):
  """Of a scalar function of tensors by name, some of which are None."""
  present = {key: value for key, value in arguments.items() if value is not None}
  absent = dict.fromkeys(arguments.keys() - present.keys())
  of = jax.grad(lambda present: function(**present, **absent))(present)
  return {"d" + key: value for key, value in of.items()}


def norm(tensors, case):
  kind, eps, offset = norm_options(case["norm"])
  use = given(tensors, case)
  x, dy = jnp.asarray(tensors["x"], jnp.float64), tensors["dy"]
  residual, dstream = use("residual"), use("dstream")
  stream = x if residual is None else x + residual

  def results(x, gamma, beta):
    h, mean, rstd = normalized(x, kind, eps)
    return dict(y=weighted(h, gamma, beta, offset), mean=mean, rstd=rstd)

  def scalar(x, gamma, beta):
    loss = jnp.sum(dy * results(x, gamma, beta)["y"])
    return loss if dstream is None else loss + jnp.sum(dstream * x)

  arguments = dict(x=stream, gamma=use("gamma"), beta=use("beta"))
  out = results(**arguments)
  if residual is not None:
    out["stream"] = stream
  return out | gradients(scalar, arguments)


def gated(tensors, case):
  kind, eps, offset = norm_options(case["norm"])
  use = given(tensors, case)
  result = lambda x, z, gamma, beta: jax.nn.silu(z) * weighted(
      normalized(x, kind, eps)[0], gamma, beta, offset)
  arguments = dict(
      x=jnp.asarray(tensors["x"], jnp.float64),
      z=jnp.asarray(tensors["residual"], jnp.float64),
      gamma=use("gamma"), beta=use("beta"))
  scalar = lambda **arguments: jnp.sum(tensors["dy"] * result(**arguments))
  return dict(y=result(**arguments)) | gradients(scalar, arguments)


def turned(x, tensors, pairing, width):
  """Heads turned as complex numbers."""
  pairs = width // 2
  # The tables' columns are those of this width: the first `positions x pairs`.
  table = lambda name: tensors[name].ravel()[: 9 * pairs].reshape(9, pairs)
  turn = (table("cos") + 1j * table("sin").astype(np.float64))
  turn = turn[tensors["positions"]][:, None, :]
  head, rest = x[..., :width], x[..., width:]
  if pairing == "interleaved":
    z = (head[..., ::2] + 1j * head[..., 1::2]) * turn
    head = jnp.stack([z.real, z.imag], axis=-1).reshape(head.shape)
  else:
    z = (head[..., :pairs] + 1j * head[..., pairs:]) * turn
    head = jnp.concatenate([z.real, z.imag], axis=-1)
  return jnp.concatenate([head, rest], axis=-1)


def heads(tensors, case):
  use = given(tensors, case)
  x, dy = jnp.asarray(tensors["x"], jnp.float64), tensors["dy"]
  gamma, beta = use("gamma"), use("beta")
  if "shared" in case:  # [D] for all heads
    gamma, beta = (w if w is None else w[0] for w in (gamma, beta))

  def result(x, gamma, beta):
    y = x
    if "norm" in case:
      kind, eps, offset = norm_options(case["norm"])
      y = weighted(normalized(x, kind, eps)[0], gamma, beta, offset)
    if "rotary" in case:
      pairing, width = case["rotary"].split()
      y = turned(y, tensors, pairing, int(width))
    return y

  arguments = dict(x=x, gamma=gamma, beta=beta)
  scalar = lambda **arguments: jnp.sum(dy * result(**arguments))
  return dict(y=result(**arguments)) | gradients(scalar, arguments)


def dyt(tensors, case):
  use = given(tensors, case)
  result = lambda x, alpha, gamma, beta: weighted(
      jnp.tanh(alpha * x), gamma, beta, 0.0)
  arguments = dict(
      x=jnp.asarray(tensors["x"], jnp.float64),
      alpha=jnp.float64(f32(case["alpha"])),
      gamma=use("gamma"), beta=use("beta"))
  scalar = lambda **arguments: jnp.sum(tensors["dy"] * result(**arguments))
  return dict(y=result(**arguments)) | gradients(scalar, arguments)


def sdd(tensors, case):
  alpha = jnp.asarray(tensors["gamma"], jnp.float64)
  alpha = alpha[:1] if "scalar" in case else alpha
  result = lambda x, alpha: alpha * normalized(x, "rms", f32(1e-6))[0]
  arguments = dict(x=jnp.asarray(tensors["x"], jnp.float64), alpha=alpha)
  scalar = lambda **arguments: jnp.sum(tensors["dy"] * result(**arguments))
  return dict(y=result(**arguments)) | gradients(scalar, arguments)


def softmax(tensors, case):
  x = jnp.asarray(tensors["x"], jnp.float64)
  rows, keys = x.shape
  queries = case.get("queries", rows)
  query, key = np.arange(rows)[:, None] % queries, np.arange(keys)[None, :]
  seen = np.ones((rows, keys), bool)
  if "causal" in case:
    offset = case["causal"].removeprefix("causal:")
    offset = keys - queries if offset == "end" else int(offset)
    seen &= key <= query + offset
  if "lengths" in case:
    lengths = np.array(case["lengths"].split(), int)
    seen &= key < np.repeat(lengths, rows // len(lengths))[:, None]

  def log_shares(x):
    z = f32(case.get("scale", 1.0)) * x
    if case["kind"] == "stablemax":
      s = jnp.where(z >= 0, z + 1, 1 / (1 - jnp.minimum(z, 0)))
      s = jnp.where(seen, s, 0.0)
      sums = jnp.sum(s, axis=-1)
      safe = jnp.where(sums == 0, 1.0, sums)[:, None]
      return jnp.log(jnp.where(seen, s / safe, 1.0)), sums
    z = jnp.where(seen, z, NEVER)
    return jax.nn.log_softmax(z, axis=-1), jax.nn.logsumexp(z, axis=-1)

  def results(x):
    log_p, normalizer = log_shares(x)
    log_p = jnp.where(seen, log_p, 0.0)
    p = jnp.where(seen, jnp.exp(log_p), 0.0)
    if case["kind"] == "softmax":
      z = jnp.where(seen, f32(case.get("scale", 1.0)) * x, NEVER)
      p = jnp.where(seen, jax.nn.softmax(z, axis=-1), 0.0)
    y = log_p if case["kind"] == "log-softmax" else p
    return y, -jnp.sum(p * log_p, axis=-1), normalizer

  def scalar(x):
    y, entropy, _ = results(x)
    loss = jnp.sum(jnp.where(seen, tensors["dy"] * y, 0.0))
    if "dentropy" in case.get("with", ""):
      loss += jnp.sum(tensors["dentropy"] * entropy)
    return loss

  y, entropy, normalizer = results(x)
  if case["kind"] == "log-softmax":
    y = jnp.where(seen, y, -jnp.inf)
  if case["kind"] != "stablemax":
    normalizer = jnp.where(seen.any(axis=-1), normalizer, -jnp.inf)
  return dict(y=y, entropy=entropy, normalizer=normalizer, dx=jax.grad(scalar)(x))


def spectral(tensors, case):
  w = jnp.asarray(tensors["x"], jnp.float64)
  gamma = given(tensors, case)("gamma")
  u = jnp.asarray(tensors["u"], jnp.float64)
  v = jnp.zeros(w.shape[:2])
  unit = lambda vectors: vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
  for _ in range(case["steps"]):
    v = unit(jnp.einsum("kmn,kn->km", w, u))
    u = unit(jnp.einsum("kmn,km->kn", w, v))

  def sigma(w):
    if case["steps"] > 100:
      # Converged: the singular value itself, and its own derivative.
      return jnp.linalg.svd(w, compute_uv=False)[:, 0]
    return jnp.einsum("km,kmn,kn->k", v, w, u)

  def scaled(x, gamma):
    factor = 1.0 if gamma is None else gamma
    return (factor / sigma(x))[:, None, None] * x

  arguments = dict(x=w, gamma=gamma)
  scalar = lambda **arguments: jnp.sum(tensors["dy"] * scaled(**arguments))
  sigmas = sigma(w)
  if case["steps"] > 100:
    exact = np.linalg.svd(np.asarray(w), compute_uv=False)[:, 0]
    assert np.allclose(exact, sigmas, rtol=1e-14)
    sigmas = exact
  return (dict(y=scaled(**arguments), sigma=sigmas, u=u, v=v)
          | gradients(scalar, arguments))


def tev(tensors, case):
  deviations = jnp.std(jnp.asarray(tensors["x"], jnp.float64), axis=-1)
  return dict(deviations=deviations, tev=jnp.mean(deviations))


# --- the cases ---------------------------------------------------------------


def make_cases():
  cases = []

  def add(inputs, op, **options):
    cases.append(dict(inputs=inputs, op=op, **options))

  for kind in ("rms", "layer"):
    for offset in ("", ":zero-centred"):
      for used in ("", "gamma", "gamma beta", "beta residual",
                   "gamma residual dstream", "gamma beta dstream"):
        add("few", norm, norm=f"{kind}:1e-5{offset}", **{"with": used})
      for inputs in ("wide", "zeros", "offset", "one"):
        add(inputs, norm, norm=f"{kind}:1e-6{offset}", **{"with": "gamma beta"})
    add("few", norm, norm=f"{kind}:0.5", **{"with": "gamma"})
    add("few", norm, norm=f"{kind}:0", **{"with": "gamma"})
    add("few", gated, norm=f"{kind}:1e-5", **{"with": "gamma"})
    add("wide", gated, norm=f"{kind}:1e-6:zero-centred", **{"with": "gamma beta"})
    for used in ("", "gamma", "gamma beta"):
      add("heads", heads, norm=f"{kind}:1e-6", **{"with": used})
    for pairing in ("interleaved", "half-split"):
      add("heads", heads, norm=f"{kind}:1e-6:zero-centred",
          rotary=f"{pairing} 8", **{"with": "gamma beta"})
      add("heads", heads, norm=f"{kind}:1e-6", shared="yes",
          rotary=f"{pairing} 4", **{"with": "gamma"})
      add("more", heads, norm=f"{kind}:1e-5", shared="yes",
          rotary=f"{pairing} 10", **{"with": "gamma"})
  for pairing in ("interleaved", "half-split"):
    for width in (2, 6, 8):
      add("heads", heads, rotary=f"{pairing} {width}")

  for inputs in ("few", "wide", "one"):
    for alpha in (0.5, -1.25):
      for used in ("", "gamma", "gamma beta"):
        add(inputs, dyt, alpha=alpha, **{"with": used})
    add(inputs, sdd)
    add(inputs, sdd, scalar="yes")

  for kind in ("softmax", "log-softmax", "stablemax"):
    for inputs in ("few", "keys", "one"):
      add(inputs, softmax, kind=kind)
      add(inputs, softmax, kind=kind, scale=0.125, **{"with": "dentropy"})
    for causal in ("causal:0", "causal:-1", "causal:2", "causal:end"):
      add("blocks", softmax, kind=kind, queries=3, causal=causal)
      add("blocks", softmax, kind=kind, queries=3, causal=causal,
          lengths="5 1", scale=0.5, **{"with": "dentropy"})
    add("blocks", softmax, kind=kind, queries=3, lengths="6 0 3 99")

  for inputs in ("wide-weights", "tall-weights"):
    for steps in (1, 2, 2000):
      for used in ("", "gamma"):
        add(inputs, spectral, steps=steps, **{"with": used})

  for inputs in ("few", "wide", "zeros", "offset", "one"):
    add(inputs, tev)
  return cases


# --- the file ----------------------------------------------------------------


def write(path):
  inputs = make_inputs()
  with open(path, "w", encoding="ascii", newline="\n") as file:
    line = lambda key, value: file.write(f"{key} {value}\n")
    file.write("# Made by generate_norm.py; see README.md.\n")
    for name, tensors in inputs.items():
      line("\ninputs", name)
      for key, values in tensors.items():
        line(key, values if key == "types" else text(values))
    for case in make_cases():
      line("\ncase", case["inputs"])
      for key, value in case.items():
        if key == "op":
          line(key, value.__name__)
        elif key != "inputs" and value != "":
          line(key, value)
      file.write("results\n")
      for key, values in case["op"](inputs[case["inputs"]], case).items():
        line(key, text(values))


if __name__ == "__main__":
  write(pathlib.Path(__file__).with_name("norm.txt"))
