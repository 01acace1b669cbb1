// A picture carried to another camera by its depth (fourdface/ops/correspondence_warp.py: the torch twin `correspondence_warp_reference`
// is the meaning).
//
// image [B,C,H,W]; depth_z [B,H,W] metres, <= 0 or not finite where there is nothing; projection [B,3,4]: the source pixel with centre
// (x, y) and depth z lands at q = z A (x, y, 1) + b in the target, at pixels (q.x / q.z, q.y / q.z) and depth q.z (below near_z: dropped).
// Each source pixel is a tent of half-width `radius` target pixels (0.5 to 4): w = (1 - |dx| / radius)+ (1 - |dy| / radius)+.
// surface [B,h,w]: the target's depth where target_depth is given, else the smallest q.z that lands on a pixel with w >= 0.1 (a mere fringe
//   hides nothing); 0 = nothing.
// weight [B,h,w] = sum of w exp(-|q.z - surface| / softness) over the source pixels that land there, in the order of their index;
// out [B,C,h,w] = the mean colour by these weights (0 where weight is below 1e-6).
// Backward: grad_image [B,C,H,W] from grad_out [B,C,h,w], weight and surface.
// Tolerance against the reference: 1e-5 of the largest colour. On the CPU bits do not depend on the number of threads.
#pragma once
#include "common.h"

struct FourdWarpArgs {
  const float* image;
  const float* depth_z;
  const float* projection;
  const float* target_depth;   // [B,h,w] or null
  float* out;                  // forward: written
  float* weight;               // forward: written; backward: read
  float* surface;              // forward: written; backward: read
  const float* grad_out;       // backward only
  float* grad_image;           // backward only
  int32_t batch, channels, height, width;
  int32_t out_height, out_width;
  int32_t threads;             // CPU only
  float radius, softness, near_z;
};

FOURD_EXPORT int fourd_correspondence_warp(const FourdWarpArgs* args);
FOURD_EXPORT int fourd_correspondence_warp_backward(const FourdWarpArgs* args);
