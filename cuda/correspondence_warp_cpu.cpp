// correspondence_warp on the CPU; contract in correspondence_warp.h.
//
// Each thread owns a band of the target's rows and goes through all source pixels for it, so nothing is shared and the sums of a target
// pixel run in the order of the source, whatever the number of bands.
#include "correspondence_warp_land.inl"

#include <algorithm>
#include <limits>

#include "parallel.h"

namespace fourd {
namespace {

// Fill `surface` in the rows first..last with the nearest depth that lands there.
void nearest_surface(const FourdWarpArgs& s, const float* depth, const float* p, int first, int last, float* surface) {
  const float none = std::numeric_limits<float>::infinity();
  std::fill(surface + size_t(first) * s.out_width, surface + size_t(last + 1) * s.out_width, none);
  Landing at;
  for (int row = 0; row < s.height; row++) {
    for (int col = 0; col < s.width; col++) {
      if (!land(s, p, depth[size_t(row) * s.width + col], row, col, first, last, &at)) continue;
      for (int r = std::max(at.first_row, first); r <= std::min(at.last_row, last); r++) {
        float* line = surface + size_t(r) * s.out_width;
        for (int c = at.first_col; c <= at.last_col; c++)
          if (at.by_row[r - at.first_row] * at.by_col[c - at.first_col] >= kCovers) line[c] = std::min(line[c], at.z);
      }
    }
  }
  for (size_t i = size_t(first) * s.out_width; i < size_t(last + 1) * s.out_width; i++)
    if (surface[i] == none) surface[i] = 0.0f;
}

// Add the colours that land in the rows first..last to `sums` [rows, w, C + 1] (the last one: the weights).
void add_colors(const FourdWarpArgs& s, const float* image, const float* depth, const float* p, const float* surface, int first, int last,
                float* sums) {
  const size_t plane = size_t(s.height) * s.width;
  const float sharpness = 1.0f / s.softness;
  const int width = s.channels + 1;
  Landing at;
  for (int row = 0; row < s.height; row++) {
    for (int col = 0; col < s.width; col++) {
      const size_t source = size_t(row) * s.width + col;
      if (!land(s, p, depth[source], row, col, first, last, &at)) continue;
      for (int r = std::max(at.first_row, first); r <= std::min(at.last_row, last); r++) {
        for (int c = at.first_col; c <= at.last_col; c++) {
          const float there = surface[size_t(r) * s.out_width + c];
          if (!(there > 0.0f)) continue;
          const float w = at.by_row[r - at.first_row] * at.by_col[c - at.first_col] * exp_minus(std::fabs(at.z - there) * sharpness);
          float* sum = sums + (size_t(r - first) * s.out_width + c) * width;
          for (int d = 0; d < s.channels; d++) sum[d] += w * image[d * plane + source];
          sum[s.channels] += w;
        }
      }
    }
  }
}

void warp_band(const FourdWarpArgs& s, int b, int first, int last) {
  const size_t source = size_t(s.height) * s.width, target = size_t(s.out_height) * s.out_width;
  const float* depth = s.depth_z + b * source;
  const float* p = s.projection + 12 * b;
  float* surface = s.surface + b * target;
  const size_t begin = size_t(first) * s.out_width, end = size_t(last + 1) * s.out_width;
  if (s.target_depth) {
    for (size_t i = begin; i < end; i++) {
      const float z = s.target_depth[b * target + i];
      surface[i] = z > 0.0f && z < std::numeric_limits<float>::infinity() ? z : 0.0f;
    }
  } else {
    nearest_surface(s, depth, p, first, last, surface);
  }
  static thread_local Scratch<float> scratch;
  const size_t width = size_t(s.channels) + 1;
  float* sums = scratch.reserve((end - begin) * width);
  std::memset(sums, 0, (end - begin) * width * sizeof(float));
  add_colors(s, s.image + b * s.channels * source, depth, p, surface, first, last, sums);
  for (size_t i = begin; i < end; i++) {
    const float* sum = sums + (i - begin) * width;
    const float weight = sum[s.channels], inverse = weight < kLeast ? 0.0f : 1.0f / weight;
    s.weight[b * target + i] = weight;
    for (int d = 0; d < s.channels; d++) s.out[(size_t(b) * s.channels + d) * target + i] = weight < kLeast ? 0.0f : sum[d] * inverse;
  }
}

void gather_row(const FourdWarpArgs& s, int b, int row) {
  const size_t source = size_t(s.height) * s.width, target = size_t(s.out_height) * s.out_width;
  const float* surface = s.surface + b * target;
  const float* weight = s.weight + b * target;
  const float sharpness = 1.0f / s.softness;
  Landing at;
  for (int col = 0; col < s.width; col++) {
    const size_t from = size_t(row) * s.width + col;
    float* const out = s.grad_image + size_t(b) * s.channels * source + from;
    for (int d = 0; d < s.channels; d++) out[d * source] = 0.0f;
    if (!land(s, s.projection + 12 * b, s.depth_z[b * source + from], row, col, 0, s.out_height - 1, &at)) continue;
    for (int r = at.first_row; r <= at.last_row; r++) {
      for (int c = at.first_col; c <= at.last_col; c++) {
        const size_t to = size_t(r) * s.out_width + c;
        if (!(surface[to] > 0.0f) || weight[to] < kLeast) continue;
        const float w = at.by_row[r - at.first_row] * at.by_col[c - at.first_col] * exp_minus(std::fabs(at.z - surface[to]) * sharpness);
        const float share = w / weight[to];
        for (int d = 0; d < s.channels; d++) out[d * source] += share * s.grad_out[(size_t(b) * s.channels + d) * target + to];
      }
    }
  }
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_correspondence_warp(const FourdWarpArgs* args) {
  using namespace fourd;
  const FourdWarpArgs& s = *args;
  if (!valid(s)) return kBadArgument;
  const int bands = std::min(max_threads(s.threads), s.out_height);
  try {
    parallel_for(bands, int64_t(s.batch) * bands, [&](int64_t task, int) {
      const int band = int(task % bands);
      const int first = int(int64_t(s.out_height) * band / bands), last = int(int64_t(s.out_height) * (band + 1) / bands) - 1;
      warp_band(s, int(task / bands), first, last);
    });
    return kOk;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}

FOURD_EXPORT int fourd_correspondence_warp_backward(const FourdWarpArgs* args) {
  using namespace fourd;
  const FourdWarpArgs& s = *args;
  if (!valid(s)) return kBadArgument;
  parallel_for(max_threads(s.threads), int64_t(s.batch) * s.height,
               [&](int64_t task, int) { gather_row(s, int(task / s.height), int(task % s.height)); });
  return kOk;
}
