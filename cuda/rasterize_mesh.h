// Which triangle does each pixel see (fourdface/ops/rasterize_mesh.py; `rasterize_mesh_reference` is the meaning).
//
// vertices [V,3] float32 world, faces [F,3] int32, world_to_camera [4,4] (OpenCV axes), intrinsics [3,3] pixels without skew ->
// face_index [H,W] int32 (-1 none), barycentrics [H,W,3] (perspective-correct, >= 0, sum 1; 0 where none), depth_z [H,W] (0 where none).
//
// Perspective: a pixel's ray starts in the camera and goes through its centre. Orthographic: rays are parallel to the camera's z
// axis and pixel (x, y) = (fx X + cx, fy Y + cy), with fx, fy in pixels per metre.
// A pixel belongs to a triangle when its ray hits it, edges included (1e-9 in barycentrics, so that no pixel
// falls between two neighbours), at depth >= near. The nearest hit wins, the lower index among equals (float32 of 1/z; of z when orthographic).
// cull_back leaves out triangles whose normal (v1 - v0) x (v2 - v0) points away from the camera. Triangles that cross the camera
// plane need no clipping: with camera points p0, p1, p2 and the ray r = z (b0 p0 + b1 p1 + b2 p2)/z, b_i/z = n_i . r / det with
// n_0 = p1 x p2 (cyclic) and det = p0 . n_0, valid for any signs of z. With the z of the points set to 1 the same gives the
// barycentrics of the orthographic camera.
// Set-up is done in double, so barycentrics are good to 1e-6; triangles with |det| = 0 (edge-on) or non-finite corners are skipped.
// An index out of range gives kBadIndex and undefined outputs; on CUDA such a triangle is left out. Bits do not depend on the
// number of threads. near > 0 when perspective, else finite. `keys` is scratch memory of the CUDA kernel, [H,W] int64; null on the CPU.
#pragma once
#include "common.h"

struct FourdRasterArgs {
  const float* vertices;
  const int32_t* faces;
  const float* world_to_camera;
  const float* intrinsics;
  int32_t* face_index;
  float* barycentrics;  // or null
  float* depth_z;       // or null
  uint64_t* keys;
  int64_t vertex_count;
  int64_t face_count;
  int32_t width;
  int32_t height;
  int32_t cull_back;
  int32_t orthographic;
  int32_t threads;
  float near_z;
};

FOURD_EXPORT int fourd_rasterize_mesh(const FourdRasterArgs* args);
