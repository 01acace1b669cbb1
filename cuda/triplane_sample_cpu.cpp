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

#define FOURD_KERNELS_FILE "triplane_sample_kernels.inl"
#include "instruction_sets.inl"

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

// The up to eight texels around a point in one plane: row, offset in floats by the given strides (columns, rows, layers), weight, and
// the weight's derivative along columns, rows and layers (where Slopes).
struct Corner {
  int64_t offset;
  int row;
  float weight, along[3];
};

constexpr int kEvery = -1;  // rows of every band

// band: leave the cell out if neither of its rows is one of the band's (row % kBands).
template <int D, bool Slopes>
int corners_of(const FourdTriplaneSampleArgs& a, int plane, const float* point, const int64_t* strides, int band, Corner* out) {
  const int size[3] = {a.width, a.height, a.depth};
  int first[D];
  float part[D];
  for (int d = 0; d < D; d++) {
    const float at = point[a.axes[3 * plane + d]] * (float(size[d]) / a.box_size) + 0.5f * float(size[d] - 1);
    if (!(at > -1.0f && at < float(size[d]))) return 0;
    first[d] = int(at + 1.0f) - 1;
    part[d] = at - float(first[d]);
  }
  if (band != kEvery && (first[1] + kBands) % kBands != band && (first[1] + 1) % kBands != band) return 0;
  int count = 0;
#pragma GCC unroll 8
  for (int bits = 0; bits < 1 << D; bits++) {
    Corner c{0, first[1] + (bits >> 1 & 1), a.plane_scale, {0.0f, 0.0f, 0.0f}};
    float share[3] = {1.0f, 1.0f, 1.0f};
    bool inside = true;
    for (int d = 0; d < D; d++) {
      const bool up = bits >> d & 1;
      const int at = first[d] + up;
      inside &= at >= 0 && at < size[d];
      share[d] = up ? part[d] : 1.0f - part[d];
      c.offset += at * strides[d];
    }
    if (!inside) continue;
    c.weight *= share[0] * share[1] * share[2];
    for (int d = 0; Slopes && d < D; d++) {
      const float slope = float(size[d]) / a.box_size * a.plane_scale;
      c.along[d] = (bits >> d & 1 ? slope : -slope) * share[(d + 1) % 3] * share[(d + 2) % 3];
    }
    out[count++] = c;
  }
  return count;
}

template <bool Slopes>
int corners(const FourdTriplaneSampleArgs& a, int plane, const float* point, const int64_t* strides, int band, Corner* out) {
  return a.layered ? corners_of<3, Slopes>(a, plane, point, strides, band, out)
                   : corners_of<2, Slopes>(a, plane, point, strides, band, out);
}

// Strides of the texels in `planes`: along columns, rows, layers.
struct Strides {
  int64_t by[3];
  explicit Strides(const FourdTriplaneSampleArgs& a) : by{a.strides[5], a.strides[4], a.strides[3]} {}
};

const float* plane_of(const FourdTriplaneSampleArgs& a, int64_t item, int plane) {
  return a.planes + item * a.strides[0] + plane * a.strides[1];
}

void sample_point(const FourdTriplaneSampleArgs& a, const Kernels& k, int64_t index) {
  const float* const point = a.points + 3 * index;
  float* const out = a.features + index * a.channels;
  const bool finite = is_finite(point);
  const Strides strides(a);
  const float* texels[24];
  float weights[24];
  int count = 0;
  Corner found[8];
  for (int plane = 0; finite && plane < 3; plane++) {
    const int here = corners<false>(a, plane, point, strides.by, kEvery, found);
    const float* const base = plane_of(a, index / a.count, plane);
    for (int i = 0; i < here; i++, count++) {
      texels[count] = base + found[i].offset;
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
  const Strides strides(a);
  Corner found[8];
  for (int plane = 0; plane < 3; plane++) {
    const int count = corners<true>(a, plane, point, strides.by, kEvery, found);
    for (int i = 0; i < count; i++) {
      const float* const t = plane_of(a, index / a.count, plane) + found[i].offset;
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
    const int64_t strides[3] = {a.channels, row_size, row_size * a.height};
    Corner found[8];
    for (int64_t n = 0; n < a.count; n++) {
      const int64_t index = item * a.count + n;
      if (!is_finite(a.points + 3 * index)) continue;
      const int count = corners<false>(a, plane, a.points + 3 * index, strides, band, found);
      for (int i = 0; i < count; i++)
        if (found[i].row % kBands == band)
          k.add_scaled(out + found[i].offset, a.grad_features + index * a.channels, a.channels, found[i].weight);
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
