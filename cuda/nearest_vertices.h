// The k nearest vertices of points (fourdface/ops/nearest_vertices.py; `nearest_vertices_reference` is the meaning).
//
// points [B,N,3], vertices [B,V,3] float32, subset [S] int32 (indices of vertices; null = all, S = V) ->
// indices [B,N,k] int64 (of vertices, not places in the subset), squared_distance [B,N,k] float32, nearest first.
//
// Distances are compared in double (float32 on CUDA), equal ones by the lower index; the order is complete, so the result does not
// depend on the number of threads. A vertex that is not finite counts as infinitely far. For a point that is not finite all
// distances count as infinite, so it gets the lowest indices, and the distances that arithmetic gives (infinite or NaN).
// 1 <= k <= S. An index out of range gives kBadIndex and undefined outputs; on CUDA
// such a vertex is infinitely far. Tolerance of the distances: 1e-6 relative.
// On CUDA k is at most 32, and the subset must be in rising order.
#pragma once
#include "common.h"

struct FourdNearestVerticesArgs {
  const float* points;
  const float* vertices;
  const int32_t* subset;  // or null
  int64_t* indices;
  float* squared_distance;
  int64_t batch;
  int64_t point_count;
  int64_t vertex_count;
  int64_t subset_count;
  int32_t k;
  int32_t threads;
};

FOURD_EXPORT int fourd_nearest_vertices(const FourdNearestVerticesArgs* args);
