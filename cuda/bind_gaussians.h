// Gaussians that ride on the triangles of a mesh (fourdface/ops/bind_gaussians.py; `bind_gaussians_reference` is the meaning).
//
// vertices [V,3] float32, faces [F,3] int32, triangle [N] int32 (index of a face), local_mean [N,3], local_covariance [N,6]
// (xx,xy,xz,yy,yz,zz), max_trace [N] or null -> means [N,3], covariances [N,6].
// Frame of a triangle: F = [e1, e2, h n], e1 = v1 - v0, e2 = v2 - v0, n the unit normal e1 x e2 / |e1 x e2|,
// h = sqrt(|e1 x e2|) = sqrt(2 area); a triangle without area has h n = 0. mean = v0 + F local_mean; covariance = F C F^T,
// scaled down as a whole where its trace is above max_trace.
// An index out of range is found before it is used: the result is then kBadIndex and the outputs are undefined; on CUDA the
// Gaussian becomes NaN. Tolerance to the reference: 1e-6 relative to the size of the frame.
// Backward (CPU): gradients of vertices [V,3], local_mean and local_covariance from those of means and covariances (off-diagonal entries of a
// covariance stand for both of their places); none for max_trace. Sums over the Gaussians of a triangle and over the triangles of a vertex
// run in rising order, so bits do not depend on the number of threads. Tolerance to the reference: 1e-5 of the largest gradient.
#pragma once
#include "common.h"

struct FourdBindArgs {
  const float* vertices;
  const int32_t* faces;
  const int32_t* triangle;
  const float* local_mean;
  const float* local_covariance;
  const float* max_trace;  // [N] or null
  float* means;
  float* covariances;
  int64_t vertex_count;
  int64_t face_count;
  int64_t count;
  float max_trace_all;  // used when max_trace is null; infinity = no limit
  int32_t threads;
};

struct FourdBindBackwardArgs {
  FourdBindArgs forward;            // means and covariances are not read
  const float* grad_means;          // [N,3]
  const float* grad_covariances;    // [N,6]
  float* grad_vertices;             // [V,3]
  float* grad_local_mean;           // [N,3]
  float* grad_local_covariance;     // [N,6]
};

FOURD_EXPORT int fourd_bind_gaussians(const FourdBindArgs* args);
FOURD_EXPORT int fourd_bind_gaussians_backward(const FourdBindBackwardArgs* args);
