// Gaussians bound to triangles on the CPU; contract in bind_gaussians.h.
#include "bind_gaussians.h"

#include <algorithm>
#include <atomic>
#include <cmath>

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

#define FOURD_WIDTH 4
namespace plain {
#include "simd.inl"
#include "bind_gaussians_kernels.inl"
}  // namespace plain
#undef FOURD_INLINE
#undef FOURD_WIDTH

#if FOURD_X86
FOURD_BEGIN_TARGET(FOURD_AVX2)
#define FOURD_WIDTH 8
namespace avx2 {
#include "simd.inl"
#include "bind_gaussians_kernels.inl"
}  // namespace avx2
#undef FOURD_INLINE
#undef FOURD_WIDTH
FOURD_END_TARGET

FOURD_BEGIN_TARGET(FOURD_AVX512)
#define FOURD_WIDTH 16
namespace avx512 {
#include "simd.inl"
#include "bind_gaussians_kernels.inl"
}  // namespace avx512
#undef FOURD_INLINE
#undef FOURD_WIDTH
FOURD_END_TARGET
#endif

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

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_bind_gaussians(const FourdBindArgs* args) {
  if (args->count < 0 || args->face_count < 0) return fourd::kBadArgument;
  static thread_local fourd::Scratch<fourd::Frame> frames;
  try {
    return fourd::run(*args, frames.reserve(size_t(args->face_count) + 1));
  } catch (const std::bad_alloc&) {
    return fourd::kOutOfMemory;
  }
}
