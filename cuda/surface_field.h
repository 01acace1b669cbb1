// The nearest triangle of points and where they lie relative to it (fourdface/ops/surface_field.py;
// `surface_field_reference` is the meaning).
//
// points [B,N,3], vertices [B,V,3] float32, faces [F,3] int32 -> face_index [B,N] int64; barycentrics [B,N,3] of the
// projection onto the face's plane, not clamped; signed_distance [B,N] along the normal (v1 - v0) x (v2 - v0);
// squared_distance [B,N] to the triangle.
//
// A triangle whose area is below min_triangle_area, or 0, counts as its three edges in the search and in squared_distance. Its
// corners are taken in the order of their indices there, so triangles that share an edge are at the same distance, bit
// for bit, from all points nearest to that edge; of equal ones the lower index wins. Distances are compared in double (float32 on CUDA).
// Barycentrics of a triangle without area are 1/3 each, its signed distance 0. Triangles with corners that are not finite are
// infinitely far; a point that is not finite gets face 0 and the numbers that arithmetic gives (NaN). F >= 1.
// An index out of range gives kBadIndex and undefined outputs; on CUDA
// such a triangle is infinitely far. The result does not depend on the number of threads.
// Tolerance: squared distances 1e-6 relative; where two triangles are equally far up to that, either may be found.
#pragma once
#include "common.h"

struct FourdSurfaceFieldArgs {
  const float* points;
  const float* vertices;
  const int32_t* faces;
  int64_t* face_index;
  float* barycentrics;
  float* signed_distance;
  float* squared_distance;
  int64_t batch;
  int64_t point_count;
  int64_t vertex_count;
  int64_t face_count;
  float min_triangle_area;
  int32_t threads;
};

FOURD_EXPORT int fourd_surface_field(const FourdSurfaceFieldArgs* args);
