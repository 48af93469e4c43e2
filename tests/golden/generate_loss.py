"""Golden vectors for the softmax losses, computed by JAX in float64.

Losses are written in the framework's own functions (softmax, log_softmax,
logsumexp) and every gradient comes from its automatic differentiation, with
stop_gradient where a formula holds something still. Nothing here is shared with
the library. See README.md for the format and for how to run this.
"""

import jax

jax.config.update("jax_enable_x64", True)

import functools
import pathlib

import jax.numpy as jnp
import numpy as np

from golden import f32, text

IGNORE = -100
# Far below every logit, yet finite: exp() of it is 0 and no inf - inf arises.
NEVER = -1e300

OBJECTIVES = [
    "nll", "linear", "power:0", "power:0.5", "power:1", "power:2.5",
    "power:10", "power:-0.7", "dft", "focal:0", "focal:0.5", "focal:2",
    "poly1:1", "poly1:-1", "gce:0.7", "deft",
]


# --- inputs ------------------------------------------------------------------


def grid(rng, tokens, vocab, spread):
  """Multiples of 1/16 below 16: exact in bf16, f16 and f32."""
  steps = np.rint(rng.normal(size=(tokens, vocab)) * spread * 16)
  return np.clip(steps, -255, 255) / 16


def make_inputs():
  rng = np.random.default_rng(20240917)
  inputs = {}

  def add(name, logits, targets, types="bf16 f16 f32"):
    tokens, vocab = logits.shape
    words = rng.integers(0, 2**32, size=(vocab + 31) // 32, dtype=np.uint32)
    words &= rng.integers(0, 2**32, size=words.size, dtype=np.uint32)
    for target in targets:  # targets stay among the living
      if target >= 0:
        words[target // 32] &= np.uint32(~(1 << (target % 32)) & 0xFFFFFFFF)
    inputs[name] = dict(
        types=types,
        logits=np.asarray(logits, np.float32),
        targets=np.asarray(targets),
        weights=np.float32(np.rint(rng.normal(size=tokens) * 64) / 32),
        mask=words,
        upstream=np.float32(np.rint(rng.normal(size=tokens) * 64) / 32),
        tokens=np.float32(37),
        offsets=np.array([0, 0, 1, max(1, tokens - 2), tokens]),
    )

  few = grid(rng, 6, 19, 1.5)
  add("few", few, [few[0].argmax(), 18, IGNORE, 0, few[4].argmax(), 7])
  add("two", grid(rng, 4, 2, 2.0), [0, 1, 1, 0])
  ragged = grid(rng, 5, 50, 3.0)
  add("ragged", ragged, [49, ragged[1].argmax(), 31, IGNORE, 32])
  sure = grid(rng, 4, 33, 1.0)
  sure[0, 5], sure[1, 32], sure[2, 0] = 15.9375, 14.5, 12.0
  sure[3, 9] = -15.9375
  add("sure", sure, [5, 32, 0, 9])
  add("wide", grid(rng, 3, 1009, 2.0), [1008, 500, IGNORE])
  offset = rng.normal(size=(3, 40)).astype(np.float32) * np.float32(4)
  offset += np.float32([[0], [1000], [-3000]])
  add("offset", offset, [11, offset[1].argmax(), 39], types="f32")
  return inputs


# --- the losses --------------------------------------------------------------


def transform(x, option):
  z = x
  if "softcap" in option:
    z = option["softcap"] * jnp.tanh(z / option["softcap"])
  return z / option.get("temperature", 1.0)


def masked_classes(inputs, option):
  vocab = inputs["logits"].shape[1]
  if not option.get("mask"):
    return np.zeros(vocab, bool)
  bits = np.unpackbits(inputs["mask"].view(np.uint8), bitorder="little")
  return bits[:vocab].astype(bool)


def objective(text, lp, p, q, sum_p2):
  """f of the family; q is 1 - p."""
  name, _, parameter = text.partition(":")
  a = f32(parameter) if parameter else None
  if name == "nll" or (name == "power" and a == 0):
    return -lp
  if name == "linear":
    return q
  if name in ("power", "gce"):
    return -jnp.expm1(a * lp) / a
  if name == "dft":
    return -jax.lax.stop_gradient(p) * lp
  if name == "focal":
    return -jnp.power(q, a) * lp if a else -lp
  if name == "poly1":
    return -lp + a * q
  if name == "deft":
    a = jax.lax.stop_gradient(sum_p2)
    return -jnp.expm1(a * lp) / (a + f32(1e-6))
  raise ValueError(text)


def token(x, target, weight, masked, option):
  """Loss and statistics of one token that is not ignored."""
  z = jnp.where(masked, NEVER, transform(x, option))
  log_p = jax.nn.log_softmax(z)
  probabilities = jax.nn.softmax(z)
  is_target = jnp.arange(x.size) == target
  p = probabilities[target]
  # The share of the others keeps the digits that 1 - p and log_softmax lose
  # where the target has nearly all of the probability.
  q = jnp.sum(jnp.where(is_target, 0.0, probabilities))
  sure = p > 0.5
  lp = jnp.where(sure, jnp.log1p(-jnp.where(sure, q, 0.0)), log_p[target])
  sum_p2 = jnp.sum(probabilities**2)
  entropy = -jnp.sum(jnp.where(masked, 0.0, probabilities * log_p))
  lse = jax.nn.logsumexp(z)
  el2n = jnp.sqrt(jnp.sum((probabilities - is_target) ** 2))

  threshold, _, rest = option["criterion"].partition(":")
  kept = True
  family = option["criterion"]
  if threshold == "threshold":
    side, tau, family = rest.split(":", 2)
    kept = p >= f32(tau) if side == "above" else p <= f32(tau)
    # Far enough from the edge for any arithmetic.
    margin = jnp.abs(p - f32(tau))
  else:
    margin = jnp.inf

  f = objective(family, lp, p, q, sum_p2)
  epsilon = option.get("label_smoothing", 0.0)
  uniform = jnp.mean(-log_p, where=~masked)
  loss = weight * ((1 - epsilon) * f + epsilon * uniform)
  loss += option.get("z_loss", 0.0) * lse**2
  loss -= option.get("entropy", 0.0) * entropy
  squares = jnp.sum(jnp.where(masked, 0.0, x**2))
  loss += option.get("spectral_decoupling", 0.0) / 2 * squares
  return dict(
      loss=jnp.where(kept, loss, 0.0), lse=lse, lp=lp, entropy=entropy,
      sum_p2=sum_p2, el2n=el2n, argmax=jnp.argmax(z), kept=kept,
      margin=margin)


def batch(x, inputs, option):
  """Losses and statistics of all tokens, zero where ignored."""
  masked = masked_classes(inputs, option)
  targets = inputs["targets"]
  taking_part = targets != option.get("ignore_index", IGNORE)
  weights = inputs["weights"] if option.get("weights") else np.ones(len(targets))
  one = functools.partial(token, masked=masked, option=option)
  out = jax.vmap(one)(x, np.where(taking_part, targets, 0),
                      np.asarray(weights, np.float64))
  assert np.all(jax.lax.stop_gradient(out.pop("margin")) > 1e-4) or isinstance(
      x, jax.core.Tracer), "a token lies on the threshold"
  out["kept"] = out["kept"] & np.ones(len(targets), bool)
  return {
      name: jnp.where(taking_part, value, jnp.zeros_like(value))
      for name, value in out.items()
  }


def reduce(losses, kept, inputs, option):
  reduction = option["reduction"]
  taking_part = inputs["targets"] != option.get("ignore_index", IGNORE)
  if reduction in ("none", "sum"):
    return jnp.sum(losses)
  if reduction == "mean:valid":
    return jnp.mean(losses, where=taking_part)
  if reduction == "mean:kept":
    return jnp.sum(losses) / jnp.maximum(jnp.sum(kept), 1)
  if reduction == "mean:tokens":
    return jnp.sum(losses) / float(inputs["tokens"])
  if reduction == "mean:sequence":
    offsets = inputs["offsets"]
    means = [
        jnp.mean(losses[a:b], where=taking_part[a:b])
        for a, b in zip(offsets[:-1], offsets[1:]) if np.any(taking_part[a:b])
    ]
    return jnp.mean(jnp.stack(means))
  raise ValueError(reduction)


def vector(inputs, option):
  """One golden case: values and the gradient of the raw logits."""
  x = jnp.asarray(inputs["logits"], jnp.float64)
  upstream = np.asarray(inputs["upstream"], np.float64)

  def scalar(x):
    out = batch(x, inputs, option)
    total = 0.0
    if option["upstream"] == "loss":
      if option["reduction"] == "none":
        total = jnp.sum(upstream * out["loss"])
      else:
        total = reduce(out["loss"], out["kept"], inputs, option)
    else:
      for name in option["upstream"].split():
        total += jnp.sum(upstream * out[name])
    return total

  out = batch(x, inputs, option)
  reduced = reduce(out["loss"], out["kept"], inputs, option)
  gradient = jax.grad(scalar)(x)
  return dict(
      reduced=reduced, losses=out["loss"], lse=out["lse"], lp=out["lp"],
      entropy=out["entropy"], sum_p2=out["sum_p2"], el2n=out["el2n"],
      argmax=out["argmax"], kept=out["kept"], gradient=gradient)


# --- the losses of "Beyond Log Likelihood", as its trainer computes them -------

PAPER = {
    "original": "nll",
    "logp": "nll",
    "p": "linear",
    "GeneralFamily-0.5": "power:0.5",
    "GeneralFamily-8": "power:8",
    "OnlyTopP-0.1": "threshold:above:0.1:linear",
    "OnlyBottomP-0.1": "threshold:below:0.1:linear",
    "OnlyTopLogP-0.1": "threshold:above:0.1:nll",
    "OnlyBottomLogP-0.1": "threshold:below:0.1:nll",
}


def paper_losses(x, targets, loss_mask, name):
  """Token losses and the mask whose sum divides them."""
  rows = jnp.arange(len(targets))
  labels = np.where(targets >= 0, targets, 0)
  log_p_true = jax.nn.log_softmax(x, axis=-1)[rows, labels]
  prob = jnp.exp(log_p_true)
  kind, _, value = name.partition("-")
  value = f32(value) if value else None
  if kind in ("original", "logp"):
    loss = -log_p_true
  elif kind == "p":
    loss = 1 - prob
  elif kind == "GeneralFamily":
    loss = -(jnp.exp(value * log_p_true) - 1) / value
  else:
    top = kind.startswith("OnlyTop")
    loss_mask = loss_mask * (prob >= value if top else prob <= value)
    loss = -log_p_true if kind.endswith("LogP") else 1 - prob
  return loss * loss_mask, loss_mask


def paper_vector(inputs, name):
  x = jnp.asarray(inputs["logits"], jnp.float64)
  targets = inputs["targets"]
  loss_mask = (targets != IGNORE).astype(np.float64)

  def scalar(x):
    losses, mask = paper_losses(x, targets, loss_mask, name)
    return jnp.sum(losses) / (jax.lax.stop_gradient(jnp.sum(mask)) + 1e-8)

  losses, mask = paper_losses(x, targets, loss_mask, name)
  return dict(reduced=scalar(x), losses=losses, kept=mask > 0,
              gradient=jax.grad(scalar)(x))


# --- the cases ---------------------------------------------------------------

EVERYTHING = dict(
    softcap=f32(12.0), temperature=f32(0.8), mask=True, weights=True,
    z_loss=f32(0.02), label_smoothing=f32(0.15), entropy=f32(0.3),
    spectral_decoupling=f32(0.01))


def threshold(family, side="above", tau="0.02"):
  return f"threshold:{side}:{tau}:{family}"


def make_cases():
  cases = []

  def add(inputs, criterion, upstream="loss", reduction="none", **options):
    cases.append(dict(inputs=inputs, criterion=criterion, upstream=upstream,
                      reduction=reduction, **options))

  for family in OBJECTIVES:
    add("few", family)
    for name, value in EVERYTHING.items():
      add("few", family, **{name: value})
    add("few", threshold(family, "above", "0.05"))
    add("few", threshold(family, "below", "0.05"), label_smoothing=f32(0.1),
        z_loss=f32(0.01))
    add("few", family, "loss", "mean:valid", **EVERYTHING)
    add("two", family)
    add("ragged", family)
    add("ragged", threshold(family, "above", "0.003"), "loss", "mean:kept",
        **EVERYTHING)
    add("sure", family)
    add("sure", family, "loss", "sum", label_smoothing=f32(0.1),
        entropy=f32(-0.2))
    add("offset", family)

  for reduction in ("none", "sum", "mean:valid", "mean:kept", "mean:tokens",
                    "mean:sequence"):
    for family in ("nll", "power:0.5", threshold("dft", "above", "0.05"),
                   threshold("nll", "below", "0.05")):
      add("few", family, "loss", reduction, weights=True)
  add("sure", "nll", "loss", "mean:valid", ignore_index=32)
  add("sure", "focal:2", "loss", "mean:sequence", ignore_index=9)

  for upstream in ("lp", "entropy", "lse", "lp entropy lse"):
    add("few", "nll", upstream)
    add("ragged", "nll", upstream, softcap=f32(9.0), temperature=f32(0.7),
        mask=True)
    add("sure", "nll", upstream)
    add("offset", "nll", upstream, temperature=f32(1.3))

  for family in ("nll", "power:0.5", "focal:0.5"):
    add("wide", family, "loss", "mean:valid", **EVERYTHING)
  add("wide", "deft")
  return cases


# --- the file ----------------------------------------------------------------


def write(path):
  inputs = make_inputs()
  with open(path, "w", encoding="ascii", newline="\n") as file:
    line = lambda key, value: file.write(f"{key} {value}\n")
    file.write("# Made by generate_loss.py; see README.md.\n")
    for name, tensors in inputs.items():
      line("\ninputs", name)
      line("types", tensors["types"])
      line("shape", "%d %d" % tensors["logits"].shape)
      for key in ("logits", "targets", "weights", "mask", "upstream", "tokens",
                  "offsets"):
        line(key, text(tensors[key]))
    for case in make_cases():
      line("\ncase", case["inputs"])
      for key, value in case.items():
        if key in ("mask", "weights"):
          line(key, "yes")
        elif key != "inputs":
          line(key, np.float32(value) if isinstance(value, float) else value)
      for key, values in vector(inputs[case["inputs"]], case).items():
        line(key, text(values))
    for name, criterion in PAPER.items():
      for source in ("few", "ragged"):
        line("\ncase", source)
        line("paper", name)
        line("criterion", criterion)
        line("upstream", "loss")
        line("reduction", "mean:kept")
        for key, values in paper_vector(inputs[source], name).items():
          line(key, text(values))


if __name__ == "__main__":
  write(pathlib.Path(__file__).with_name("loss.txt"))
