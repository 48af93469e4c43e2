// The first pass over a row: maximum, sums and the target's logit, as one partial a thread.
#pragma once

#include "loss/partial.cuh"
#include "loss/row.cuh"

namespace evenkeel {

inline constexpr int kNotHere = -1;

// kCount logits into `part`; they start at class `column` and follow each other where that matters
// (class masks: Moments::kAll). `target_slot` is the target's place among them, or kNotHere.
// Returns whether the largest of them is the largest so far.
template <Moments kMoments, int kCount>
EVENKEEL_DEVICE bool gather_elements(const SoftmaxLossParams& params, const float (&raw)[kCount],
                                     int column, int target_slot, RowPartial& part) {
  float z[kCount];
  uint32_t masked = 0;
  if constexpr (kMoments == Moments::kAll) {
    masked = masked_classes<kCount>(params.class_mask, column);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    z[i] = raw[i];
    if constexpr (kMoments == Moments::kAll) {
      z[i] = transform(params, raw[i]);
      if ((masked >> i) & 1u) z[i] = negative_infinity();
      if (z[i] != negative_infinity()) part.sum_z2 += raw[i] * raw[i];
    }
  }
  if (target_slot != kNotHere) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i == target_slot) {
        part.target = z[i];
        // fmaxf drops a NaN where partials merge; the sum carries it.
        if (!(z[i] <= kFloatMax)) part.sum = quiet_nan();
        z[i] = negative_infinity();
      }
    }
  }
  const float top = pairwise<kCount>(z, [](float a, float b) { return fmaxf(a, b); });
  const bool leads = top > part.max;
  if (leads) rebase<kMoments>(part, top);

  float e[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float d = z[i] - part.max;
    e[i] = exp_fast(d);
    if constexpr (kMoments >= Moments::kSome) {
      const bool live = z[i] != negative_infinity();
      part.sum_e2 += e[i] * e[i];
      // e is 0 there; the bound keeps 0 * inf out.
      part.sum_ed += e[i] * fmaxf(d, -1e4f);
      if constexpr (kMoments == Moments::kAll) {
        part.sum_d += live ? d : 0.0f;
        part.unmasked += live ? 1.0f : 0.0f;
      }
    }
  }
  part.sum += pairwise<kCount>(e, [](float a, float b) { return a + b; });
  return leads;
}

// The lowest class of the vector whose transformed logit is `max`; the target does not compete.
template <Moments kMoments, int kCount>
EVENKEEL_DEVICE uint32_t find_class(const SoftmaxLossParams& params, const float (&raw)[kCount],
                                    int column, int target_slot, float max) {
  uint32_t found = 0xffffffffu;
  uint32_t masked = 0;
  if constexpr (kMoments == Moments::kAll) {
    masked = masked_classes<kCount>(params.class_mask, column);
  }
#pragma unroll
  for (int i = kCount - 1; i >= 0; --i) {
    float z = raw[i];
    if constexpr (kMoments == Moments::kAll) z = transform(params, raw[i]);
    if (((masked >> i) & 1u) == 0 && i != target_slot && z == max) {
      found = static_cast<uint32_t>(column + i);
    }
  }
  return found;
}

// Thread `rank` of `threads` over a slice, whose v-th vector is `source.load<uint4>(v)`.
//
// Four vectors are loaded before the first is used. From shared memory, and where no class matters
// by its number, their 16 or 32 logits are gathered as one: one maximum, one rescaling and no
// branch among the exponentials. A row of global memory would have to be read again for the argmax,
// so there each vector is gathered by itself and the leading one is kept.
template <typename T, Moments kMoments, typename Source>
EVENKEEL_DEVICE RowPartial gather(const SoftmaxLossParams& params, const RowSlice& slice,
                                  int64_t target, int rank, int threads, Source source) {
  constexpr int kCount = kVectorElements<T>;
  constexpr int kInFlight = 4;
  constexpr bool kTogether = Source::kShared && kMoments != Moments::kAll;
  RowPartial part = empty_partial();
  // The vector of this thread that holds the target, and the target's place in it.
  const int target_offset = static_cast<int>(target) - slice.column;
  const int target_place = target_offset & (kCount - 1);
  int target_vector = kNotHere;
  if (target_offset >= 0 && target_offset < slice.vectors * kCount &&
      target_offset / kCount % threads == rank) {
    target_vector = target_offset / kCount;
  }
  uint4 leader = {};
  int leader_first = kNotHere;
  int leader_count = 0;

  const auto gather_one = [&](uint4 packed, int v) {
    float raw[kCount];
    unpack(packed, raw, T{});
    const int slot = v == target_vector ? target_place : kNotHere;
    if (gather_elements<kMoments>(params, raw, slice.column + v * kCount, slot, part)) {
      leader_first = v;
      leader_count = 1;
      if constexpr (!Source::kShared) leader = packed;
    }
  };

  const int step = threads * kInFlight;
  int first = rank;
  for (; first + step - threads < slice.vectors; first += step) {
    uint4 packed[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      packed[k] = source.template load<uint4>(first + k * threads);
    if constexpr (kTogether) {
      float raw[kInFlight * kCount];
#pragma unroll
      for (int k = 0; k < kInFlight; ++k) {
        float vector[kCount];
        unpack(packed[k], vector, T{});
#pragma unroll
        for (int i = 0; i < kCount; ++i) raw[k * kCount + i] = vector[i];
      }
      int slot = kNotHere;
      if (static_cast<unsigned>(target_vector - first) < static_cast<unsigned>(step)) {
        slot = (target_vector - first) / threads * kCount + target_place;
      }
      if (gather_elements<kMoments>(params, raw, slice.column, slot, part)) {
        leader_first = first;
        leader_count = kInFlight;
      }
    } else {
#pragma unroll
      for (int k = 0; k < kInFlight; ++k) gather_one(packed[k], first + k * threads);
    }
  }
  for (; first < slice.vectors; first += threads) {
    gather_one(source.template load<uint4>(first), first);
  }

  if (params.find_argmax != 0) {
    for (int k = leader_count - 1; k >= 0; --k) {
      const int v = leader_first + k * threads;
      float raw[kCount];
      unpack(Source::kShared ? source.template load<uint4>(v) : leader, raw, T{});
      const int slot = v == target_vector ? target_place : kNotHere;
      const uint32_t found =
          find_class<kMoments>(params, raw, slice.column + v * kCount, slot, part.max);
      part.argmax = found < part.argmax ? found : part.argmax;
    }
  }
  return part;
}

// One element outside the vectors, as a partial of its own.
template <Moments kMoments>
EVENKEEL_DEVICE RowPartial gather_edge(const SoftmaxLossParams& params, float value, int column,
                                       int64_t target) {
  RowPartial part = empty_partial();
  const float raw[1] = {value};
  const int slot = column == target ? 0 : kNotHere;
  if (gather_elements<kMoments>(params, raw, column, slot, part)) {
    part.argmax = static_cast<uint32_t>(column);
  }
  return part;
}

}  // namespace evenkeel
