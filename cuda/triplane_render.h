// Volume rendering of a tri-plane field, fused (fourdface/ops/triplane_render.py; its torch twin is the meaning).
//
// Inputs (float32, contiguous, row major):
//   planes [B,3,C,H,W]; hidden_weight [U,C], hidden_bias [U], out_weight [1+K,U], out_bias [1+K]
//   origins, directions [B,R,3]; near_distance, far_distance [B,R]
//   offsets [B,3,D,H',W'] or null: added to a sample before its lookup (trilinear, outermost nodes at +-warp_size/2, zero outside)
//   draw_coarse [B,R,S], draw_fine [B,R,F] or null: numbers in place of the placement's own
// Outputs: features [B,R,K], distance_sum [B,R] (weights times distances), weight_sum [B,R]
//
// Meaning: fourdface/ops/_ray_marching.py step by step. The first layer of the decoder is linear, and so is the lookup, so the
// layer is applied to the texels once ("packed": [B,3,H+2,W+2,U'] with a border of zeros, U' = U rounded up to 16) and samples
// look up pre-activations: 768 instead of 384 + 2048 multiplications each.
//
// Skipping (min_transmittance > 0): samples in cells of `occupancy` that are empty, with their neighbours along the ray, count as
// empty; a ray ends where its transmittance falls below min_transmittance; weights up to 0.02 share a colour, softplus is good to 2e-4
//
// A ray with a number that is not finite gives NaN, and no other ray does. Tolerance against the reference in float32: 1e-4 of
// the largest value (sums in another order; softplus and exponentials within 3e-7). Where a quantile meets a step of the histogram
// the two may choose neighbouring bins, which moves one sample within rounding. Bits do not depend on the number of threads.
#pragma once
#include "common.h"

enum FourdPlacement : int32_t { kFourdEnds = 0, kFourdCentres = 1, kFourdJitter = 2 };

struct FourdTriplaneRenderArgs {
  const float* planes;         // may be null when packed is given (not for the backward pass)
  const float* hidden_weight;
  const float* hidden_bias;
  const float* out_weight;
  const float* out_bias;
  const float* origins;
  const float* directions;
  const float* near_distance;
  const float* far_distance;
  const float* offsets;
  const float* draw_coarse;
  const float* draw_fine;
  float* packed;               // texels, ready where `prepared` is set. CPU: null makes them here; CUDA: never null
  uint32_t* occupancy;         // [B, G, G, G/32] one bit per cell along x; G a multiple of 32. Null with G > 0: made here
  float* features;
  float* distance_sum;
  float* weight_sum;
  const float* grad_features;      // backward: gradients of the outputs ...
  const float* grad_distance_sum;
  const float* grad_weight_sum;
  float* grad_planes;              // ... and of the inputs, written (not added to)
  float* grad_hidden_weight;
  float* grad_hidden_bias;
  float* grad_out_weight;
  float* grad_out_bias;
  float* scratch;              // CUDA only: G^3 B bytes for the occupancy; backward: as large as packed
  int64_t rays;                // R
  int32_t batch, channels, height, width, hidden, outputs;  // B C H W U K
  int32_t coarse, fine;        // S F
  int32_t placement, disparity;
  int32_t axes[6];             // per plane: the coordinate along its columns, along its rows
  int32_t warp_depth, warp_height, warp_width;
  int32_t occupancy_size;      // G
  uint32_t seed_key;
  int32_t threads;
  int32_t prepared;            // CUDA: packed and occupancy are filled already
  float plane_scale;           // 1/3 for the mean over the planes, 1 for their sum
  float box_size;
  float warp_size;
  float min_transmittance;     // 0: exact
  float empty_density;         // occupancy: softplus(raw - 1) below it is empty
};

// Each returns fourd::Status. Scratch memory belongs to the calling thread and is kept for its next call.
FOURD_EXPORT int fourd_triplane_render(const FourdTriplaneRenderArgs* args);
// Writes `packed` (not null), and `occupancy` where it is not null.
FOURD_EXPORT int fourd_triplane_prepare(const FourdTriplaneRenderArgs* args);
// Recomputes the samples; gradients of planes and decoder, exact mode only.
FOURD_EXPORT int fourd_triplane_render_backward(const FourdTriplaneRenderArgs* args);
