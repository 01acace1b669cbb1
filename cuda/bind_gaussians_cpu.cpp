// Gaussians bound to triangles on the CPU; contract in bind_gaussians.h.
#include "bind_gaussians.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "parallel.h"

namespace fourd {
namespace {

constexpr int kBlock = 64;

struct BindBlock {
  alignas(64) float origin[3][kBlock];
  alignas(64) float frame[9][kBlock];  // row major
  alignas(64) float mean[3][kBlock];
  alignas(64) float covariance[6][kBlock];
  alignas(64) float max_trace[kBlock];
  alignas(64) float out[9][kBlock];
};

#define FOURD_KERNELS_FILE "bind_gaussians_kernels.inl"
#include "instruction_sets.inl"

using BindKernel = void (*)(BindBlock*, int);

BindKernel kernel() {
#if FOURD_X86
  if (instruction_set() == kAvx512) return avx512::bind_block;
  if (instruction_set() == kAvx2) return avx2::bind_block;
#endif
  return plain::bind_block;
}

struct alignas(16) Frame {
  float origin[3];
  float rows[9];
};

Frame frame_of(const float* vertices, const int32_t* face) {
  const float* v0 = vertices + 3 * size_t(face[0]);
  const float* v1 = vertices + 3 * size_t(face[1]);
  const float* v2 = vertices + 3 * size_t(face[2]);
  float e1[3], e2[3];
  for (int d = 0; d < 3; d++) {
    e1[d] = v1[d] - v0[d];
    e2[d] = v2[d] - v0[d];
  }
  const float n[3] = {e1[1] * e2[2] - e1[2] * e2[1], e1[2] * e2[0] - e1[0] * e2[2], e1[0] * e2[1] - e1[1] * e2[0]};
  const float length = std::sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);  // twice the area
  const float scale = length > 0.0f ? 1.0f / std::sqrt(length) : 0.0f;      // n / length * sqrt(length)
  Frame f;
  for (int d = 0; d < 3; d++) {
    f.origin[d] = v0[d];
    f.rows[3 * d] = e1[d];
    f.rows[3 * d + 1] = e2[d];
    f.rows[3 * d + 2] = n[d] * scale;
  }
  return f;
}

void bind_range(const FourdBindArgs& s, const Frame* frames, BindKernel kernel, int64_t first, int n) {
  BindBlock block;
  for (int i = 0; i < n; i++) {
    const Frame& f = frames[s.triangle[first + i]];
    for (int d = 0; d < 3; d++) block.origin[d][i] = f.origin[d];
    for (int d = 0; d < 9; d++) block.frame[d][i] = f.rows[d];
    for (int d = 0; d < 3; d++) block.mean[d][i] = s.local_mean[3 * (first + i) + d];
    for (int d = 0; d < 6; d++) block.covariance[d][i] = s.local_covariance[6 * (first + i) + d];
    block.max_trace[i] = s.max_trace ? s.max_trace[first + i] : s.max_trace_all;
  }
  for (int i = n; i % 16 != 0; i++) {  // the last vector may be partly empty
    for (int d = 0; d < 3; d++) block.origin[d][i] = block.mean[d][i] = 0.0f;
    for (int d = 0; d < 9; d++) block.frame[d][i] = 0.0f;
    for (int d = 0; d < 6; d++) block.covariance[d][i] = 0.0f;
    block.max_trace[i] = 0.0f;
  }
  kernel(&block, n);
  for (int i = 0; i < n; i++) {
    for (int d = 0; d < 3; d++) s.means[3 * (first + i) + d] = block.out[d][i];
    for (int d = 0; d < 6; d++) s.covariances[6 * (first + i) + d] = block.out[3 + d][i];
  }
}

int run(const FourdBindArgs& s, Frame* frames) {
  std::atomic<bool> bad_index{false};
  const BindKernel chosen = kernel();
  const int threads = max_threads(s.threads);
  parallel_ranges(threads, s.face_count, 4096, [&](int64_t begin, int64_t end, int) {
    if (!indices_fit(s.faces + 3 * begin, 3 * (end - begin), s.vertex_count)) {
      bad_index = true;
      return;
    }
    for (int64_t f = begin; f < end; f++) frames[f] = frame_of(s.vertices, s.faces + 3 * f);
  });
  if (bad_index) return kBadIndex;
  parallel_ranges(threads, s.count, 64 * kBlock, [&](int64_t begin, int64_t end, int) {
    if (!indices_fit(s.triangle + begin, end - begin, s.face_count)) {
      bad_index = true;
      return;
    }
    for (int64_t i = begin; i < end; i += kBlock) bind_range(s, frames, chosen, i, int(std::min<int64_t>(kBlock, end - i)));
  });
  return bad_index ? kBadIndex : kOk;
}

struct Matrix {
  float m[3][3];
};

Matrix times(const Matrix& a, const Matrix& b) {
  Matrix out;
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) out.m[i][j] = a.m[i][0] * b.m[0][j] + a.m[i][1] * b.m[1][j] + a.m[i][2] * b.m[2][j];
  return out;
}

Matrix transposed(const Matrix& a) {
  Matrix out;
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) out.m[i][j] = a.m[j][i];
  return out;
}

Matrix symmetric(const float* upper, float off_diagonal) {
  const float xy = upper[1] * off_diagonal, xz = upper[2] * off_diagonal, yz = upper[4] * off_diagonal;
  return {{{upper[0], xy, xz}, {xy, upper[3], yz}, {xz, yz, upper[5]}}};
}

void cross(const float* a, const float* b, float* out) {
  for (int d = 0; d < 3; d++) out[d] = a[(d + 1) % 3] * b[(d + 2) % 3] - a[(d + 2) % 3] * b[(d + 1) % 3];
}

// One Gaussian: writes the gradients of its local mean and covariance, adds those of its frame [3][3] and origin [3].
void gaussian_back(const FourdBindBackwardArgs& b, const Frame& frame, int64_t n, Matrix* grad_frame, float* grad_origin) {
  const FourdBindArgs& s = b.forward;
  Matrix f;
  std::memcpy(f.m, frame.rows, sizeof(f.m));
  const float* mean = s.local_mean + 3 * n;
  const float* by_mean = b.grad_means + 3 * n;
  const Matrix c = symmetric(s.local_covariance + 6 * n, 1.0f), fc = times(f, c);
  Matrix g = symmetric(b.grad_covariances + 6 * n, 0.5f);
  const float limit = s.max_trace ? s.max_trace[n] : s.max_trace_all;
  const Matrix k = times(fc, transposed(f));
  const float trace = k.m[0][0] + k.m[1][1] + k.m[2][2];
  if (limit < trace) {  // K limit / trace
    float along = 0.0f;
    for (int i = 0; i < 3; i++)
      for (int j = 0; j < 3; j++) along += g.m[i][j] * k.m[i][j];
    for (int i = 0; i < 3; i++)
      for (int j = 0; j < 3; j++) g.m[i][j] = limit / trace * (g.m[i][j] - (i == j ? along / trace : 0.0f));
  }
  const Matrix by_frame = times(g, fc), by_local = times(transposed(f), times(g, f));
  float* grad_covariance = b.grad_local_covariance + 6 * n;
  int at = 0;
  for (int i = 0; i < 3; i++) {
    b.grad_local_mean[3 * n + i] = f.m[0][i] * by_mean[0] + f.m[1][i] * by_mean[1] + f.m[2][i] * by_mean[2];
    grad_origin[i] += by_mean[i];
    for (int j = 0; j < 3; j++) grad_frame->m[i][j] += 2.0f * by_frame.m[i][j] + by_mean[i] * mean[j];
    for (int j = i; j < 3; j++) grad_covariance[at++] = i == j ? by_local.m[i][i] : 2.0f * by_local.m[i][j];
  }
}

// From the gradients of a triangle's frame and origin to those of its three corners.
void frame_back(const Frame& frame, const Matrix& grad_frame, const float* grad_origin, float corners[3][3]) {
  float e1[3], e2[3], by_e1[3], by_e2[3], by_normal[3], normal[3];
  for (int d = 0; d < 3; d++) {
    e1[d] = frame.rows[3 * d];
    e2[d] = frame.rows[3 * d + 1];
    by_e1[d] = grad_frame.m[d][0];
    by_e2[d] = grad_frame.m[d][1];
    by_normal[d] = grad_frame.m[d][2];
  }
  cross(e1, e2, normal);
  const float length = std::sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]);
  if (length > 0.0f) {  // the third column is c / sqrt(|c|) with c = e1 x e2
    const float along = (by_normal[0] * normal[0] + by_normal[1] * normal[1] + by_normal[2] * normal[2]) / (length * length);
    float by_cross[3], part[3];
    for (int d = 0; d < 3; d++) by_cross[d] = (by_normal[d] - 0.5f * along * normal[d]) / std::sqrt(length);
    cross(e2, by_cross, part);
    for (int d = 0; d < 3; d++) by_e1[d] += part[d];
    cross(by_cross, e1, part);
    for (int d = 0; d < 3; d++) by_e2[d] += part[d];
  }
  for (int d = 0; d < 3; d++) {
    corners[0][d] = grad_origin[d] - by_e1[d] - by_e2[d];
    corners[1][d] = by_e1[d];
    corners[2][d] = by_e2[d];
  }
}

int run_back(const FourdBindBackwardArgs& b) {
  const FourdBindArgs& s = b.forward;
  if (!indices_fit(s.faces, 3 * s.face_count, s.vertex_count) || !indices_fit(s.triangle, s.count, s.face_count)) return kBadIndex;
  // the Gaussians of each triangle, by counting: starts[f]..starts[f + 1] of order
  std::vector<int64_t> starts(size_t(s.face_count) + 2, 0);
  std::vector<int32_t> order(static_cast<size_t>(s.count));
  for (int64_t n = 0; n < s.count; n++) starts[size_t(s.triangle[n]) + 2]++;
  for (size_t f = 2; f < starts.size(); f++) starts[f] += starts[f - 1];
  for (int64_t n = 0; n < s.count; n++) order[size_t(starts[size_t(s.triangle[n]) + 1]++)] = int32_t(n);
  std::vector<float> corners(size_t(s.face_count) * 9);
  parallel_ranges(max_threads(s.threads), s.face_count, 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t f = begin; f < end; f++) {
      float* out = corners.data() + 9 * f;
      std::memset(out, 0, 9 * sizeof(float));
      if (starts[size_t(f)] == starts[size_t(f) + 1]) continue;
      const Frame frame = frame_of(s.vertices, s.faces + 3 * f);
      Matrix grad_frame = {};
      float grad_origin[3] = {}, by_corner[3][3];
      for (int64_t i = starts[size_t(f)]; i < starts[size_t(f) + 1]; i++) gaussian_back(b, frame, order[size_t(i)], &grad_frame, grad_origin);
      frame_back(frame, grad_frame, grad_origin, by_corner);
      std::memcpy(out, by_corner, sizeof(by_corner));
    }
  });
  std::memset(b.grad_vertices, 0, size_t(s.vertex_count) * 3 * sizeof(float));
  for (int64_t i = 0; i < 3 * s.face_count; i++)
    for (int d = 0; d < 3; d++) b.grad_vertices[3 * size_t(s.faces[i]) + d] += corners[size_t(3 * i) + d];
  return kOk;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_bind_gaussians_backward(const FourdBindBackwardArgs* args) {
  if (args->forward.count < 0 || args->forward.count >= INT32_MAX || args->forward.face_count < 0) return fourd::kBadArgument;
  try {
    return fourd::run_back(*args);
  } catch (const std::bad_alloc&) {
    return fourd::kOutOfMemory;
  }
}

FOURD_EXPORT int fourd_bind_gaussians(const FourdBindArgs* args) {
  if (args->count < 0 || args->face_count < 0) return fourd::kBadArgument;
  static thread_local fourd::Scratch<fourd::Frame> frames;
  try {
    return fourd::run(*args, frames.reserve(size_t(args->face_count) + 1));
  } catch (const std::bad_alloc&) {
    return fourd::kOutOfMemory;
  }
}
