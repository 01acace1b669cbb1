// Gaussian splatting, forward (fourdface/ops/splat.py: `splat`, `splat_to_u8`; the torch twin `splat_reference` is the meaning).
//
// Inputs (float32, contiguous, row major):
//   means [N,3] world; covariances [N,6] world, upper triangle xx,xy,xz,yy,yz,zz; colors [N,D]; opacities [N] (0..1)
//   world_to_camera [4,4], OpenCV axes; intrinsics [3,3] in pixels without skew; centre of pixel (col,row) = (col+0.5, row+0.5)
// Outputs (each may be null): image [H,W,D], alpha [H,W], depth_z [H,W] (expected z of the centres, 0 where nothing is seen),
//   image_u8 [H,W,3] (D = 3 only): colours over background_u8 [H,W,3] (black where null), clamped.
//
// Meaning: EWA projection (first-order perspective at the centre, whose direction is clamped to 1.3 times the half field of view
// beyond the picture's edge), 2D covariance + eps2d * I, alpha = min(0.999, opacity * exp(-q/2)), q the squared Mahalanobis
// distance of the pixel centre. antialiased: opacity *= sqrt(det(cov2d) / det(cov2d + eps2d I)). Contributions with
// alpha < 1/255 are skipped. Front to back by z of the centre (ties by index); a pixel ends before the Gaussian that would take
// its transmittance to 1e-4 or below. Gaussians with z < near, a non-finite or not positive-definite projection, or outside of the
// picture are skipped. image = sum w c + T background.
//
// Tolerance against the reference in float32: 2e-4 on nearly all pixels (exponential 2.5e-7 relative, other order of sums);
// where an alpha stands at 1/255 or a transmittance at 1e-4 the two may decide differently: up to 1/255 on single pixels.
// Bits do not depend on the number of threads.
#pragma once
#include "common.h"

struct FourdSplatArgs {
  const float* means;
  const float* covariances;
  const float* colors;
  const float* opacities;
  const float* world_to_camera;
  const float* intrinsics;
  const float* background;         // [D] or null (black)
  const uint8_t* background_u8;    // [H,W,3] or null; only for image_u8
  float* image;                    // [H,W,D] or null
  float* alpha;                    // [H,W] or null
  float* depth_z;                  // [H,W] or null
  uint8_t* image_u8;               // [H,W,3] or null
  int64_t count;                   // N
  int32_t channels;                // D
  int32_t width;
  int32_t height;
  int32_t antialiased;
  int32_t threads;
  float eps2d;
  float near_z;
};

// Returns fourd::Status. Scratch memory belongs to the calling thread and is kept for its next call.
FOURD_EXPORT int fourd_splat_forward(const FourdSplatArgs* args);
