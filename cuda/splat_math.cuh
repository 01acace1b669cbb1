// The projection of one Gaussian and its derivative, on the device; the formulas are those of splat_kernels.inl and
// splat_backward_kernels.inl, one lane at a time.
#pragma once
#include "device.cuh"
#include "splat.h"

namespace fourd {

constexpr int kTile = 16;
constexpr int kSums = 7;
constexpr float kMaxAlpha = 0.999f;
constexpr float kMinTransmittance = 1e-4f;
constexpr float kLog2Of255 = 7.994353436858858f;
constexpr float kHalfLog2E = 0.7213475204444817f;

struct SplatCamera {
  float r[9], t[3];
  float fx, fy, cx, cy;
  float u_min, u_max, v_min, v_max;
};

// What drawing needs of a Gaussian: log2 alpha at offset (dx, dy) = a dx^2 + b dx dy + c dy^2 + log2_opacity.
struct alignas(16) Splat {
  float x, y, a, b, c, log2_opacity, z;
  int32_t index;
};

// Tiles of a Gaussian's extent, first and last; first_col > last_col where it is not seen.
struct alignas(8) TileRange {
  int16_t first_col, last_col, first_row, last_row;
};

// Everything on the way from the parameters to the covariance on the picture.
struct Footprint {
  float inverse_z, z, u, v, uc, vc, fu, fv;
  float a[3], b[3], ca[3], cb[3];  // rows of J R, and the covariance times them
  float p00, s01, p11, s00, s11, inverse_det;
};

__device__ inline SplatCamera camera_of(const FourdSplatArgs& s, int c) {
  const float* m = s.world_to_camera + 16 * c;
  const float* k = s.intrinsics + 9 * c;
  SplatCamera cam;
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) cam.r[3 * i + j] = m[4 * i + j];
    cam.t[i] = m[4 * i + 3];
  }
  cam.fx = k[0], cam.fy = k[4], cam.cx = k[2], cam.cy = k[5];
  const float width = float(s.width), height = float(s.height);
  const float margin_u = 0.15f * width / cam.fx, margin_v = 0.15f * height / cam.fy;
  cam.u_min = -(cam.cx / cam.fx + margin_u), cam.u_max = (width - cam.cx) / cam.fx + margin_u;
  cam.v_min = -(cam.cy / cam.fy + margin_v), cam.v_max = (height - cam.cy) / cam.fy + margin_v;
  return cam;
}

__device__ inline Footprint footprint_of(const SplatCamera& cam, const float* m, const float* cov, float eps2d) {
  Footprint f;
  f.z = cam.r[6] * m[0] + cam.r[7] * m[1] + cam.r[8] * m[2] + cam.t[2];
  f.inverse_z = 1.0f / f.z;
  f.u = (cam.r[0] * m[0] + cam.r[1] * m[1] + cam.r[2] * m[2] + cam.t[0]) * f.inverse_z;
  f.v = (cam.r[3] * m[0] + cam.r[4] * m[1] + cam.r[5] * m[2] + cam.t[1]) * f.inverse_z;
  f.uc = fminf(fmaxf(f.u, cam.u_min), cam.u_max);
  f.vc = fminf(fmaxf(f.v, cam.v_min), cam.v_max);
  f.fu = cam.fx * f.inverse_z, f.fv = cam.fy * f.inverse_z;
  for (int d = 0; d < 3; d++) {
    f.a[d] = f.fu * (cam.r[d] - f.uc * cam.r[6 + d]);
    f.b[d] = f.fv * (cam.r[3 + d] - f.vc * cam.r[6 + d]);
  }
  const int at[3][3] = {{0, 1, 2}, {1, 3, 4}, {2, 4, 5}};
  f.p00 = f.s01 = f.p11 = 0.0f;
  for (int d = 0; d < 3; d++) {
    f.ca[d] = cov[at[d][0]] * f.a[0] + cov[at[d][1]] * f.a[1] + cov[at[d][2]] * f.a[2];
    f.cb[d] = cov[at[d][0]] * f.b[0] + cov[at[d][1]] * f.b[1] + cov[at[d][2]] * f.b[2];
  }
  for (int d = 0; d < 3; d++) {
    f.p00 += f.a[d] * f.ca[d];
    f.s01 += f.b[d] * f.ca[d];
    f.p11 += f.b[d] * f.cb[d];
  }
  f.s00 = f.p00 + eps2d, f.s11 = f.p11 + eps2d;
  f.inverse_det = 1.0f / (f.s00 * f.s11 - f.s01 * f.s01);
  return f;
}

// The Gaussian on the picture and the tiles of its extent; false where it is not seen. Each test is written so that a NaN fails it.
__device__ inline bool project(const FourdSplatArgs& s, const SplatCamera& cam, int64_t n, Splat* out, TileRange* range) {
  const Footprint f = footprint_of(cam, s.means + 3 * n, s.covariances + 6 * n, s.eps2d);
  float opacity = s.opacities[n];
  if (s.antialiased) opacity *= sqrtf(fmaxf((f.p00 * f.p11 - f.s01 * f.s01) * f.inverse_det, 0.0f));
  const float log2_opacity = log2f(fmaxf(opacity, 1e-30f));
  const float room = log2_opacity + kLog2Of255, q_max = room * 1.3862943611198906f;
  const float rx = sqrtf(fmaxf(q_max * f.s00, 0.0f)), ry = sqrtf(fmaxf(q_max * f.s11, 0.0f));
  const float x = cam.fx * f.u + cam.cx, y = cam.fy * f.v + cam.cy;
  const float a = -kHalfLog2E * (f.s11 * f.inverse_det), c = -kHalfLog2E * (f.s00 * f.inverse_det);
  const float huge = 1e30f;
  const bool visible = s.near_z <= f.z && f.inverse_det > 0.0f && room >= 0.0f && fabsf(x) < huge && fabsf(y) < huge && fabsf(a) < huge &&
                       fabsf(c) < huge && rx < huge && ry < huge && opacity < huge && f.s00 * f.s11 - f.s01 * f.s01 > 0.0f;
  if (!visible) return false;
  const float width = float(s.width), height = float(s.height);
  const float col0 = fmaxf(ceilf(fminf(fmaxf(x - rx - 0.5f, -1.0f), width)), 0.0f);
  const float col1 = fminf(floorf(fminf(fmaxf(x + rx - 0.5f, -1.0f), width)), width - 1.0f);
  const float row0 = fmaxf(ceilf(fminf(fmaxf(y - ry - 0.5f, -1.0f), height)), 0.0f);
  const float row1 = fminf(floorf(fminf(fmaxf(y + ry - 0.5f, -1.0f), height)), height - 1.0f);
  if (!(col0 <= col1 && row0 <= row1)) return false;
  *out = {x, y, a, 2.0f * kHalfLog2E * (f.s01 * f.inverse_det), c, log2_opacity, f.z, int32_t(n)};
  *range = {int16_t(int(col0) / kTile), int16_t(int(col1) / kTile), int16_t(int(row0) / kTile), int16_t(int(row1) / kTile)};
  return true;
}

// Is alpha >= 1/255 anywhere among the pixel centres' box of a tile? (`reaches` of splat_kernels.inl)
__device__ inline bool reaches_tile(const Splat& g, int tile_col, int tile_row) {
  const float left = float(tile_col * kTile) + 0.5f - g.x, right = left + float(kTile - 1);
  const float top = float(tile_row * kTile) + 0.5f - g.y, bottom = top + float(kTile - 1);
  const float near_x = fminf(fmaxf(0.0f, left), right), near_y = fminf(fmaxf(0.0f, top), bottom);
  const float best_y = fminf(fmaxf(-0.5f * g.b / g.c * near_x, top), bottom);
  const float best_x = fminf(fmaxf(-0.5f * g.b / g.a * near_y, left), right);
  const float on_vertical = near_x * (g.a * near_x + g.b * best_y) + (g.c * best_y * best_y + g.log2_opacity);
  const float on_horizontal = best_x * (g.a * best_x + g.b * near_y) + (g.c * near_y * near_y + g.log2_opacity);
  return fmaxf(on_vertical, on_horizontal) >= -kLog2Of255 - 1e-3f;  // slack: listing one too many costs little
}

// From what a Gaussian collected on the picture (e-weighted sums of 1, dx, dy, dx^2, dx dy, dy^2, and of the depth) to the gradients of
// mean [3], covariance [6], opacity, all in `out` [10] (added to), and of the camera's rows [12] (written).
__device__ inline void project_back(const FourdSplatArgs& s, const SplatCamera& cam, int64_t n, const float* sums, float* out,
                                    float* camera) {
  const float* m = s.means + 3 * n;
  const Footprint f = footprint_of(cam, m, s.covariances + 6 * n, s.eps2d);
  const float i00 = f.s11 * f.inverse_det, i01 = -f.s01 * f.inverse_det, i11 = f.s00 * f.inverse_det;
  const float g_x = i00 * sums[1] + i01 * sums[2], g_y = i01 * sums[1] + i11 * sums[2];
  const float t00 = i00 * sums[3] + i01 * sums[4], t01 = i00 * sums[4] + i01 * sums[5];
  const float t10 = i01 * sums[3] + i11 * sums[4], t11 = i01 * sums[4] + i11 * sums[5];
  float g00 = 0.5f * (t00 * i00 + t01 * i01), g01 = 0.5f * (t00 * i01 + t01 * i11), g11 = 0.5f * (t10 * i01 + t11 * i11);
  out[9] += sums[0] / fmaxf(s.opacities[n], 1e-30f);
  if (s.antialiased) {
    const float r = (f.p00 * f.p11 - f.s01 * f.s01) * f.inverse_det;
    const float g_r = r > 0.0f ? 0.5f * sums[0] / fmaxf(r, 1e-30f) : 0.0f;
    g00 += g_r * (f.p11 - r * f.s11) * f.inverse_det;
    g11 += g_r * (f.p00 - r * f.s00) * f.inverse_det;
    g01 += g_r * (r - 1.0f) * f.s01 * f.inverse_det;
  }
  float g_a[3], g_b[3], g_inverse_z = 0.0f, along_u = 0.0f, along_v = 0.0f;
  for (int d = 0; d < 3; d++) {
    g_a[d] = 2.0f * (g00 * f.ca[d] + g01 * f.cb[d]);
    g_b[d] = 2.0f * (g01 * f.ca[d] + g11 * f.cb[d]);
    g_inverse_z += cam.fx * g_a[d] * (cam.r[d] - f.uc * cam.r[6 + d]) + cam.fy * g_b[d] * (cam.r[3 + d] - f.vc * cam.r[6 + d]);
    along_u += g_a[d] * cam.r[6 + d];
    along_v += g_b[d] * cam.r[6 + d];
  }
  const float g_u = g_x * cam.fx - (f.u == f.uc ? f.fu * along_u : 0.0f), g_v = g_y * cam.fy - (f.v == f.vc ? f.fv * along_v : 0.0f);
  const float g_point[3] = {g_u * f.inverse_z, g_v * f.inverse_z,
                            sums[6] - (g_u * f.u + g_v * f.v) * f.inverse_z - g_inverse_z * f.inverse_z * f.inverse_z};
  int at = 3;
  for (int d = 0; d < 3; d++) {
    out[d] += cam.r[d] * g_point[0] + cam.r[3 + d] * g_point[1] + cam.r[6 + d] * g_point[2];
    for (int e = d; e < 3; e++) {
      const float twice = d == e ? 1.0f : 2.0f;
      out[at++] += twice * (g00 * f.a[d] * f.a[e] + g01 * (f.a[d] * f.b[e] + f.a[e] * f.b[d]) + g11 * f.b[d] * f.b[e]);
    }
    camera[d] = g_point[0] * m[d] + f.fu * g_a[d];
    camera[4 + d] = g_point[1] * m[d] + f.fv * g_b[d];
    camera[8 + d] = g_point[2] * m[d] - f.fu * f.uc * g_a[d] - f.fv * f.vc * g_b[d];
  }
  for (int row = 0; row < 3; row++) camera[4 * row + 3] = g_point[row];
}

}  // namespace fourd
