// Rotary embedding of a head within the pass that normalizes it.
//
// A pair's elements may belong to two threads, so the head goes through shared memory, one row of
// fp32 a team; interleaved pairs that lie in one unit stay in registers.
#pragma once

#include "common/columns.cuh"
#include "norm/params.h"

namespace evenkeel {

// The row of the tables for a token; -1, with the status bit, where they have none.
EVENKEEL_DEVICE int64_t rotary_row(const RotaryParams& rotary, uint32_t token, uint32_t& status) {
  int64_t position = token;
  if (rotary.positions != nullptr) {
    position = load_integer(rotary.positions, rotary.position_type, token);
  }
  if (position >= 0 && position < rotary.position_count) return position;
  status |= kPositionOutOfRange;
  return -1;
}

// One head on its way through.
template <typename Layout>
struct Rotation {
  static constexpr int kChunk = Layout::kChunk;

  const RotaryParams& params;
  float* head;       // [columns], shared memory of the team
  int64_t position;  // negative: the head becomes NaN
  float direction;   // 1, or -1 to turn back

  EVENKEEL_DEVICE bool stays_in_unit() const {
    return params.pairing == Pairing::kInterleaved && !Layout::kSpread;
  }

  // Makes a unit known to the team, before team.sync().
  EVENKEEL_DEVICE void publish(const Columns<Layout>& columns, int unit,
                               const float (&x)[kChunk]) const {
    if constexpr (!Layout::kSpread) {
      float4* const vectors = reinterpret_cast<float4*>(head + columns.at(unit, 0));
#pragma unroll
      for (int e = 0; e < kChunk; e += 4) {
        vectors[e / 4] = make_float4(x[e], x[e + 1], x[e + 2], x[e + 3]);
      }
    } else {
#pragma unroll
      for (int e = 0; e < kChunk; ++e) {
        if (columns.at(unit, e) < columns.end) head[columns.at(unit, e)] = x[e];
      }
    }
  }

  // Turns a unit, after team.sync().
  EVENKEEL_DEVICE void turn(const Columns<Layout>& columns, int unit, float (&x)[kChunk]) const {
    if (position < 0) {
#pragma unroll
      for (int e = 0; e < kChunk; ++e) x[e] = quiet_nan();
      return;
    }
    const uint32_t width = params.width;
    const uint32_t half = width / 2;
    const uint64_t table = static_cast<uint64_t>(position) * half;
    // All of the unit in one half, and its partners and their tables aligned as it is.
    if constexpr (!Layout::kSpread) {
      const uint32_t column = columns.at(unit, 0);
      if (params.pairing == Pairing::kHalfSplit && params.aligned != 0 &&
          column + kChunk <= width) {
        const bool first = column < half;
        const uint32_t pair = first ? column : column - half;
        const float sign = first ? -direction : direction;
        float cosine[kChunk];
        float sine[kChunk];
        load_run(params.cos, params.type, table + pair, cosine);
        load_run(params.sin, params.type, table + pair, sine);
        const float4* const partner =
            reinterpret_cast<const float4*>(head + (first ? column + half : column - half));
#pragma unroll
        for (int e = 0; e < kChunk; e += 4) {
          const float4 four = partner[e / 4];
          x[e] = x[e] * cosine[e] + four.x * (sign * sine[e]);
          x[e + 1] = x[e + 1] * cosine[e + 1] + four.y * (sign * sine[e + 1]);
          x[e + 2] = x[e + 2] * cosine[e + 2] + four.z * (sign * sine[e + 2]);
          x[e + 3] = x[e + 3] * cosine[e + 3] + four.w * (sign * sine[e + 3]);
        }
        return;
      }
    }
    const bool interleaved = params.pairing == Pairing::kInterleaved;
    const bool here = stays_in_unit();
    float before[kChunk];
#pragma unroll
    for (int e = 0; e < kChunk; ++e) before[e] = x[e];
#pragma unroll
    for (int e = 0; e < kChunk; ++e) {
      const uint32_t at = columns.at(unit, e);
      if (at >= columns.end || at >= width) continue;
      const bool first = interleaved ? at % 2 == 0 : at < half;
      const uint32_t pair = interleaved ? at / 2 : first ? at : at - half;
      const uint32_t partner = interleaved ? at ^ 1u : first ? at + half : at - half;
      const float cosine = load_element(params.cos, params.type, table + pair);
      const float sine = direction * load_element(params.sin, params.type, table + pair);
      const float other = here ? before[e ^ 1] : head[partner];
      x[e] = before[e] * cosine + other * (first ? -sine : sine);
    }
  }
};

}  // namespace evenkeel
