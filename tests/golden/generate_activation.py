"""Golden vectors for the activations, computed by JAX in float64.

Values are the framework's own silu and gelu; every gradient comes from its
automatic differentiation, Smooth-SwiGLU's through the scale as well: what
follows the activation multiplies with the scale, and nothing stops the
gradient of either. Nothing here is shared with the library. See README.md for
the format and for how to run this.
"""

import jax

jax.config.update("jax_enable_x64", True)

import pathlib

import jax.numpy as jnp
import numpy as np

from golden import text


def grid(rng, *shape, spread=2.0):
  """Multiples of 1/8 below 16: exact in bf16, f16 and f32."""
  steps = np.rint(rng.normal(size=shape) * spread * 8)
  return np.float32(np.clip(steps, -127, 127) / 8)


def make_inputs():
  rng = np.random.default_rng(20240919)
  inputs = {}

  def rows(name, tokens, channels, spread=2.0, types="bf16 f16 f32"):
    inputs[name] = dict(
        types=types,
        shape=[tokens, channels],
        x=grid(rng, tokens, channels, spread=spread),
        up=grid(rng, tokens, channels, spread=spread),
        dy=grid(rng, tokens, channels, spread=1.0),
    )

  rows("few", 4, 7)
  rows("one", 3, 1)
  rows("wide", 5, 40, spread=4.0)
  rows("block", 3, 136, spread=1.0)
  # A channel and a token without a linear branch have scale 1.
  rows("zeros", 4, 6)
  inputs["zeros"]["up"][1] = 0
  inputs["zeros"]["up"][:, 2] = 0
  # Tails: e^-x far below what 1 + e^-x keeps.
  tails = np.float32([-60, -40, -12, -9.5, -6, -3, -1.25, -0.75, 0, 0.75, 3, 6, 9.5, 30, 88, 120])
  inputs["tails"] = dict(
      types="bf16 f32",
      shape=[2, 16],
      x=np.stack([tails, -tails]),
      up=grid(rng, 2, 16),
      dy=grid(rng, 2, 16),
  )
  return inputs


def results(op, smoothing, data):
  x, up, dy = (jnp.asarray(data[name], jnp.float64) for name in ("x", "up", "dy"))
  if op != "swiglu":
    gelu = lambda x: jax.nn.gelu(x, approximate=op == "gelu-tanh")
    y, back = jax.vjp(gelu, x)
    return dict(y=y, dx=back(dy)[0])

  axis = dict(none=None, channel=0, token=1)[smoothing]

  def scales(up):
    if axis is None:
      return jnp.ones(())
    largest = jnp.max(jnp.abs(up), axis=axis, keepdims=True)
    return jnp.where(largest > 0, largest, 1.0)

  def smooth(x, up):
    return jax.nn.silu(x) * (up / scales(up))

  # The whole product, scaled back: dy is the gradient of y, so dy / s that of y s.
  fixed = scales(up)
  whole = lambda x, up: jnp.sum(dy / fixed * (smooth(x, up) * scales(up)))
  dgate, dup = jax.grad(whole, argnums=(0, 1))(x, up)
  out = dict(y=smooth(x, up), dgate=dgate, dup=dup)
  if axis is not None:
    out["scales"] = fixed
  return out


def main():
  lines = ["# Made by tests/golden/generate_activation.py: see README.md.", ""]
  inputs = make_inputs()
  for name, data in inputs.items():
    lines.append(f"inputs {name}")
    lines.append("types " + data["types"])
    for key in ("shape", "x", "up", "dy"):
      lines.append(f"{key} {text(data[key])}")
    lines.append("")
  for name, data in inputs.items():
    for op, smoothing in (
        ("swiglu", "none"),
        ("swiglu", "channel"),
        ("swiglu", "token"),
        ("gelu-exact", "none"),
        ("gelu-tanh", "none"),
    ):
      lines.append(f"case {name}")
      lines.append(f"op {op}")
      if smoothing != "none":
        lines.append(f"smoothing {smoothing}")
      lines.append("results")
      for key, values in results(op, smoothing, data).items():
        lines.append(f"{key} {text(values)}")
      lines.append("")
  path = pathlib.Path(__file__).with_name("activation.txt")
  path.write_text("\n".join(lines))


if __name__ == "__main__":
  main()
