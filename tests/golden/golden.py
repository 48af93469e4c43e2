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


def philox(counter, key):
  """Salmon et al. 2011, table and figure 4."""
  c, k = list(counter), list(key)
  for _ in range(10):
    first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
    c = [second >> 32 ^ c[1] ^ k[0], second % 2**32, first >> 32 ^ c[3] ^ k[1], first % 2**32]
    k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
  return c


assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert philox([2**32 - 1] * 4, [2**32 - 1] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
assert philox(
    [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]
) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def word(seed, offset, element):
  """That of an element, as the library counts them."""
  quad = element // 4
  split = lambda x: [x % 2**32, x >> 32]
  return philox(split(quad) + split(offset), split(seed))[element % 4]
