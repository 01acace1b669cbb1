// Where a source pixel lands, for the CPU and the CUDA kernels; contract and formula in correspondence_warp.h.
#pragma once
#include <cmath>
#include <cstring>

#include "correspondence_warp.h"

namespace fourd {
namespace {

constexpr int kWindow = 8;  // most target rows or columns of one tent: 2 * radius
constexpr float kLeast = 1e-6f;
constexpr float kCovers = 0.1f;

// Where a source pixel lands: its tent's rows and columns of the target, already cut to the picture, and their weights.
struct Landing {
  float z;
  int first_row, last_row, first_col, last_col;  // last: inclusive
  float by_row[kWindow], by_col[kWindow];
};

// The weights of a tent around `at` for the pixels first..last (centres at + 0.5), at most kWindow of them.
FOURD_SHARED void tent(float at, float radius, int size, int* first, int* last, float* weights) {
  const float low = fmaxf(at - 0.5f - radius, -1.0f), high = fminf(at - 0.5f + radius, float(size));
  *first = int(low + 1.0f);  // both numbers are >= 0 here, so that cutting off rounds down
  *last = high > 0.0f ? int(high) - (float(int(high)) == high) : -1;
  if (*last > *first + kWindow - 1) *last = *first + kWindow - 1;
  for (int i = *first; i <= *last; i++) weights[i - *first] = fmaxf(0.0f, 1.0f - fabsf(float(i) + 0.5f - at) / radius);
}

// False where nothing lands.
FOURD_SHARED bool land(const FourdWarpArgs& s, const float* p, float depth, int row, int col, int first_row, int last_row, Landing* out) {
  if (!(depth > 0.0f) || !(depth < INFINITY)) return false;
  const float x = float(col) + 0.5f, y = float(row) + 0.5f;
  const float z = depth * (p[8] * x + p[9] * y + p[10]) + p[11];
  if (!(z >= s.near_z)) return false;
  const float v = (depth * (p[4] * x + p[5] * y + p[6]) + p[7]) / z;
  if (!(v + s.radius > float(first_row)) || !(v - s.radius < float(last_row + 1))) return false;
  const float u = (depth * (p[0] * x + p[1] * y + p[2]) + p[3]) / z;
  if (!(u + s.radius > 0.0f) || !(u - s.radius < float(s.out_width))) return false;
  out->z = z;
  tent(u, s.radius, s.out_width, &out->first_col, &out->last_col, out->by_col);
  tent(v, s.radius, s.out_height, &out->first_row, &out->last_row, out->by_row);
  return true;
}

// e^-x for x >= 0, relative error below 2e-7 (0 beyond 80): 2^n times a polynomial of degree 6 on [-1/2, 1/2].
FOURD_SHARED float exp_minus(float x) {
  if (!(x < 80.0f)) return x >= 80.0f ? 0.0f : x;  // NaN stays
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float y = x * -1.4426950408889634f, n = (y + kRound) - kRound, f = (y - n) * 0.6931471805599453f;
  const float p = 1.0f + f * (1.0f + f * (0.5f + f * (1.0f / 6 + f * (1.0f / 24 + f * (1.0f / 120 + f * (1.0f / 720))))));
  const int32_t power = (int32_t(n) + 127) << 23;  // 2^n as a float's bits; n >= -116
  float scale;
  memcpy(&scale, &power, sizeof(scale));
  return p * scale;
}

inline bool valid(const FourdWarpArgs& s) {
  return s.batch >= 0 && s.channels >= 1 && s.height >= 1 && s.width >= 1 && s.out_height >= 1 && s.out_width >= 1 &&
         s.radius >= 0.5f && s.radius <= 4.0f && s.softness > 0.0f && s.near_z > 0.0f;
}

}  // namespace
}  // namespace fourd
