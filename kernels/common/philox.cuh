// Philox4x32-10, the counter-based generator of stochastic rounding: random words that depend on an
// element's number alone, not on who computes it (Salmon et al., "Parallel Random Numbers: As Easy
// as 1, 2, 3", SC 2011). The mathematics is src/reference/quant/philox.rs.
#pragma once

#include "platform/platform.h"

namespace evenkeel {

// What the words of one call are drawn from: the seed, and the upper half of the counter.
struct RandomKey {
  uint64_t seed;
  uint64_t offset;
};

EVENKEEL_DEVICE void philox4x32_10(uint64_t low, const RandomKey& key, uint32_t (&word)[4]) {
  uint32_t c0 = static_cast<uint32_t>(low);
  uint32_t c1 = static_cast<uint32_t>(low >> 32);
  uint32_t c2 = static_cast<uint32_t>(key.offset);
  uint32_t c3 = static_cast<uint32_t>(key.offset >> 32);
  uint32_t k0 = static_cast<uint32_t>(key.seed);
  uint32_t k1 = static_cast<uint32_t>(key.seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = static_cast<uint64_t>(c0) * 0xd2511f53u;
    const uint64_t second = static_cast<uint64_t>(c2) * 0xcd9e8d57u;
    c0 = static_cast<uint32_t>(second >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(second);
    c2 = static_cast<uint32_t>(first >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(first);
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  word[0] = c0;
  word[1] = c1;
  word[2] = c2;
  word[3] = c3;
}

// The words of elements `first` to `first` + 7. Two draws where `first` is a multiple of four, as
// the rows of a matrix begin whose width is one; else three.
EVENKEEL_DEVICE void random_words(uint64_t first, const RandomKey& key, uint32_t (&words)[8]) {
  uint32_t four[4];
  if (first % 4 == 0) {
    philox4x32_10(first / 4, key, four);
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = four[i];
    philox4x32_10(first / 4 + 1, key, four);
#pragma unroll
    for (int i = 0; i < 4; ++i) words[4 + i] = four[i];
    return;
  }
  const uint32_t skip = static_cast<uint32_t>(first % 4);
#pragma unroll 1
  for (uint32_t draw = 0; draw < 3; ++draw) {
    philox4x32_10(first / 4 + draw, key, four);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t at = static_cast<uint32_t>(i) + skip;
      if (at / 4 != draw) continue;
      words[i] = at % 4 == 0 ? four[0] : at % 4 == 1 ? four[1] : at % 4 == 2 ? four[2] : four[3];
    }
  }
}

// The word of one element.
EVENKEEL_DEVICE uint32_t random_word(uint64_t element, const RandomKey& key) {
  uint32_t four[4];
  philox4x32_10(element / 4, key, four);
  const uint32_t at = static_cast<uint32_t>(element % 4);
  return at == 0 ? four[0] : at == 1 ? four[1] : at == 2 ? four[2] : four[3];
}

}  // namespace evenkeel
