// Features of points in a tri-plane or tri-grid (fourdface/ops/triplane_sample.py; its torch twin is the meaning).
//
// Inputs (float32): planes [B,3,C,D,H,W] with any strides (D = 1 and layered = 0 for flat planes); points [B,N,3] contiguous.
// Outputs (contiguous): features [B,N,C]; backward: grad_planes [B,3,D,H,W,C] (channels last) and grad_points [B,N,3], each may be
// null. They are written, not added to.
//
// A coordinate x meets the texel ((2 x / box_size + 1) n - 1) / 2 of an axis with n texels (align_corners False); linear
// interpolation, zero outside; sum over the planes times plane_scale. A point that is not finite gives NaN features and no gradient.
// Tolerance against the reference: 1e-5 of the largest value (sums in another order). Bits do not depend on the number of threads;
// on CUDA the gradient of the planes is added up with atomics, so there its last bits change from run to run.
#pragma once
#include "common.h"

struct FourdTriplaneSampleArgs {
  const float* planes;
  const float* points;
  const float* grad_features;
  float* features;
  float* grad_planes;
  float* grad_points;
  int64_t count;       // N
  int64_t strides[6];  // of planes, in floats: B 3 C D H W
  int32_t batch, channels, depth, height, width;
  int32_t layered;     // 1: tri-grid, the third coordinate chooses the layer
  int32_t axes[9];     // per plane: the coordinate along its columns, its rows, its layers
  int32_t threads;
  float box_size;
  float plane_scale;   // 1/3 for the mean, 1 for the sum
};

FOURD_EXPORT int fourd_triplane_sample(const FourdTriplaneSampleArgs* args);
FOURD_EXPORT int fourd_triplane_sample_backward(const FourdTriplaneSampleArgs* args);
