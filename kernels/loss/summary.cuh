// From a row's partial to what is reported, saved and multiplied into the gradient: a few scalars,
// computed by one thread a row.
#pragma once

#include "loss/objective.cuh"
#include "loss/partial.cuh"
#include "loss/row.cuh"
#include "loss/scatter.cuh"

namespace evenkeel {

// A row after the first pass.
struct RowSummary {
  RowState state;
  float inverse_sum;  // 1 / S
  float others_p2;    // sum of p^2 without the target
  float minus_log_p;  // sum over the unmasked classes of -log p
  float sum_z2;
  uint32_t argmax;
};

EVENKEEL_DEVICE RowSummary summarise(RowPartial part, int64_t target, Moments moments) {
  const float z = part.target;
  const bool target_leads = z > part.max || (z == part.max && target < part.argmax);
  RowSummary row = {};
  row.argmax = target_leads ? static_cast<uint32_t>(target) : part.argmax;
  row.sum_z2 = part.sum_z2;
  rebase<Moments::kAll>(part, fmaxf(part.max, z));

  const float d = z - part.max;
  const float e = expf(d);  // 0 when the target is masked
  const float sum = part.sum + e;
  const float inverse = 1.0f / sum;
  RowState& state = row.state;
  state.max = part.max;
  if (!(sum > 0.0f) || !(sum <= kFloatMax) || !(z <= kFloatMax)) {
    // No class lives, or one is NaN or +inf: nothing of this row is a number.
    const float nan = quiet_nan();
    state = {nan, nan, nan, nan, nan, nan, nan, 1.0f};
    row.inverse_sum = row.others_p2 = row.minus_log_p = nan;
    return row;
  }
  state.log_sum = logf(sum);
  // When the target is the maximum, e = 1 and S_o may be far below it: log1p keeps its bits.
  state.lp = z >= part.max ? -log1pf(part.sum) : d - state.log_sum;
  state.one_minus_p = part.sum * inverse;
  row.inverse_sum = inverse;
  if (moments >= Moments::kSome) {
    const float p = e * inverse;
    row.others_p2 = part.sum_e2 * inverse * inverse;
    state.sum_p2 = row.others_p2 + p * p;
    state.entropy = state.log_sum - (part.sum_ed + (e > 0.0f ? e * d : 0.0f)) * inverse;
  }
  if (moments == Moments::kAll) {
    const bool target_lives = z > negative_infinity();
    state.unmasked = part.unmasked + (target_lives ? 1.0f : 0.0f);
    row.minus_log_p = state.unmasked * state.log_sum - (part.sum_d + (target_lives ? d : 0.0f));
  }
  return row;
}

// What scales a token's gradient besides its row.
struct RowInputs {
  int64_t target;  // negative: ignored or out of range
  float weight;
  float loss_scale;  // upstream gradient of the loss times the reduction's scale
  float upstream_lp;
  float upstream_entropy;
  float upstream_lse;
};

inline constexpr int64_t kNoTarget = -1;

// The token's target, or kNoTarget with the status bit where it is neither a class nor ignored.
EVENKEEL_DEVICE int64_t load_target(const SoftmaxLossParams& params, int64_t token,
                                    uint32_t& status) {
  const int64_t target = load_integer(params.targets, params.target_type, token);
  if (target == params.ignore_index) return kNoTarget;
  if (target < 0 || target >= params.vocab) {
    status |= kTargetOutOfRange;
    return kNoTarget;
  }
  return target;
}

EVENKEEL_DEVICE RowInputs load_inputs(const SoftmaxLossParams& params, int64_t token,
                                      int64_t target) {
  return {target,
          load_per_token(params.token_weight, token, 1.0f),
          load_per_token(params.upstream_loss, token, params.absent_upstream) *
              load_per_token(params.scale, token, 1.0f),
          load_per_token(params.upstream_lp, token, 0.0f),
          load_per_token(params.upstream_entropy, token, 0.0f),
          load_per_token(params.upstream_lse, token, 0.0f)};
}

// The objective at the target. A row that is not finite counts as kept, so that the loss shows it.
struct RowObjective {
  ObjectiveValue objective;
  bool kept;
  bool finite;
};

EVENKEEL_DEVICE RowObjective row_objective(const SoftmaxLossParams& params, const RowState& state,
                                           uint32_t& status) {
  const float p = expf(state.lp);
  RowObjective row;
  row.finite = state.max == state.max;
  row.kept = !row.finite || keeps(params.threshold_side, params.tau, p);
  row.objective = evaluate(params.objective, params.objective_parameter,
                           {state.lp, p, state.one_minus_p, state.sum_p2});
  if (!row.finite) status |= kNonFiniteRow;
  if (row.finite && state.lp == negative_infinity()) status |= kTargetMasked;
  const bool power = params.objective == Objective::kPower || params.objective == Objective::kGce;
  if (power && row.finite && params.objective_parameter < 0.0f) {
    // p^a with a < 0 grows past fp32; f falls past -FLT_MAX's magnitude with it.
    if (!(row.objective.g <= kFloatMax) || !(fabsf(row.objective.value) <= kFloatMax)) {
      if (row.kept) status |= kSaturated;
      row.objective.g = fminf(row.objective.g, kFloatMax);
      row.objective.value = fmaxf(-kFloatMax, fminf(row.objective.value, kFloatMax));
    }
  }
  return row;
}

EVENKEEL_DEVICE RowCoefficients coefficients(const SoftmaxLossParams& params, const RowState& state,
                                             float inverse_sum, const RowObjective& row,
                                             const RowInputs& inputs) {
  const float nan = quiet_nan();
  if (!row.finite) {
    return {0.0f, nan, 0.0f, nan, nan, nan, nan, nan, nan, 0, inputs.target};
  }
  const float scale = row.kept ? inputs.loss_scale : 0.0f;
  const float smoothing = scale * inputs.weight * params.label_smoothing;
  const float lse = state.max + state.log_sum;
  // of (p_j - [j = y])
  float b = scale * inputs.weight * (1.0f - params.label_smoothing) * row.objective.g;
  b = fmaxf(-kFloatMax, fminf(b, kFloatMax)) - inputs.upstream_lp;
  // of p_j besides
  const float others = smoothing + 2.0f * scale * params.z_loss * lse + inputs.upstream_lse;
  const float c = scale * params.entropy_weight - inputs.upstream_entropy;
  const float d = params.label_smoothing > 0.0f ? smoothing / state.unmasked : 0.0f;
  const float p = expf(state.lp);
  RowCoefficients out;
  out.max = state.max;
  out.inverse_sum = inverse_sum;
  out.log_sum = state.log_sum;
  const float a = fmaxf(-kFloatMax, fminf(b + others, kFloatMax));
  out.a_over_sum = a * inverse_sum;
  out.c = c;
  out.d = d;
  out.e = scale * params.spectral_decoupling;
  out.entropy = state.entropy;
  out.target_gradient = 0.0f;
  if (state.lp > negative_infinity()) {
    out.target_gradient =
        others * p - b * state.one_minus_p + c * p * (state.lp + state.entropy) - d;
  }
  out.zero =
      a == 0.0f && out.c == 0.0f && out.d == 0.0f && out.e == 0.0f && out.target_gradient == 0.0f;
  out.target = inputs.target;
  return out;
}

// A coefficient of 0 removes even an infinite value.
EVENKEEL_DEVICE float times(float coefficient, float value) {
  return coefficient == 0.0f ? 0.0f : coefficient * value;
}

EVENKEEL_DEVICE float row_loss(const SoftmaxLossParams& params, const RowSummary& summary,
                               const RowObjective& row, float weight) {
  if (!row.finite) return quiet_nan();
  if (!row.kept) return 0.0f;
  const float lse = summary.state.max + summary.state.log_sum;
  float loss = times(1.0f - params.label_smoothing, row.objective.value);
  if (params.label_smoothing > 0.0f) {
    loss += params.label_smoothing * summary.minus_log_p / summary.state.unmasked;
  }
  loss = times(weight, loss);
  if (params.z_loss != 0.0f) loss += params.z_loss * lse * lse;
  if (params.entropy_weight != 0.0f) loss -= params.entropy_weight * summary.state.entropy;
  if (params.spectral_decoupling != 0.0f) {
    loss += 0.5f * params.spectral_decoupling * summary.sum_z2;
  }
  return loss;
}

template <typename T>
EVENKEEL_DEVICE void store_if(T* values, int64_t token, T value) {
  if (values != nullptr) values[token] = value;
}

// Everything forward can return for a token.
EVENKEEL_DEVICE void report(const SoftmaxLossParams& params, int64_t token,
                            const RowSummary& summary, const RowObjective& row,
                            const RowInputs& inputs) {
  const RowState& state = summary.state;
  const bool correct = row.finite && summary.argmax == static_cast<uint32_t>(inputs.target);
  store_if(params.loss, token, row_loss(params, summary, row, inputs.weight));
  store_if(params.lse, token, state.max + state.log_sum);
  store_if(params.lp, token, state.lp);
  store_if(params.p, token, expf(state.lp));
  store_if(params.entropy, token, state.entropy);
  store_if(params.sum_p2, token, state.sum_p2);
  store_if(params.el2n, token, sqrtf(summary.others_p2 + state.one_minus_p * state.one_minus_p));
  store_if(params.argmax, token, row.finite ? static_cast<int32_t>(summary.argmax) : 0);
  store_if(params.correct, token, static_cast<uint8_t>(correct));
  store_if(params.kept, token, static_cast<uint8_t>(row.kept));
  store_if(
      params.flags, token,
      static_cast<uint8_t>(kRowValid | (row.kept ? kRowKept : 0) | (correct ? kRowCorrect : 0)));
  if (params.state != nullptr) {
    RowState saved = state;
    saved.kept = row.kept ? 1.0f : 0.0f;
    params.state[token] = saved;
  }
}

// A row that is not read: zeros everywhere. A target outside the vocabulary still counts as one.
EVENKEEL_DEVICE void report_skipped(const SoftmaxLossParams& params, int64_t token,
                                    uint32_t status) {
  store_if(params.loss, token, 0.0f);
  store_if(params.lse, token, 0.0f);
  store_if(params.lp, token, 0.0f);
  store_if(params.p, token, 0.0f);
  store_if(params.entropy, token, 0.0f);
  store_if(params.sum_p2, token, 0.0f);
  store_if(params.el2n, token, 0.0f);
  store_if(params.argmax, token, 0);
  store_if(params.correct, token, static_cast<uint8_t>(0));
  store_if(params.kept, token, static_cast<uint8_t>(0));
  store_if(params.flags, token, static_cast<uint8_t>(status != 0 ? kRowValid : 0));
  store_if(params.state, token, RowState{});
}

}  // namespace evenkeel
