"""What the generators of golden vectors share."""

import numpy as np


def f32(value):
  """The value an f32 option has."""
  return float(np.float32(value))


def text(values):
  out = []
  for value in np.asarray(values).ravel():
    if isinstance(value, (bool, np.bool_)):
      out.append(str(int(value)))
    elif isinstance(value, np.integer):
      out.append(str(int(value)))
    elif isinstance(value, np.float32):
      out.append(str(value).removesuffix(".0"))  # the shortest that reads back
    else:
      value = float(value)
      assert not np.isnan(value), value
      out.append(repr(value).removesuffix(".0"))
  return " ".join(out)
