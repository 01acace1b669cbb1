// Features of points in a tri-plane on the CPU; contract in triplane_sample.h.
//
// Forward, and the gradient of points: each point by itself. The gradient of planes: one task for every fourth row of a plane, which
// goes through all points in order, so that no two tasks touch a texel and bits do not depend on the threads.
#include "triplane_sample.h"

#include <cmath>

#include "parallel.h"

namespace fourd {
namespace {

constexpr int kBands = 4;

#define FOURD_WIDTH 4
namespace plain {
#include "simd.inl"
#include "triplane_sample_kernels.inl"
}  // namespace plain
#undef FOURD_INLINE
#undef FOURD_WIDTH

#if FOURD_X86
FOURD_BEGIN_TARGET(FOURD_AVX2)
#define FOURD_WIDTH 8
namespace avx2 {
#include "simd.inl"
#include "triplane_sample_kernels.inl"
}  // namespace avx2
#undef FOURD_INLINE
#undef FOURD_WIDTH
FOURD_END_TARGET

FOURD_BEGIN_TARGET(FOURD_AVX512)
#define FOURD_WIDTH 16
namespace avx512 {
#include "simd.inl"
#include "triplane_sample_kernels.inl"
}  // namespace avx512
#undef FOURD_INLINE
#undef FOURD_WIDTH
FOURD_END_TARGET
#endif

struct Kernels {
  decltype(&plain::sum_texels) sum_texels;
  decltype(&plain::add_scaled) add_scaled;
  decltype(&plain::dot_texel) dot_texel;
};

Kernels kernels() {
#if FOURD_X86
  if (instruction_set() == kAvx512) return {avx512::sum_texels, avx512::add_scaled, avx512::dot_texel};
  if (instruction_set() == kAvx2) return {avx2::sum_texels, avx2::add_scaled, avx2::dot_texel};
#endif
  return {plain::sum_texels, plain::add_scaled, plain::dot_texel};
}

bool is_finite(const float* p) { return std::isfinite(p[0]) && std::isfinite(p[1]) && std::isfinite(p[2]); }

// The up to eight texels around a point in one plane: position, weight, and the weight's derivative along columns, rows, layers.
struct Corner {
  int64_t column, row, layer;
  float weight, along[3];
};

int corners(const FourdTriplaneSampleArgs& a, int plane, const float* point, Corner* out, int band = -1) {
  const int size[3] = {a.width, a.height, a.depth};
  const int dims = a.layered ? 3 : 2;
  int64_t first[3] = {0, 0, 0};
  float part[3] = {0.0f, 0.0f, 0.0f}, slope[3] = {0.0f, 0.0f, 0.0f};
  for (int d = 0; d < dims; d++) {
    slope[d] = float(size[d]) / a.box_size;
    const float at = point[a.axes[3 * plane + d]] * slope[d] + 0.5f * float(size[d] - 1);
    if (!(at > -1.0f && at < float(size[d]))) return 0;
    const float low = std::floor(at);
    first[d] = int64_t(low);
    part[d] = at - low;
  }
  // Neither of the two rows belongs to the band that is asked for:
  if (band >= 0 && ((first[1] + kBands) % kBands != band) && ((first[1] + 1) % kBands != band)) return 0;
  int count = 0;
  for (int bits = 0; bits < 1 << dims; bits++) {
    Corner c{first[0], first[1], first[2], a.plane_scale, {0.0f, 0.0f, 0.0f}};
    int64_t* const at[3] = {&c.column, &c.row, &c.layer};
    float share[3] = {1.0f, 1.0f, 1.0f};
    bool inside = true;
    for (int d = 0; d < dims; d++) {
      const bool up = bits >> d & 1;
      *at[d] += up;
      inside = inside && *at[d] >= 0 && *at[d] < size[d];
      share[d] = up ? part[d] : 1.0f - part[d];
      c.along[d] = (up ? slope[d] : -slope[d]) * a.plane_scale;
    }
    if (!inside) continue;
    c.weight *= share[0] * share[1] * share[2];
    for (int d = 0; d < dims; d++) c.along[d] *= share[(d + 1) % 3] * share[(d + 2) % 3];
    out[count++] = c;
  }
  return count;
}

const float* texel(const FourdTriplaneSampleArgs& a, int64_t item, int plane, const Corner& c) {
  return a.planes + item * a.strides[0] + plane * a.strides[1] + c.layer * a.strides[3] + c.row * a.strides[4] +
         c.column * a.strides[5];
}

void sample_point(const FourdTriplaneSampleArgs& a, const Kernels& k, int64_t index) {
  const float* const point = a.points + 3 * index;
  float* const out = a.features + index * a.channels;
  const bool finite = is_finite(point);
  const float* texels[24];
  float weights[24];
  int count = 0;
  Corner found[8];
  for (int plane = 0; finite && plane < 3; plane++) {
    const int here = corners(a, plane, point, found);
    for (int i = 0; i < here; i++, count++) {
      texels[count] = texel(a, index / a.count, plane, found[i]);
      weights[count] = found[i].weight;
    }
  }
  k.sum_texels(out, texels, weights, count, a.strides[2], a.channels, finite ? 0.0f : std::nanf(""));
}

void point_backward(const FourdTriplaneSampleArgs& a, const Kernels& k, int64_t index) {
  const float* const point = a.points + 3 * index;
  float* const out = a.grad_points + 3 * index;
  out[0] = out[1] = out[2] = 0.0f;
  if (!is_finite(point)) return;
  Corner found[8];
  for (int plane = 0; plane < 3; plane++) {
    const int count = corners(a, plane, point, found);
    for (int i = 0; i < count; i++) {
      const float* const t = texel(a, index / a.count, plane, found[i]);
      const float dot = k.dot_texel(a.grad_features + index * a.channels, t, a.strides[2], a.channels);
      for (int d = 0; d < (a.layered ? 3 : 2); d++) out[a.axes[3 * plane + d]] += dot * found[i].along[d];
    }
  }
}

void planes_backward(const FourdTriplaneSampleArgs& a, const Kernels& k) {
  const int64_t plane_size = int64_t(a.depth) * a.height * a.width * a.channels;
  parallel_for(a.threads, int64_t(a.batch) * 3 * kBands, [&](int64_t task, int) {
    const int64_t item = task / (3 * kBands);
    const int plane = int(task / kBands % 3), band = int(task % kBands);
    float* const out = a.grad_planes + (item * 3 + plane) * plane_size;
    const int64_t row_size = int64_t(a.width) * a.channels;
    for (int64_t row = 0; row < int64_t(a.depth) * a.height; row++)
      if (row % a.height % kBands == band) std::memset(out + row * row_size, 0, row_size * sizeof(float));
    Corner found[8];
    for (int64_t n = 0; n < a.count; n++) {
      const int64_t index = item * a.count + n;
      if (!is_finite(a.points + 3 * index)) continue;
      const int count = corners(a, plane, a.points + 3 * index, found, band);
      for (int i = 0; i < count; i++) {
        const Corner& c = found[i];
        if (c.row % kBands != band) continue;
        float* const to = out + (c.layer * a.height + c.row) * row_size + c.column * a.channels;
        k.add_scaled(to, a.grad_features + index * a.channels, a.channels, c.weight);
      }
    }
  });
}

bool sizes_fit(const FourdTriplaneSampleArgs& a) {
  return a.batch >= 0 && a.count >= 0 && a.channels > 0 && a.depth > 0 && a.height > 0 && a.width > 0 &&
         (a.layered || a.depth == 1);
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_triplane_sample(const FourdTriplaneSampleArgs* args) {
  using namespace fourd;
  if (!sizes_fit(*args)) return kBadArgument;
  const Kernels k = kernels();
  parallel_ranges(max_threads(args->threads), args->batch * args->count, 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) sample_point(*args, k, i);
  });
  return kOk;
}

FOURD_EXPORT int fourd_triplane_sample_backward(const FourdTriplaneSampleArgs* args) {
  using namespace fourd;
  if (!sizes_fit(*args)) return kBadArgument;
  const Kernels k = kernels();
  if (args->grad_points)
    parallel_ranges(max_threads(args->threads), args->batch * args->count, 256, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) point_backward(*args, k, i);
    });
  if (args->grad_planes) planes_backward(*args, k);
  return kOk;
}
