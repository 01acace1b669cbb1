// Gaussian splatting, forward and backward (fourdface/ops/splat.py: `splat`, `splat_to_u8`; the torch twin `splat_reference` is the
// meaning).
//
// Inputs (float32, contiguous, row major):
//   means [N,3] world; covariances [N,6] world, upper triangle xx,xy,xz,yy,yz,zz; opacities [N] (0..1)
//   colors [N,D] for all cameras, or [C,N,D] (color_stride = N D)
//   world_to_camera [C,4,4], OpenCV axes; intrinsics [C,3,3] in pixels without skew; centre of pixel (col,row) = (col+0.5, row+0.5)
// Outputs (each may be null): image [C,H,W,D], alpha [C,H,W], depth_z [C,H,W] (expected z of the centres, 0 where nothing is seen),
//   image_u8 [H,W,3] (C = 1, D = 3 only): colours over background_u8 [H,W,3] (black where null), clamped.
//
// Meaning: EWA projection (first-order perspective at the centre, whose direction is clamped to 1.3 times the half field of view
// beyond the picture's edge), 2D covariance + eps2d * I, alpha = min(0.999, opacity * exp(-q/2)), q the squared Mahalanobis
// distance of the pixel centre. antialiased: opacity *= sqrt(det(cov2d) / det(cov2d + eps2d I)). Contributions with
// alpha < 1/255 are skipped. Front to back by z of the centre (ties by index); a pixel ends before the Gaussian that would take
// its transmittance to 1e-4 or below. Gaussians with z < near, a non-finite or not positive-definite projection, or outside of the
// picture are skipped. image = sum w c + T background.
//
// The backward pass takes the gradients of image, alpha and depth_z (each may be null) with the forward pass's alpha and depth_z and
// ADDS the gradients of the inputs to buffers that the caller has zeroed. Order, cut-offs and clamps are constants, as in the reference;
// the intrinsics get no gradient here. Skipped Gaussians get none.
//
// Tolerance against the reference in float32: 2e-4 on nearly all pixels (exponential 2.5e-7 relative, other order of sums);
// where an alpha stands at 1/255 or a transmittance at 1e-4 the two may decide differently: up to 1/255 on single pixels. Gradients:
// 1e-3 of the largest one of each input, again save for such decisions.
// On the CPU bits do not depend on the number of threads.
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
  const uint8_t* background_u8;    // [H,W,3] or null; only for image_u8; CPU only
  float* image;                    // [C,H,W,D] or null
  float* alpha;                    // [C,H,W] or null
  float* depth_z;                  // [C,H,W] or null
  uint8_t* image_u8;               // [H,W,3] or null; CPU only
  void* scratch;                   // CUDA only: fourd_splat_scratch_cuda says how many bytes
  int64_t scratch_bytes;           // CUDA only
  int64_t pair_capacity;           // CUDA only: room for pairs of tile and Gaussian; what is beyond (the farthest) is not drawn
  int64_t* pair_count;             // CUDA only: on the device, the pairs that there were (above pair_capacity: draw again), or null
  int64_t count;                   // N
  int64_t color_stride;            // 0 or N * D
  int32_t cameras;                 // C
  int32_t channels;                // D
  int32_t width;
  int32_t height;
  int32_t antialiased;
  int32_t threads;                 // CPU only
  float eps2d;
  float near_z;
};

struct FourdSplatBackwardArgs {
  FourdSplatArgs scene;            // as for the forward pass; alpha and depth_z hold its results, image is not read
  const float* grad_image;         // [C,H,W,D] or null
  const float* grad_alpha;         // [C,H,W] or null
  const float* grad_depth_z;       // [C,H,W] or null
  float* grad_means;               // [N,3]
  float* grad_covariances;         // [N,6]
  float* grad_colors;              // as colors
  float* grad_opacities;           // [N]
  float* grad_world_to_camera;     // [C,4,4]
  float* grad_background;          // [D] or null
};

// Return fourd::Status. Scratch memory belongs to the calling thread and is kept for its next call.
FOURD_EXPORT int fourd_splat(const FourdSplatArgs* args);
FOURD_EXPORT int fourd_splat_backward(const FourdSplatBackwardArgs* args);
